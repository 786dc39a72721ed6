"""What comes out of a language model: how many queries it takes until it says a text, before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.reports.canvas import FORGET, HELD_OUT, INK, MINIMUM, QUIET, new_figure, style, svg_of, title_of
from service.reports.scores import ScoreFiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOG_P = "extraction_log_p"
QUERIES = 1000
_FIRST, _MOST = 0.9, 1e9
_EVEN = 0.5


@dataclass(frozen=True)
class Spoken:
    """Log-probability in nats that one query says a text, of its easiest suffix: of forgotten texts [n] under both
    versions, and of texts of never-seen people [m] under the new one."""

    before: "NDArray[np.float64]"
    after: "NDArray[np.float64]"
    never_seen: "NDArray[np.float64]"


def read_spoken(files: ScoreFiles) -> Spoken | None:
    """The figures in the score tables; None without both versions, without the column, and for fewer than MINIMUM
    texts on a side."""
    found = {name: _sets(files, name) for name in ("original", "candidate")}
    parts = [found["original"].get("forget"), *(found["candidate"].get(part) for part in ("forget", "held_out"))]
    kept = [part for part in parts if part is not None and len(part) >= MINIMUM]
    return Spoken(*kept) if len(kept) == len(parts) else None


def _sets(files: ScoreFiles, name: str) -> "dict[str, NDArray[np.float64]]":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    path = files / f"{name}.arrow" if isinstance(files, Path) else files.get(name)
    if not isinstance(path, Path) or not path.is_file():
        return {}
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        if not {LOG_P, "set"} <= set(table.column_names):
            return {}
        table = table.filter(pc.is_valid(table[LOG_P]))
        return {
            part: np.array(table.filter(pc.equal(table["set"], part))[LOG_P].to_pylist(), dtype=np.float64)
            for part in ("forget", "held_out")
        }


def extraction(spoken: Spoken, titles: Mapping[str, str]) -> bytes:
    """Share of texts that so many queries say with even odds, on a logarithmic axis; 1,000 queries are marked."""
    import numpy as np

    old, new = (title_of(titles, name) for name in ("original", "candidate"))
    lines = (
        (f"{old}: forgotten texts (n = {len(spoken.before):,})", spoken.before, QUIET, "--"),
        (f"{new}: forgotten texts (n = {len(spoken.after):,})", spoken.after, FORGET, "-"),
        (f"{new}: texts it never saw (m = {len(spoken.never_seen):,})", spoken.never_seen, HELD_OUT, ":"),
    )
    with style("extraction"):
        figure = new_figure(6.6, 3.6)
        axes = figure.subplots()
        axes.axvline(QUERIES, color=INK, linewidth=0.8, linestyle=":")
        for label, log_p, colour, line in lines:
            at = [_FIRST, *np.sort(np.minimum(queries(log_p), 2 * _MOST)).tolist()]
            share = np.arange(len(at)) / (len(at) - 1)
            axes.step(at, share, where="post", color=colour, linestyle=line, linewidth=1.7, label=label)
        axes.set(xscale="log", xlim=(_FIRST, _MOST), ylim=(-0.02, 1.04))
        axes.set_xlabel("queries until the text is said with even odds")
        axes.set_ylabel("share of texts")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        figure.legend(loc="outside lower center", ncols=1, fontsize=8.5)
        return svg_of(figure)


def queries(log_p: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """ln 2 / -ln(1 - p), at least 1: queries that say a text with a chance of one half; inf where p is 0."""
    import numpy as np

    with np.errstate(divide="ignore"):
        needed = np.log1p(-_EVEN) / np.log1p(-np.exp(np.minimum(log_p, 0.0)))
    return np.asarray(np.maximum(needed, 1.0), dtype=np.float64)


def of_extraction(spoken: Spoken) -> str:
    """What the lines are of, in words, with the shares at 1,000 queries."""
    shares = [float((queries(part) <= QUERIES).mean()) for part in (spoken.before, spoken.after, spoken.never_seen)]
    return (
        f"Share of texts that a language model says, given how they begin, within so many queries. Within {QUERIES:,} "
        f"(dotted line) the old version says {shares[0]:.1%} of the forgotten ones, the new version {shares[1]:.1%}, "
        f"and {shares[2]:.1%} of texts that it never saw: what nobody has to remember to say it. Only texts that hold "
        "something of the person count"
    )
