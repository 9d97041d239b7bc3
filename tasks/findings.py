"""The report's tables beside those of arms: tests, transfer, drift; and all tables together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.plots import METRIC_NAMES
from tasks.table import (
    ABSENT,
    Table,
    arms_table,
    cost_table,
    number,
    paired_table,
    period_table,
    with_interval,
)

TRANSFER_NAMES = {
    "average": "average at the end",
    "backward": "backward transfer",
    "forward": "forward transfer",
    "forgetting": "forgetting",
}


def tables(metrics: dict[str, Any], order: Sequence[str]) -> list[Table]:
    """All tables of metrics.json, arms in `order`."""
    return [
        arms_table(metrics, order),
        *(period_table(metrics, order, metric) for metric in METRIC_NAMES),
        paired_table(metrics, order),
        significance_table(metrics, order),
        transfer_table(metrics, order),
        generated_table(metrics, order),
        matrix_table(metrics, order),
        follow_table(metrics, order),
        drift_table(metrics, order),
        correlation_table(metrics, order),
        cost_table(metrics, order),
    ]


def significance_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """p-values, effect sizes and users needed, a row for every arm and metric."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["paired"]):
        for metric, title in METRIC_NAMES.items():
            found = metrics["paired"][arm][metric]
            plain = {key: found[key] for key in ("p", "p_holm", "d_z", "users_needed")}
            rows.append({"arm": arm, "metric": metric, **plain})
            users = ABSENT if found["users_needed"] is None else f"{found['users_needed']:,}"
            shown.append(
                {
                    "arm": arm,
                    "metric": title,
                    "difference": number(found["difference"], signed=True),
                    "p": probability(found["p"]),
                    "p, corrected": probability(found["p_holm"]),
                    "effect size": number(found["d_z"], digits=2, signed=True),
                    "users needed": users,
                }
            )
    return Table("significance", f"Tests against {metrics['against']}, paired by user", rows, shown)


def probability(p: float | None) -> str:
    """A p-value as text; a small one as a bound."""
    return "< 0.001" if p is not None and p < 0.001 else number(p)


def transfer_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """What every arm keeps and gains over periods; backward transfer by kind of change where it is known."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["transfer"]):
        found = metrics["transfer"][arm]
        row, text = ({"arm": arm} | cells for cells in measure_cells(found))
        for kind, values in found["kinds"].items():
            row |= {f"{name} {kind}": values[name] for name in (*TRANSFER_NAMES, "users")}
            text[f"backward, {kind} (n={values['users']})"] = number(values["backward"], signed=True)
        rows.append(row)
        shown.append(text)
    return Table("transfer", "Transfer between periods, nats per token", rows, shown)


def measure_cells(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The measures of transfer with their intervals, as numbers and as text."""
    row: dict[str, Any] = {}
    text: dict[str, str] = {}
    for name, title in TRANSFER_NAMES.items():
        entry = found[name]
        row |= {name: entry["mean"], f"{name}_low": entry["low"], f"{name}_high": entry["high"]}
        text[title] = with_interval(entry, "mean", signed=name != "average")
    return row, text


def generated_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """The same of metrics of generated texts, a row for every arm and metric; no rows where none were."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["transfer"]):
        for metric, found in metrics["transfer"][arm]["generated"].items():
            row, text = measure_cells(found)
            rows.append({"arm": arm, "metric": metric} | row)
            shown.append({"arm": arm, "metric": METRIC_NAMES[metric]} | text)
    return Table("transfer-generated", "Transfer between periods, generated texts", rows, shown)


def matrix_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """scores[i, j] of every arm: a row per learned period i, a column per tested period j."""
    rows: list[dict[str, Any]] = []
    for arm in (arm for arm in order if arm in metrics["transfer"]):
        found = metrics["transfer"][arm]
        states, periods = found["matrix"] | {"none": found["untrained"]}, sorted(found["untrained"], key=int)
        rows += [
            {"arm": arm, "learned": learned, **{period: states[learned][period] for period in periods}}
            for learned in ("none", *periods)
        ]
    shown = [
        {
            "arm": row["arm"],
            "after learning": row["learned"],
            **{f"test {period}": number(row[period]) for period in row if period not in ("arm", "learned")},
        }
        for row in rows
    ]
    return Table("transfer-matrix", "Log-likelihood per token of every state on every period", rows, shown)


def follow_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """How far every arm has followed a change after some periods; no rows where no change is labelled."""
    rows, shown = [], []
    for arm in (arm for arm in order if metrics["transfer"].get(arm, {}).get("follow")):
        found = metrics["transfer"][arm]
        row, text = {"arm": arm}, {"arm": arm}
        for periods in sorted(found["follow"], key=int):
            at = found["follow"][periods]
            row |= {f"excess {periods}": at["excess"], f"changes {periods}": at["changes"]}
            text[f"after {periods} (n={at['changes']})"] = number(at["excess"], signed=True)
        delay = found["delay"]
        rows.append(row | {"delay": delay})
        shown.append(text | {"delay, periods": ABSENT if delay is None else str(delay)})
    return Table("follow", "Gain on new habits beyond that on unchanged ones, nats per token", rows, shown)


def drift_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """How well drift scores find the real changes; no rows where no arm selects or nothing is labelled."""
    rows, shown = [], []
    for arm in (arm for arm in order if metrics["drift"].get(arm, {}).get("items")):
        found = metrics["drift"][arm]
        kinds = sorted(found["by_type"].items())
        plain = {
            key: found[key] for key in ("auroc", "average_precision", "precision", "share_drift", "items")
        }
        measures = (("auroc", "AUROC"), ("average_precision", "AP"), ("share", "share"))
        of_kind = {f"{key} {kind}": values[key] for key, _ in measures for kind, values in kinds}
        rows.append({"arm": arm, **plain, **of_kind})
        shown.append(
            {
                "arm": arm,
                "AUROC": number(found["auroc"]),
                "AP": number(found["average_precision"]),
                "precision of selection": number(found["precision"]),
                "by chance": number(found["share_drift"]),
                **{
                    f"{kind}: AUROC, AP (chance)": f"{number(values['auroc'])}, "
                    f"{number(values['average_precision'])} ({number(values['share'])})"
                    for kind, values in kinds
                },
            }
        )
    return Table("drift", "Drift scores against the true labels", rows, shown)


def correlation_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """Rank correlations of the drift score and its parts, for arms that select."""
    arms = [arm for arm in order if metrics["correlations"].get(arm)]
    rows = [{"arm": arm, **metrics["correlations"][arm]} for arm in arms]
    shown = [
        {
            "arm": row["arm"],
            **{name: number(value, digits=2, signed=True) for name, value in row.items() if name != "arm"},
        }
        for row in rows
    ]
    return Table("correlations", "Rank correlations within a user's period", rows, shown)
