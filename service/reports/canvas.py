"""The look that all figures share: deterministic SVG without date, with fixed ids, text as paths, and colours that
colour-blind people can tell apart (Okabe and Ito 2008). Matplotlib is used without pyplot, so nothing global is left
behind but what `rc_context` restores.
"""

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INK = "#1b1e23"
"""Colour of text and axes. The HTML form replaces it by `currentColor`, so that figures follow light and dark."""

FORGET, HELD_OUT, THIRD, QUIET = "#d55e00", "#0072b2", "#009e73", "#7f8791"
_MODEL_STYLE = {"original": (QUIET, "--"), "candidate": (FORGET, "-"), "retrained": (THIRD, "-.")}

RUG_BELOW = 50
"""Fewer forgotten records than this are drawn one by one, more of them as shares or quantiles."""

MINIMUM = 5
"""Fewer records than this are not drawn: a point would be a person."""


def model_style(model: str) -> tuple[str, str]:
    """Colour and line of a model by its name, original, candidate or retrained-1."""
    return _MODEL_STYLE[next(filter(model.startswith, _MODEL_STYLE))]


def title_of(titles: Mapping[str, str], model: str) -> str:
    """What people call the model, or its plain name."""
    return titles.get(model, model)


def style(name: str) -> AbstractContextManager[None]:
    """Settings of one figure; `name` salts the ids, which are random otherwise."""
    import matplotlib as mpl

    return mpl.rc_context(
        {
            "svg.fonttype": "path",
            "svg.hashsalt": name,
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "path.simplify": True,
        }
    )


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, sizes in inches, that lays itself out without overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg_of(figure: "Figure") -> bytes:
    """The figure as one <svg> element, without prologue, date or maker."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue().decode()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL).encode()


def by_ratio(values: "NDArray[np.float64]") -> bool:
    """Whether an axis of these values is spaced by ratio: losses that span more than two decades."""
    import numpy as np

    low, high = np.percentile(values, [0.5, 99.5])
    return bool(low > 0 and high > 100 * low)
