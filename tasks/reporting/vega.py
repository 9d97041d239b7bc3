"""What all drawings have in common: Vega-Lite specifications for the page, and SVG files made of the same.

The page draws with Vega, which the package vl-convert-python brings along; files are drawn by that package.
Everywhere the arms in the parameter `on` are in colour, and the others pale, unless `others` is false.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from tasks.files import DATA, write_text
from tasks.reporting.looks import Style, on_paper

Spec = dict[str, Any]
ON, OFF = "indexof(on, datum.arm) >= 0", "others && indexof(on, datum.arm) < 0"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MEASURED = "Liberation Sans"  # comes with vl-convert: files are laid out alike on every machine
QUIET = {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelFont": FONT}
CONFIG: Spec = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": QUIET
    | {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--grid)",
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "titlePadding": 8,
    },
    "title": {"anchor": "start", "color": "var(--ink)", "fontSize": 13, "fontWeight": 600, "offset": 10},
    "header": QUIET | {"labelColor": "var(--ink)", "labelFontWeight": 600, "labelAnchor": "start"},
    "legend": QUIET | {"labelColor": "var(--ink)", "titleColor": "var(--muted)"},
}
TIP: Spec = {"tooltip": {"field": "tip"}, "description": {"field": "tip"}}


def chart(title: str, values: Sequence[Spec], layers: list[Spec], *, on: Sequence[str], **more: Any) -> Spec:
    """One pair of axes as wide as its place, layers from the bottom up."""
    return {
        "title": title,
        "width": "container",
        "height": 230,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [{"name": "on", "value": list(on)}, {"name": "others", "value": True}],
        "data": {"values": list(values)},
        "layer": layers,
        "config": CONFIG,
    } | more


ZERO: Spec = {  # the line at zero
    "data": {"values": [{}]},
    "mark": {"type": "rule", "color": "var(--muted)", "aria": False},
    "encoding": {"x": {"datum": 0}},
}
FAINT = "var(--faint)"


def line(**more: Any) -> Spec:
    """The mark of a line: the values are told by its points."""
    return {"type": "line", "strokeWidth": 2, "aria": False} | more


def bar(**more: Any) -> Spec:
    """The mark of an interval, told by its point."""
    return {"type": "rule", "strokeWidth": 2, "aria": False} | more


def dot(**more: Any) -> Spec:
    """The mark of a value."""
    return {"type": "point", "filled": True, "size": 50, "opacity": 1} | more


def words(**more: Any) -> Spec:
    """The mark of a text."""
    return {"type": "text", "fontSize": 11, "aria": False} | more


def layer(mark: Spec, encoding: Spec, *filters: str) -> Spec:
    """One mark for the rows that pass all filters."""
    return {"transform": [{"filter": text} for text in filters], "mark": mark, "encoding": encoding}


def of_arm(styles: Mapping[str, Style], *, only: str = "colour", field: str = "arm") -> Spec:
    """A channel by arm: its `colour`, `shape` or `dash`."""
    looks = [getattr(style, only) for style in styles.values()]
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": list(styles), "range": looks},
        "legend": None,
    }


def axis(title: str | None = None, **more: Any) -> Spec:
    """An axis with its title."""
    return {"axis": {"title": title} | more}


def quantity(field: str, title: str | None = None, *, zero: bool = False, **more: Any) -> Spec:
    """A quantitative channel."""
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"zero": zero, "nice": True},
        "axis": {"title": title, "tickCount": 5} | more,
    }


def short(value: float | None) -> float | None:
    """Six significant digits: no drawing shows more."""
    return None if value is None else float(f"{value:.6g}")


def broken(text: str, width: int = 20) -> str:
    """A long label with marks where it may break (`LINES`)."""
    return "|".join(textwrap.wrap(text, width))


LINES = "split(datum.label, '|')"  # a labelExpr


# --- for files --------------------------------------------------------------------------------------------


def sheet(
    specs: Sequence[Spec], *, width: int, columns: int = 2, height: int | None = None, key: bool = False
) -> str:
    """Several drawings on white, side by side, as an SVG document; `key`: with names of the coloured arms."""
    import vl_convert  # here: whoever asks for names and tables alone has no need of it

    first = specs[0]
    found = {
        "concat": [still(spec, width, height) for spec in specs],
        "columns": columns,
        "spacing": 28,
        "padding": 12,
        "config": CONFIG | {"background": "var(--paper)"},
        "params": first.get("params", []),
    }
    if key:
        found = with_key(found, first)
    svg: str = vl_convert.vegalite_to_svg(json.dumps(found).replace(FONT, MEASURED))
    return on_paper(svg).replace(MEASURED, FONT) + "\n"


def still(spec: Spec, width: int, height: int | None) -> Spec:
    """A drawing as a part of a sheet, with a width of its own."""
    part = {
        key: value
        for key, value in spec.items()
        if key not in ("params", "config", "autosize", "width", "usermeta")
    }
    if "spec" in part:  # facets have their own sizes
        return part
    return part | {"width": width} | ({"height": height} if height else {})


def with_key(sheet: Spec, first: Spec) -> Spec:
    """A sheet with a row of arms' names, coloured as their lines, beneath it."""
    [styles] = [
        part["encoding"]["color"] for part in first["layer"] if "scale" in part["encoding"].get("color", {})
    ][:1]
    looks = dict(zip(styles["scale"]["domain"], styles["scale"]["range"], strict=True))
    on = next(param["value"] for param in first["params"] if param["name"] == "on")
    rows = [{"arm": arm, "column": place % 4, "row": place // 4} for place, arm in enumerate(on)]
    at = {
        "x": {"field": "column", "type": "ordinal", "axis": None},
        "y": {"field": "row", "type": "ordinal", "axis": None},
    }
    colour = {"field": "arm", "type": "nominal", "legend": None}
    colour["scale"] = {"domain": on, "range": [looks[arm] for arm in on]}  # type: ignore[assignment]
    key = {
        "data": {"values": rows},
        "width": {"step": 190},
        "height": {"step": 18},
        "layer": [
            {
                "mark": dot(size=60, xOffset=-80),
                "encoding": at | {"color": colour},
            },
            {
                "mark": words(align="left", xOffset=-70),
                "encoding": at | {"text": {"field": "arm"}},
            },
        ],
        "config": {},
    }
    plain = {name: value for name, value in sheet.items() if name not in ("config", "padding", "params")}
    return {name: sheet[name] for name in ("config", "padding", "params")} | {
        "vconcat": [plain, key],
        "spacing": 16,
    }


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, without anything that would end a <script> element.

    Putting it together takes seconds, so it is kept in data/.vega under the version of the package.
    """
    import vl_convert

    kept = DATA / f".vega/{version('vl-convert-python')}.js"
    if not kept.exists():
        text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        write_text(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"), kept)
    return kept.read_text(encoding="utf-8")
