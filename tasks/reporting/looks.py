"""How arms look in every drawing, and the colours of page and files.

A reader tells some eight colours apart, not fifty-three: only the arms that a page starts with are drawn in
colour, in order of what the page says of them, and the others in pale grey until they are chosen. Colours
keep apart for colour-blind readers (after Okabe and Ito, 2008) and come in pairs, for light and dark pages;
drawings name them as CSS variables, which files replace by the light ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.reporting.names import headlines

COLOURS: dict[str, tuple[str, str]] = {  # CSS variable -> (light, dark)
    "ink": ("#1b2027", "#e8eaed"),
    "muted": ("#5d6673", "#a3acb8"),
    "faint": ("#c3c9d1", "#474f5a"),
    "grid": ("#e6e9ed", "#2b3138"),
    "band": ("#f4f5f7", "#1d2228"),
    "paper": ("#ffffff", "#14171c"),
    "series-0": ("#0067c0", "#63b3f5"),
    "series-1": ("#c94f00", "#ff9152"),
    "series-2": ("#007a5c", "#3ccb9f"),
    "series-3": ("#a43f86", "#e491c9"),
    "series-4": ("#8a6400", "#dfb244"),
    "series-5": ("#6443a4", "#bba6f3"),
    "series-6": ("#2f7f93", "#79cfe2"),
    "series-7": ("#7a5638", "#cfac88"),
}
SERIES = [f"var(--{name})" for name in COLOURS if name.startswith("series")]
SHAPES = ("square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "circle")
DASHES: tuple[list[int], ...] = ([1, 0], [6, 2], [2, 2])
MOST = 8  # arms in colour at first
BEST = 3  # of many arms: how many by the first headline metric are among them, and one by each other


@dataclass(frozen=True)
class Style:
    """How one arm is drawn everywhere: a CSS colour, a shape of Vega, dashes in pixels."""

    colour: str
    shape: str
    dash: list[int]


def first_arms(metrics: dict[str, Any], told: Sequence[str] = ()) -> list[str]:
    """The arms that a page starts with, in order of importance: all of a few; else those it tells of.

    Those `told` in its first sentence, the one compared with, the best by likelihood and by other metrics.
    """
    arms = list(metrics["arms"])
    found = dict.fromkeys(arm for arm in told if arm in arms)
    by = sorted(headlines(metrics), key=lambda metric: metric != "logp_per_token")
    for place, metric in enumerate(by):
        ranked = sorted(arms, key=lambda arm: -metrics["arms"][arm][metric]["mean"])
        found |= dict.fromkeys(ranked[: BEST if place == 0 else 1])
        found |= {metrics["against"]: None}
    if len(arms) <= MOST:
        found |= dict.fromkeys(arms)
    return list(found)[:MOST]


def arm_styles(metrics: dict[str, Any], first: Sequence[str]) -> dict[str, Style]:
    """Every arm's looks: those of `first` get a colour each, later ones share them with other dashes.

    The arm that others are compared with is grey and dashed.
    """
    arms = list(metrics["arms"])
    others = [arm for arm in dict.fromkeys([*first, *arms]) if arm != metrics["against"]]
    styles = {metrics["against"]: Style("var(--muted)", "circle", [4, 3])}
    for number, arm in enumerate(others):
        dash = DASHES[number // len(SERIES) % len(DASHES)]
        styles[arm] = Style(SERIES[number % len(SERIES)], SHAPES[number % len(SHAPES)], dash)
    return {arm: styles[arm] for arm in arms}


def on_paper(svg: str) -> str:
    """An SVG document with the light colours in place of CSS variables."""
    return re.sub(r"var\(--([\w-]+)\)", lambda found: COLOURS[found[1]][0], svg)


OUTLINES = {  # of Vega's shapes, 8 units wide around (0, 0)
    "circle": "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
    "square": "M-3.5-3.5H3.5V3.5H-3.5Z",
    "triangle-up": "M0-4L4 3.5H-4Z",
    "triangle-down": "M0 4L4-3.5H-4Z",
    "triangle-right": "M4 0L-3.5 4V-4Z",
    "diamond": "M0-4.5L4 0L0 4.5L-4 0Z",
    "cross": "M-1.5-4H1.5V-1.5H4V1.5H1.5V4H-1.5V1.5H-4V-1.5H-1.5Z",
}


def glyphs(styles: Mapping[str, Style]) -> str:
    """Every arm's key, its shape on a piece of its line, once for all places on a page (`glyph`)."""
    parts = [
        f'<symbol id="arm-{place}" viewBox="-13 -6 26 12">'
        f'<path d="M-13 0H13" stroke="{style.colour}" stroke-width="1.6" '
        f'stroke-dasharray="{" ".join(map(str, style.dash))}"/>'
        f'<path d="{OUTLINES[style.shape]}" fill="{style.colour}"/></symbol>'
        for place, style in enumerate(styles.values())
    ]
    return f'<svg class="spoken" aria-hidden="true">{"".join(parts)}</svg>'


def glyph(place: int) -> str:
    """The key of the arm at a place among all."""
    return f'<svg class="glyph" aria-hidden="true"><use href="#arm-{place}"/></svg>'
