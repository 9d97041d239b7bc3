"""Stage report: data/metrics.json and the stages' tables -> data/report/.

    report.html   one page that needs nothing else: no network, no other file
    tables/       arms, periods-METRIC, paired, significance, transfer, transfer-tests, transfer-generated,
                  transfer-matrix, follow, drift, correlations, gates, cost, published: JSON, CSV, Markdown
    plots/        periods, paired, measures, transfer, drift, curves, cost as SVG

`python -m tasks.report` writes them and logs the experiment; `python -m tasks.report --print` prints the
tables of an experiment that has been evaluated and says where its report lies.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import polars as pl
from matplotlib.axes import Axes

from spring.settings.params import Params
from tasks.evaluate import METRICS, METRICS_FILE, arms_by_recipe, read_curves, read_metrics, stream
from tasks.files import DATA, read_parquet, read_tests, write_json, write_text
from tasks.params import load_params, sample_users
from tasks.reporting.cost_plots import cost_panel
from tasks.reporting.findings import tables
from tasks.reporting.page import Sample, names, render
from tasks.reporting.plots import (
    METRIC_NAMES,
    TRANSFER_NAMES,
    arm_handles,
    curves_panel,
    drift_handles,
    drift_panel,
    followed,
    headlines,
    is_headline,
    paired_panel,
    periods_panel,
)
from tasks.reporting.published import tables_and_published
from tasks.reporting.svg import arm_styles, composite, draw, inline
from tasks.reporting.table import Table, as_markdown, as_plain
from tasks.reporting.transfer_plots import drawable, measure_panel, measured, transfer_panel
from tasks.stage import run

FOLDER = DATA / "report"
SECTIONS = ("periods", "paired", "measures", "transfer", "drift", "curves", "cost")  # those with drawings
Panel = Callable[[Axes], None]


class ReportError(RuntimeError):
    """Numbers that are not of the parameters at hand; the message says why and what to do."""


def main() -> None:
    """Runs the stage, or prints its tables."""
    parser = argparse.ArgumentParser(prog="python -m tasks.report", description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="print the tables and write nothing")
    arguments = parser.parse_args()
    params = load_params()
    try:
        metrics = read_metrics()
        if arguments.print:
            print_tables(params, metrics)
            return
    except (FileNotFoundError, ReportError) as error:
        sys.exit(f"error: {error}")
    build(params, metrics)
    from tasks.tracking.experiment import TrackingError, log_experiment  # not needed to print

    try:
        log_experiment(params, metrics)
    except TrackingError as error:
        sys.exit(f"error: {error}")


def print_tables(params: Params, metrics: dict[str, Any]) -> None:
    """The tables of arms x metrics, over all periods and per period, differences, and where the report lies.

    Of headline metrics: with all, lines would be too long for a terminal. Raises `ReportError` where
    params.yaml has become another experiment's.
    """
    made = metrics["experiment"], metrics["seed"], sorted(metrics["arms"])
    if made != (params.experiment, params.seed, sorted(params.arms)):
        raise ReportError(
            f"{METRICS_FILE} is of {metrics['experiment']}, seed {metrics['seed']}, or of other arms than "
            f"params.yaml has now ({params.experiment}, seed {params.seed}): run `make repro`"
        )
    arms = {
        arm: {name: value for name, value in found.items() if is_headline(name)}
        for arm, found in metrics["arms"].items()
    }
    for table in tables(metrics | {"arms": arms}, list(params.arms)):
        if table.name in ("arms", "paired") or table.name.startswith("periods-"):
            print(as_plain(table))
    page = FOLDER / "report.html"
    print(f"Report: {page.resolve() if page.exists() else 'not yet written, run `dvc repro report`'}")


def build(params: Params, metrics: dict[str, Any]) -> None:
    """Writes data/report/."""
    write_tables(tables_and_published(params, metrics))
    drift_arm, drift_rows = sample_drift(params)
    panels = all_panels(params, metrics, drift_rows)
    styles = arm_styles(params)
    keys = {
        "periods": arm_handles({arm: styles[arm] for arm in followed(metrics)}),
        "cost": arm_handles(styles),
        "drift": drift_handles(drift_rows),
    }
    drawings = {}
    for name, drawn in panels.items():
        size = panel_size(name, len(params.arms), len(params.periods))
        drawings[name] = page_drawings(drawn, name=name, size=size)
        if drawn:
            columns = 1 if name == "drift" else 2
            svg = composite(list(drawn.values()), size, columns=columns, key=keys.get(name, []))
            write_text(svg, FOLDER / f"plots/{name}.svg")
    page = render(
        params,
        metrics,
        drawings=drawings,
        drift_rows=drift_rows,
        drift_arm=drift_arm,
        samples=sample_generations(params),
    )
    write_text(page, FOLDER / "report.html")


def write_tables(made: list[Table]) -> None:
    """Every table in three formats."""
    for table in made:
        write_json(table.rows, FOLDER / f"tables/{table.name}.json")
        write_text(
            pl.DataFrame(table.rows, infer_schema_length=None).write_csv(),
            FOLDER / f"tables/{table.name}.csv",
        )
        write_text(as_markdown(table), FOLDER / f"tables/{table.name}.md")


def sample_drift(params: Params) -> tuple[str | None, pl.DataFrame]:
    """The first arm that selects by drift, and its sample users' scores with labels, in time order."""
    arm = next((name for name, arm in params.arms.items() if arm.train and arm.train.data == "drift"), None)
    recipe = params.arms[arm].recipe if arm else ""
    scores = pl.concat(read_parquet(DATA / f"adapt/{t}/scores.parquet") for t in stream(params))
    order = pl.concat(read_parquet(DATA / f"split/{t}.parquet") for t in stream(params))
    order = order.select("interaction_id", "timestamp").with_row_index("order")
    labels = read_parquet(DATA / "ingest/labels.parquet").select("interaction_id", "drift", "is_drift")
    rows = scores.filter((pl.col("recipe") == recipe) & pl.col("user_id").is_in(sample_users(params, scores)))
    rows = rows.join(order, on="interaction_id").join(labels, on="interaction_id", how="left")
    return arm, rows.sort("user_id", "period", "timestamp", "order").drop("order")


