"""The paper's own table beside a suite: other model, other data, so only the pattern can be compared."""

from __future__ import annotations

from typing import Any

from spring.settings.params import Params
from tasks.reporting.findings import tables
from tasks.reporting.table import Table, number
from tasks.suites import Suite, read_published, read_suite

TASKS = {"abstract": "abstracts", "review": "reviews"}
METRICS = {"rouge1": "ROUGE-1", "rougeL": "ROUGE-L"}


def tables_and_published(params: Params, metrics: dict[str, Any], suite: Suite | None = None) -> list[Table]:
    """All tables of metrics.json, and the paper's own beside them where it has one.

    `suite`: of kept runs, as it was; else it is read.
    """
    beside = published_table(params, metrics, suite)
    return [*tables(metrics, list(params.arms)), *([beside] if beside else [])]


def published_table(params: Params, metrics: dict[str, Any], suite: Suite | None = None) -> Table | None:
    """This run's arms beside the paper's rows; null where the paper has no table on the suite's question."""
    place = (suite or read_suite(params.suite)).published
    if place is None:
        return None
    everything = read_published()
    rows, shown = [], []
    for arm, label in place.rows.items():
        if arm not in metrics["arms"]:  # `main` keeps the arms of params.yaml, whichever they are
            continue
        row: dict[str, Any] = {"arm": arm, "published_row": label}
        text = {"arm": arm}
        for at, (metric, title) in enumerate(METRICS.items()):
            row[metric] = metrics["arms"][arm][metric]["mean"]
            text[f"{title}, here"] = number(row[metric])
            for task, named in TASKS.items():
                value = mean_of(everything[place.table][task], label)[at]
                row[f"published_{task}_{metric}"] = value
                text[f"{title}, paper's {named}"] = number(value)
        rows.append(row)
        shown.append(text)
    title = f"Beside the paper ({everything['source']}): another model and other data"
    return Table("published", title, rows, shown) if rows else None


def mean_of(table: dict[str, Any], row: str) -> list[float]:
    """(ROUGE-1, ROUGE-L) of a row; of one with a pair per period, the average that stands last."""
    values = table[row]
    return values[-1] if isinstance(values[0], list) else values
