"""How the report's drawings look, and how they become SVG: one colour per arm, the same bytes every time.

Colours keep apart for colour-blind readers (after Okabe and Ito, 2008) and come in pairs, one for a light and
one for a dark page. Files carry the light ones; inside the page each becomes a CSS variable, so that drawings
follow the reader's mode. The arm that others are compared with is grey and dashed.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline

from spring.settings.params import Params

INK, MUTED, GRID, BAND = "#1b2027", "#5d6673", "#dde1e6", "#f1f3f5"
SERIES = ("#0072b2", "#d55e00", "#008060", "#a8468a", "#9a6f00", "#3f9bd8", "#6a4aa8", "#7a5a3a")
# name of the CSS variable -> (light, dark)
COLOURS: dict[str, tuple[str, str]] = {
    "ink": (INK, "#e8eaed"),
    "muted": (MUTED, "#a3acb8"),
    "grid": (GRID, "#343a43"),
    "band": (BAND, "#22272e"),
} | {
    f"series-{number}": pair
    for number, pair in enumerate(
        zip(
            SERIES,
            ("#58aef0", "#ff8c4a", "#35c79a", "#e08cc4", "#dcae3c", "#9ad4fa", "#b8a0f0", "#c9a580"),
            strict=True,
        )
    )
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Dash: TypeAlias = "Literal['-'] | tuple[float, tuple[float, ...]]"
DASHES: tuple[Dash, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))
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


@dataclass(frozen=True)
class Style:
    """How one arm is drawn everywhere."""

    colour: str
    marker: str
    dash: Dash


def arm_styles(params: Params) -> dict[str, Style]:
    """Colour, marker and dash per arm, by their order in params.yaml; past eight, dashes differ too."""
    others = [arm for arm in params.arms if arm != params.evaluate.against]
    styles = {params.evaluate.against: Style(MUTED, "o", (0, (2.5, 2)))}
    for number, arm in enumerate(others):
        dash = DASHES[number // len(SERIES) % len(DASHES)]
        styles[arm] = Style(SERIES[number % len(SERIES)], MARKERS[(number + 1) % len(MARKERS)], dash)
    return {arm: styles[arm] for arm in params.arms}


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


def composite(
    panels: Sequence[Callable[[Axes], None]],
    size: tuple[float, float],
    *,
    columns: int = 2,
    shared: bool = False,
    key: Sequence[Line2D] = (),
) -> str:
    """Several pairs of axes, each of `size` inches, as one drawing; `shared`: y labelled once."""
    width, height = size
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharey=shared, squeeze=False).flatten()
        if key:
            figure.legend(handles=list(key), loc="outside lower center", ncols=min(4, len(key)))
        for axes, panel in zip(grid, panels, strict=False):
            panel(axes)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()

    return draw((width * columns, height * rows + 0.2 * -(-len(key) // 4)), paint, paper=True)


def inline(svg: str, name: str, description: str) -> str:
    """An SVG document as an element of a page: `name` prefixes its ids, colours become CSS variables."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda found: variable(found[0]), element)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', lambda found: f"{found[1]}{name}-", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' (width|height)="[\d.]+pt"', "", element, count=2)
    element = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", element)
    element = element.replace("xlink:href=", "href=")
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)


def variable(colour: str) -> str:
    """The CSS variable of one of `COLOURS`; any other colour stays as it is."""
    names = {light: name for name, (light, _) in COLOURS.items()}
    return f"var(--{names[colour]})" if colour in names else colour


def glyph(colour: str, marker: str, *, filled: bool = True, dash: Dash | None = None) -> str:
    """A key for a legend in HTML: the marker, on a piece of its line where `dash` is given."""
    paint = variable(colour)
    width = 12 if dash is None else 26
    line = ""
    if dash is not None:
        pattern = "" if isinstance(dash, str) else " ".join(f"{1.8 * part:g}" for part in dash[1])
        line = f'<path d="M1 6H25" stroke="{paint}" stroke-width="1.8" stroke-dasharray="{pattern}"/>'
    return (
        f'<svg class="glyph" viewBox="0 0 {width} 12" width="{width}" height="12" aria-hidden="true">{line}'
        f'<path d="{outline(marker, width / 2)}" fill="{paint if filled else "none"}" stroke="{paint}" '
        f'stroke-width="1.3"/></svg>'
    )


def outline(marker: str, centre: float) -> str:
    """A matplotlib marker as SVG path data, 7 units wide, around (centre, 6)."""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    letters = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    parts = []
    for points, code in path.iter_segments():
        if code == Outline.CLOSEPOLY:
            parts.append("Z")
            continue
        pairs = zip(points[::2], points[1::2], strict=True)
        parts.append(letters[code] + " ".join(f"{centre + 7 * x:.2f} {6 - 7 * y:.2f}" for x, y in pairs))
    return "".join(parts)