def all_panels(
    params: Params, metrics: dict[str, Any], drift_rows: pl.DataFrame
) -> dict[str, dict[str, Panel]]:
    """Section -> description -> what paints one pair of axes."""
    styles, recipes, shown = arm_styles(params), arms_by_recipe(params), followed(metrics)
    limits = {f"{metric}{end}": pl.Float64 for metric in METRICS for end in ("", "_low", "_high")}
    table = pl.read_csv(DATA / "evaluate/plots/periods.csv", schema_overrides={"arm": pl.String, **limits})
    curves = read_curves(params)
    panels: dict[str, dict[str, Panel]] = {name: {} for name in SECTIONS}
    for metric, title in headlines(metrics).items():
        panels["periods"][f"{title} over periods"] = partial(
            periods_panel, table=table, metric=metric, styles=styles, shown=shown
        )
        panels["paired"][f"{title}: differences"] = partial(
            paired_panel, metrics=metrics, metric=metric, styles=styles
        )
        panels["cost"][f"{title} over cost"] = partial(
            cost_panel, metrics=metrics, metric=metric, styles=styles
        )
    for name in measured(metrics):
        panels["measures"][f"Transfer: {TRANSFER_NAMES[name]}"] = partial(
            measure_panel, metrics=metrics, measure=name, styles=styles
        )
    for arm in (arm for arm in params.arms if arm in metrics["transfer"]):
        for metric in drawable(metrics["transfer"][arm]):
            panels["transfer"][f"Every state of {arm} on every period, {METRIC_NAMES[metric]}"] = partial(
                transfer_panel, metrics=metrics, arm=arm, metric=metric
            )
    for user in sorted(drift_rows["user_id"].unique()):
        rows = drift_rows.filter(pl.col("user_id") == user)
        panels["drift"][f"Drift scores of {user}"] = partial(drift_panel, rows=rows, user=user)
    for recipe, arms in recipes.items():
        rows = curves.filter(pl.col("recipe") == recipe)
        if not rows.is_empty():
            title = arms[0] if len(arms) == 1 else f"{arms[0]}, shared with {len(arms) - 1} more"
            panels["curves"][f"Training loss of {names(arms)}"] = partial(
                curves_panel, rows=rows, title=title, colour=styles[arms[0]].colour
            )
    return panels


def panel_size(name: str, arms: int, periods: int) -> tuple[float, float]:
    """Inches of one pair of axes: two stand side by side, save for drift; some grow with what they list."""
    sizes = {
        "drift": (8.6, 2.7),
        "paired": (3.9, max(2.4, 0.9 + 0.24 * arms)),
        "measures": (3.9, max(2.4, 0.9 + 0.24 * arms)),
        "transfer": (3.9, max(2.0, 0.8 + 0.32 * periods)),
    }
    return sizes.get(name, (3.9, 2.75))


def page_drawings(panels: dict[str, Panel], *, name: str, size: tuple[float, float]) -> list[str]:
    """A section's panels one by one, for the page, which arranges them by the width at hand."""
    drawn = []
    for number, (description, panel) in enumerate(panels.items()):
        svg = draw(size, lambda figure, panel=panel: panel(figure.subplots()), paper=False)  # type: ignore[misc]
        drawn.append(inline(svg, f"{name}-{number}", description))
    return drawn


def sample_generations(params: Params) -> list[Sample]:
    """For the sample users: the last period's first test query, its reference and every arm's answer."""
    last = max(params.periods)
    tests = read_tests(last)
    answers = read_parquet(DATA / f"generate/{last}/generations.parquet")
    scores = read_parquet(DATA / "evaluate/items.parquet").select("arm", "interaction_id", "rouge1")
    answers = answers.join(scores, on=["arm", "interaction_id"])
    samples = []
    for user in sample_users(params, tests):
        test = tests.filter(pl.col("user_id") == user).row(0, named=True)
        here = answers.filter(pl.col("interaction_id") == test["interaction_id"])
        by_arm = {row["arm"]: row for row in here.iter_rows(named=True)}
        texts = [
            (arm, by_arm[arm]["text"], by_arm[arm]["rouge1"], len(by_arm[arm]["contexts"]))
            for arm in params.arms
        ]
        samples.append(Sample(user, last, json.loads(test["query"]), test["response"], texts))
    return samples


if __name__ == "__main__":
    run(main)
