"""The tables and drawings of an experiment's pooled runs, for results/ and whoever reads them there.

tables/     every table of the report as Markdown
plots/      paired (each arm's difference, filled where significant), cost; where transfer was measured,
            measures (what is forgotten, held and personal) and transfer (every state on every period)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from spring.settings.params import Params
from tasks.files import write_text
from tasks.reporting.cost_plots import cost_panel
from tasks.reporting.plots import arm_handles, headlines, paired_panel
from tasks.reporting.published import tables_and_published
from tasks.reporting.svg import arm_styles, composite
from tasks.reporting.table import as_markdown, as_plain
from tasks.reporting.transfer_plots import measure_panel, measured, transfer_panel
from tasks.suites import Suite

PRINTED = ("arms", "significance", "transfer")
BOTH = ("logp_per_token", "rouge1")  # the metrics of cost


def summarise_runs(params: Params, metrics: dict[str, Any], folder: Path, suite: Suite) -> None:
    """Writes `folder`/tables and /plots in place of those of before; prints the tables of `PRINTED`."""
    shown = [table for table in tables_and_published(params, metrics, suite) if table.shown]
    texts = {folder / f"tables/{table.name}.md": as_markdown(table) for table in shown}
    texts |= {folder / f"plots/{name}.svg": svg for name, svg in drawings(params, metrics).items()}
    for old in {*folder.glob("tables/*.md"), *folder.glob("plots/*.svg")} - texts.keys():
        old.unlink()  # of other seeds, or of a matrix that is no longer among them
    for path, text in texts.items():
        write_text(text, path)
    for table in shown:
        if table.name in PRINTED:
            print(as_plain(table))


def drawings(params: Params, metrics: dict[str, Any]) -> dict[str, str]:
    """Name -> SVG."""
    styles = arm_styles(params)
    height = 0.8 + 0.2 * len(styles)
    differences = [
        partial(paired_panel, metrics=metrics, metric=name, styles=styles) for name in headlines(metrics)
    ]
    costs = [
        partial(cost_panel, metrics=metrics, metric=name, styles=styles)
        for name in BOTH
        if name in headlines(metrics)
    ]
    made = {
        "paired": composite(differences, (2.6, height), columns=4, shared=True),
        "cost": composite(costs, (5.2, 3.4), key=arm_handles(styles)),
    }
    states = [
        partial(transfer_panel, metrics=metrics, arm=arm) for arm in styles if arm in metrics["transfer"]
    ]
    if states:
        measures = [
            partial(measure_panel, metrics=metrics, measure=name, styles=styles) for name in measured(metrics)
        ]
        made["measures"] = composite(measures, (2.6, height), columns=3, shared=True)
        made["transfer"] = composite(states, (2.6, 0.8 + 0.28 * len(metrics["periods"])), columns=4)
    return made
