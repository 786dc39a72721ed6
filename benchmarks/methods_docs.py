"""Parts of docs/methods.md that are made and never written: the catalogue, the measured tables, the bar.

`python -m benchmarks.methods_docs` writes them anew from the catalogue, the methods' own docstrings and the kept
results; a test compares. A part lies between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.methods_tables import bar, measured, table
from service.catalogue.methods import METHODS
from service.catalogue.specs import MethodSpec

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "methods.md"
_SENTENCE = re.compile(r"(?:(?<=\. )|^)(?:Needs|Costs|Fails|Refused)\b.*?\.(?= [A-Z]|$)")
_TASKS = {"image-classification": "images", "text-classification": "texts", "causal-lm": "language models"}
_FAMILIES = {"exact": "Exact by procedure", "approximate": "Approximate"}
MORE = {
    "nabla_tau": "Needs a held-out set. Costs 2 forward and 1 backward pass a step, over `passes` visits of the "
    "forgotten records. Fails on records known by heart, whose loss without them lies far above that of unseen ones.",
    "negative_gradient_plus": "Needs a held-out set. Costs 2 forward and 1 backward pass a step, over visits of the "
    "forgotten records. Fails where few odd records are driven to their cap, and a retrain would not lose that much.",
    "mini_unlearning": "Fails on deep networks trained by other rules than plain SGD.",
    "oracle_matching": "Fails as a choice: whoever has the oracle needs no unlearning.",
    "descent_to_delete": "Fails where the layers below the head know the records.",
}
"""What docstrings leave to be said of needs, cost and failure."""


def catalogue() -> str:
    """One line for each method, then what its docstring says of needs, cost and failure."""
    lines: list[str] = []
    for kind, title in _FAMILIES.items():
        chosen = [spec for spec in METHODS if spec.kind == kind]
        rows = [(f"`{spec.name}`", spec.summary, _for(spec), spec.source) for spec in chosen]
        lines += [f"### {title}", "", *table(("method", "what it does", "for", "source"), rows), ""]
        lines += [*(f"- `{spec.name}`: {said(spec)}" for spec in chosen), ""]
    return "\n".join(lines).strip()


def _for(spec: MethodSpec) -> str:
    return "all" if len(spec.tasks) == len(_TASKS) else ", ".join(_TASKS[task] for task in spec.tasks)


def said(spec: MethodSpec) -> str:
    """Sentences of a method's docstring that begin with Needs, Costs, Fails or Refused, and those of `MORE`."""
    module = spec.target.partition(":")[0].replace(".", "/")
    text = ast.get_docstring(ast.parse((ROOT / f"{module}.py").read_text())) or ""
    found = _SENTENCE.findall(re.sub(r"\s+", " ", text))
    return " ".join([*found, *([MORE[spec.name]] if spec.name in MORE else [])])


PARTS: dict[str, Callable[[], str]] = {"catalogue": catalogue, "measured": measured, "bar": bar}


def filled(page: str) -> str:
    """The page with its made parts made anew. Raises ValueError where one has no place."""
    for name, make in PARTS.items():
        before, begin, rest = page.partition(f"<!-- begin {name} -->\n")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        if not begin or not end:
            raise ValueError(f"the page has no place for {name}")
        page = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return page


def main() -> int:
    """Write the page."""
    PAGE.write_text(filled(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
