"""Draws docs/img/architecture.svg and the table of docs/architecture.md: `python docs/architecture.py`.

Columns are the stages of dvc.yaml. A cell holds the modules of a room that the stage's own code in tasks/
calls; what all stages with a model share stands once. A test compares both files with what this gives.
"""

from __future__ import annotations

import ast
import re
import textwrap
from html import escape
from pathlib import Path

import yaml

from spring.code import Code

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/img/architecture.svg"
PAGE = ROOT / "docs/architecture.md"
ROOMS = {
    "data": "#4c78a8",
    "method": "#e45756",
    "rivals": "#b279a2",
    "engine": "#54a24b",
    "measures": "#f2a541",
}
WITH_MODEL = ("score_base", "adapt", "consolidate", "generate", "transfer")
SETTINGS = ("tasks.params", "tasks.suites")  # they reach every room, for what may be set of it
WIDTH, LEFT, LINE = 132, 84, 13  # pixels: a column, the rooms' names, a line of text
Called = dict[str, dict[str, list[str]]]  # stage -> room -> modules


def stages() -> dict[str, str]:
    """Stage -> what it is for, in the order of dvc.yaml."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage)["desc"] for name, stage in found.items() if name != "code"}


def called() -> Called:
    """The modules of each room that a stage's code in tasks/ imports, those of the settings apart."""
    code, found = Code(), {}
    for stage in stages():
        own, waiting = set(), [f"tasks.{stage}"]
        while waiting:
            module = waiting.pop()
            if module.startswith("tasks") and module not in own and not module.startswith(SETTINGS):
                own.add(module)
                waiting += code.imports(module)
        names = {name for module in own for name in code.imports(module) if name.startswith("spring.")}
        rooms: dict[str, set[str]] = {room: set() for room in ROOMS}
        for name in names:
            _, room, inner, *_ = [*name.split("."), "", ""]
            if inner and room in rooms:
                rooms[room].add(inner)
        found[stage] = rooms
    shared = {room: set.intersection(*(found[stage][room] for stage in WITH_MODEL)) for room in ROOMS}
    everywhere = {room: set.intersection(*(rooms[room] for rooms in found.values())) for room in ROOMS}
    for stage, rooms in found.items():
        for room in rooms:
            rooms[room] -= everywhere[room] if stage == "model" else everywhere[room] | shared[room]
    found["model"]["engine"] |= shared["engine"] - everywhere["engine"]
    found["score_base"] |= {
        room: found["score_base"][room] | shared[room] for room in ROOMS if room != "engine"
    }
    return {stage: {room: sorted(names) for room, names in rooms.items()} for stage, rooms in found.items()}


def picture() -> str:
    """The drawing as SVG."""
    columns, cells = stages(), called()
    heights = {room: max(len(rooms[room]) for rooms in cells.values()) * LINE + 18 for room in ROOMS}
    width, top = LEFT + WIDTH * len(columns) + 8, 138
    body = []
    for i, (stage, purpose) in enumerate(columns.items()):
        x, y = LEFT + i * WIDTH, top
        body.append(
            f'<rect class="stage" x="{x + 4}" y="8" width="{WIDTH - 16}" height="{top - 26}" rx="6"/>'
        )
        body.append(_text(x + 10, 26, stage, "b"))
        body += [_text(x + 10, 44 + k * LINE, line) for k, line in enumerate(textwrap.wrap(purpose, 18))]
        if i + 1 < len(columns):
            body.append(f'<path class="arrow" d="M{x + WIDTH - 11} 60 h10 m-4 -4 l4 4 l-4 4"/>')
        for room, colour in ROOMS.items():
            names = cells[stage][room]
            if names:
                look = f'fill="{colour}" fill-opacity="0.16" stroke="{colour}"'
                body.append(_box(x, y, len(names) * LINE + 10, look))
            body += [_text(x + 10, y + 16 + k * LINE, name) for k, name in enumerate(names)]
            y += heights[room]
    y = top
    for room in ROOMS:
        body.append(_text(8, y + 16, room, "b"))
        y += heights[room]
    style = (
        "text{font:10.5px ui-monospace,Menlo,Consolas,monospace;fill:#222}.b{font-weight:bold;font-size:12px}"
        ".stage{fill:#f4f4f4;stroke:#999}.arrow{stroke:#555;fill:none;stroke-width:1.5}.back{fill:#fff}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 4}" role="img">'
    title = "<title>Which modules of each room every stage calls</title>"
    back = f'<rect class="back" width="{width}" height="{y + 4}"/>'
    return "\n".join([head, title, f"<style>{style}</style>", back, *body, "</svg>", ""])


def _box(x: int, y: int, height: int, look: str) -> str:
    return f'<rect x="{x + 4}" y="{y + 2}" width="{WIDTH - 16}" height="{height}" rx="6" {look}/>'


def _text(x: int, y: int, words: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}"{f" class={kind!r}" if kind else ""}>{escape(words)}</text>'


def rooms() -> str:
    """A row per room of spring/: what it is, and what it imports of the others."""
    code = Code()
    lines = ["| Room | What it is | Modules | Imports |", "|---|---|---:|---|"]
    for place in sorted((ROOT / "spring").iterdir(), key=lambda path: (path.is_file(), path.name)):
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        if place.name == "__init__.py" or place.suffix not in ("", ".py") or not files:
            continue
        names = [".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in files]
        outside = {name.split(".")[1] for module in names for name in code.imports(module) if "." in name}
        said = ast.get_docstring(ast.parse(files[0].read_text(encoding="utf-8"))) or ""
        what = " ".join(said.split("\n\n")[0].split())
        name = f"{place.name}/" if place.is_dir() else place.name
        others = ", ".join(sorted(outside - {place.stem})) or "-"
        lines.append(f"| `{name}` | {what} | {len(files)} | {others} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its table made anew between the marks."""
    pattern = re.compile(r"(<!-- rooms -->\n).*?(\n<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda found: found[1] + rooms() + found[2], text)


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
