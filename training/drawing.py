"""Drawings by Matplotlib as SVG text that needs nothing else: no window, no font, no metadata."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any, Final

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure

GREY, BLUE, RED, GREEN = "#999999", "#0072b2", "#d55e00", "#009e73"
COLOURS: Final = (BLUE, RED, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""That colour-blind people tell apart (Okabe and Ito, 2008)."""
_COLUMNS: Final = 200
_GROUP: Final = re.compile(r'<g id="[^"]*"')
"""Matplotlib numbers its groups in each drawing alike; nothing refers to them."""


def drawn(
    draw: Callable[[Any], None], alt: str, *, width: float = 8.0, height: float = 3.6
) -> Markup:
    """What `draw` puts on Matplotlib's axes, inches wide and high; `alt` says what it shows."""

    def made() -> Any:
        axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
        draw(axes)
        return axes

    return svg(made, alt, {"text.parse_math": False})  # a label may hold a $


def svg(make: Callable[[], Any], alt: str, style: dict[str, Any] | None = None) -> Markup:
    """The figure of what `make` gives: Matplotlib's axes, one or several."""
    matplotlib.use("agg")
    settings: dict[Any, Any] = {  # Matplotlib names its three hundred keys as a type
        "svg.fonttype": "none",
        "svg.hashsalt": alt,  # two drawings on a page must not share ids
        "font.sans-serif": ["DejaVu Sans", "Arial"],
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(settings | (style or {})), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        out = io.StringIO()
        np.ravel(make())[0].figure.savefig(out, format="svg", metadata=nothing)
    text = out.getvalue()
    text = _GROUP.sub("<g", text[text.index("<svg") :])
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))


def thinned(x: np.ndarray, y: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line of at most 800 points that looks the same: its ends and extremes in each column.

    `place` is where each point stands across the drawing, 0 to 1, rising.
    """
    if len(x) <= 2 * _COLUMNS:
        return x, y
    column = np.minimum((np.clip(place, 0, 1) * _COLUMNS).astype(int), _COLUMNS - 1)
    firsts = np.flatnonzero(np.diff(column, prepend=-1))
    lasts = np.append(firsts[1:], len(x)) - 1
    by_height = np.lexsort((y, column))
    kept = np.unique(np.concatenate([firsts, lasts, by_height[firsts], by_height[lasts]]))
    return x[kept], y[kept]
