"""The drawings as files: of a run in data/report/plots, of pooled runs in results/; and the latters' tables.

paired (each arm's difference, filled where significant), cost, periods, answer; where transfer was measured,
measures (what is forgotten, held and personal) and transfer (every state on every period); of a run at hand
also drift and curves, and of many users leads. Of many arms some are coloured, the others grey: the page
tells which is which.
"""

from __future__ import annotations

from pathlib import Path

from tasks.files import write_text
from tasks.reporting.page import Content
from tasks.reporting.published import tables_and_published
from tasks.reporting.table import as_markdown, as_plain
from tasks.reporting.transfer_plots import transfer_plot
from tasks.reporting.vega import sheet

PRINTED = ("arms", "significance", "transfer")
BOTH = ("logp_per_token", "rouge1")  # the metrics of cost
KEPT = ("paired", "cost", "measures", "transfer", "answer")  # drawings of results/
# Section -> pixels of one drawing's width, drawings side by side, height (null: its own), a key beneath it
SHEETS: dict[str, tuple[int, int, int | None, bool]] = {
    "answer": (460, 1, None, False),
    "leads": (460, 1, None, False),
    "periods": (360, 2, 220, True),
    "paired": (250, 2, None, False),
    "cost": (520, 2, 360, False),
    "measures": (230, 3, None, False),
    "transfer": (0, 1, None, False),  # facets have their own sizes
    "drift": (760, 1, 200, False),
    "curves": (620, 1, 280, True),
}


def drawings(content: Content) -> dict[str, str]:
    """Section -> SVG, of the sections that have drawings."""
    drawn, _, _ = content.drawings
    every = list(content.metrics["transfer"])  # a file has no switch
    whole = {name: transfer_plot(content.metrics, name, every) for name in drawn["transfer"]}
    found = {}
    for section, specs in (drawn | {"transfer": whole}).items():
        some = {name: spec for name, spec in specs.items() if section != "cost" or name in BOTH}
        if some:
            width, columns, height, key = SHEETS[section]
            parts = list(some.values())
            found[section] = sheet(parts, width=width, columns=columns, height=height, key=key)
    return found


def summarise_runs(content: Content, folder: Path) -> None:
    """Writes `folder`/tables and /plots in place of those of before; prints the tables of `PRINTED`."""
    made = tables_and_published(content.params, content.metrics, content.suite)
    shown = [table for table in made if table.shown]
    texts = {folder / f"tables/{table.name}.md": as_markdown(table) for table in shown}
    plots = {name: svg for name, svg in drawings(content).items() if name in KEPT}
    texts |= {folder / f"plots/{name}.svg": svg for name, svg in plots.items()}
    for old in {*folder.glob("tables/*.md"), *folder.glob("plots/*.svg")} - texts.keys():
        old.unlink()  # of other seeds, or of a matrix that is no longer among them
    for path, text in texts.items():
        write_text(text, path)
    for table in shown:
        if table.name in PRINTED:
            print(as_plain(table))
