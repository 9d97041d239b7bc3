"""The drawings of documents (bench/draw.py, docs/leaders.py) as SVG: matplotlib, the same bytes every time.

Their labels are placed one by one, which the language of the report's drawings (vega.py) cannot do.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, MUTED, GRID = "#1b2027", "#5d6673", "#dde1e6"
SERIES = ("#0072b2", "#d55e00", "#008060", "#a8468a", "#9a6f00", "#3f9bd8", "#6a4aa8", "#7a5a3a")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spring",
    "text.parse_math": False,  # a user's name may hold dollar signs
    "font.family": "DejaVu Sans",  # comes with matplotlib: text is laid out alike on every machine
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


def draw(size: tuple[float, float], paint: Callable[[Figure], None], *, paper: bool) -> str:
    """An SVG document of `size` inches, on white `paper` or on nothing; equal input gives equal bytes."""
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.07))
        figure.patch.set(facecolor="white", alpha=float(paper))
        FigureCanvasSVG(figure)
        paint(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
            axes.tick_params(which="both", length=0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"font: ([^\"]*?)'DejaVu Sans'", lambda found: f"font: {found[1]}{FONT}", buffer.getvalue())
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)
