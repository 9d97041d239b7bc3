"""Stage report: data/metrics.json and the stages' tables -> data/report/.

    report.html   one page that needs nothing else: no network, no other file
    tables/       arms, periods-METRIC, paired, significance, transfer, transfer-tests, transfer-generated,
                  transfer-matrix, follow, drift, correlations, gates, cost, published: JSON, CSV, Markdown
    plots/        answer, periods, paired, measures, transfer, drift, curves, cost as SVG

`python -m tasks.report` writes them and logs the experiment; `python -m tasks.report --print` prints the
tables of an experiment that has been evaluated and says where its report lies; with `--page` it logs nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import polars as pl

from spring.settings.params import Params
from tasks.evaluate import METRICS_FILE, read_curves, read_metrics
from tasks.files import DATA, read_parquet, write_json, write_text
from tasks.params import load_params, load_start
from tasks.reporting.answer import answer_of
from tasks.reporting.findings import tables
from tasks.reporting.names import is_headline
from tasks.reporting.page import Content, render
from tasks.reporting.people import leads, read_people
from tasks.reporting.provenance import of_run
from tasks.reporting.published import tables_and_published
from tasks.reporting.summary import drawings
from tasks.reporting.table import Table, as_markdown, as_plain
from tasks.stage import run
from tasks.suites import read_suite

FOLDER = DATA / "report"


class ReportError(RuntimeError):
    """Numbers that are not of the parameters at hand; the message says why and what to do."""


def main() -> None:
    """Runs the stage, or prints its tables."""
    parser = argparse.ArgumentParser(prog="python -m tasks.report", description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="print the tables and write nothing")
    parser.add_argument("--page", action="store_true", help="write data/report and log nothing")
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
    if arguments.page:
        print(f"{FOLDER}/report.html")
        return
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
    suite, users = read_suite(params.suite), read_parquet(DATA / "evaluate/users.parquet")
    found = answer_of(params, metrics, suite, users)
    content = Content(
        params=params,
        metrics=metrics,
        suite=suite,
        start=load_start(),
        users=users,
        provenance=of_run(params, metrics),
        root="../../",
        files={
            "tables": "csv json md",
            "every number": "../metrics.json",
            "tables as files": "tables/",
            "drawings as files": "plots/",
            "settings": "../../params.yaml",
        },
        answer=found,
        curves=read_curves(params),
        people=read_people(params, leads(found, users)),
    )
    for name, svg in drawings(content).items():
        write_text(svg, FOLDER / f"plots/{name}.svg")
    write_text(render(content), FOLDER / "report.html")


def write_tables(made: list[Table]) -> None:
    """Every table in three formats."""
    for table in made:
        write_json(table.rows, FOLDER / f"tables/{table.name}.json")
        write_text(
            pl.DataFrame(table.rows, infer_schema_length=None).write_csv(),
            FOLDER / f"tables/{table.name}.csv",
        )
        write_text(as_markdown(table), FOLDER / f"tables/{table.name}.md")


if __name__ == "__main__":
    run(main)
