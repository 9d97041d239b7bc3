"""The report's tables beside those of arms: tests, transfer, drift; and all tables together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spring.measures.statistics import EVERY
from tasks.measures.matrix import LIKELIHOOD
from tasks.reporting.names import METRIC_NAMES, TRANSFER_NAMES, titles
from tasks.reporting.table import (
    ABSENT,
    Table,
    arms_table,
    cost_table,
    number,
    paired_table,
    period_table,
    probability,
    share,
    with_interval,
)

ENDS = {"": "mean", "_low": "low", "_high": "high"}


def tables(metrics: dict[str, Any], order: Sequence[str]) -> list[Table]:
    """All tables of metrics.json, arms in `order`."""
    return [
        arms_table(metrics, order),
        *(period_table(metrics, order, metric) for metric in titles(metrics)),
        paired_table(metrics, order),
        significance_table(metrics, order),
        seeds_table(metrics, order),
        transfer_table(metrics, order),
        transfer_tests_table(metrics, order),
        generated_table(metrics, order),
        matrix_table(metrics, order),
        follow_table(metrics, order),
        drift_table(metrics, order),
        correlation_table(metrics, order),
        gates_table(metrics, order),
        cost_table(metrics, order),
    ]


def significance_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """p-values, effect sizes and users needed, a row for every arm and metric."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["paired"]):
        for metric, title in titles(metrics).items():
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


def seeds_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """Arms x metrics: the difference in every seed, of pooled runs; no rows of a single one."""
    rows, shown = [], []
    seeds = metrics.get("seeds", [])
    for arm in order if len(seeds) > 1 else ():
        if arm not in metrics["by_seed"]:
            continue
        found = metrics["by_seed"][arm]
        rows += [
            {"arm": arm, "metric": metric, "seed": seed, "difference": difference}
            for metric, differences in found.items()
            for seed, difference in zip(seeds, differences, strict=True)
        ]
        text = {
            title: ", ".join(number(value, signed=True) for value in found[metric])
            for metric, title in titles(metrics).items()
        }
        shown.append({"arm": arm} | text)
    title = f"Differences from {metrics['against']} in seeds {', '.join(map(str, seeds))}"
    return Table("seeds", title, rows, shown)


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
    return Table("transfer", "Transfer between periods, nats per token", rows, without_empty(shown))


def without_empty(shown: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same without columns in which no row has anything."""
    kept = {name for text in shown for name, value in text.items() if value != ABSENT}
    return [{name: value for name, value in text.items() if name in kept} for text in shown]


def transfer_tests_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """Every arm's measures of transfer against those of one arm, user by user."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["transfer_paired"]):
        for name, title in TRANSFER_NAMES.items():
            found = metrics["transfer_paired"][arm][name]
            if found["difference"] is None:
                continue
            rows.append({"arm": arm, "measure": name, **found})
            shown.append(
                {
                    "arm": arm,
                    "measure": title,
                    "difference": with_interval(found, "difference", signed=True),
                    "p": probability(found["p"]),
                    "p, corrected": probability(found["p_holm"]),
                    "effect size": number(found["d_z"], digits=2, signed=True),
                }
            )
    title = f"Transfer against {metrics['against']}, paired by user, nats per token"
    return Table("transfer-tests", title, rows, shown)


def measure_cells(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The measures of transfer with their intervals, as numbers and text; n where not all users have it."""
    row: dict[str, Any] = {}
    text: dict[str, str] = {}
    for name, title in TRANSFER_NAMES.items():
        entry = found[name]
        row |= {f"{name}{end}": entry[key] for end, key in ENDS.items()}
        some = of_others(entry, found["average"])
        text[title] = with_interval(entry, "mean", signed=name != "average") + some
    return row, text


def generated_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """The same of metrics of generated texts, a row for every arm and metric; no rows where none were."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["transfer"]):
        for metric, found in metrics["transfer"][arm]["generated"].items():
            row, text = measure_cells(found)
            rows.append({"arm": arm, "metric": metric} | row)
            shown.append({"arm": arm, "metric": METRIC_NAMES[metric]} | text)
    title = "Transfer between periods, generated texts"
    return Table("transfer-generated", title, rows, without_empty(shown))


def matrix_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """scores[i, j] of every arm and metric: a row per learned period i, a column per tested period j."""
    rows: list[dict[str, Any]] = []
    for arm in (arm for arm in order if arm in metrics["transfer"]):
        found = metrics["transfer"][arm]
        for metric, matrix in {LIKELIHOOD: found, **found["generated"]}.items():
            periods = sorted(matrix["untrained"], key=int)
            states = {"none": matrix["untrained"], **matrix["matrix"]}
            rows += [
                {"arm": arm, "metric": metric, "learned": learned}
                | {period: states[learned][period] for period in periods}
                for learned in ("none", *periods)
            ]
    shown = [
        {"arm": row["arm"], "metric": METRIC_NAMES[row["metric"]], "after learning": row["learned"]}
        | {f"test {period}": number(value) for period, value in row.items() if period.isdigit()}
        for row in rows
    ]
    return Table("transfer-matrix", "Every state on every period", rows, shown)


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
    """How well drift scores find each kind of change; no rows where no arm selects or nothing is labelled."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["drift"]):
        for kind, found in sorted(metrics["drift"][arm].items(), key=lambda item: (item[0] != EVERY, item)):
            rows.append(
                {"arm": arm, "kind": kind, "users": found["auroc"]["users"]}
                | {f"{name}{end}": entry[key] for name, entry in found.items() for end, key in ENDS.items()}
            )
            shown.append(
                {
                    "arm": arm,
                    "kind of change": kind,
                    "users": str(found["auroc"]["users"]),
                    "AUROC": with_interval(found["auroc"], "mean"),
                    "AP": with_interval(found["average_precision"], "mean"),
                    "AP by chance": number(found["chance"]["mean"]),
                    **{
                        title: number(found[name]["mean"]) + of_others(found[name], found["auroc"])
                        for title, name in (
                            ("precision of selection", "precision"),
                            ("of a blind one", "blind"),
                        )
                    },
                }
            )
    return Table("drift", "Drift scores against the true labels, within a user's period", rows, shown)


def of_others(entry: dict[str, Any], usual: dict[str, Any]) -> str:
    """The number of users of an entry, where it has some and not those of the row's usual one."""
    return f" (n={entry['users']})" if entry["users"] not in (0, usual["users"]) else ""


def correlation_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """Rank correlations of the drift score and its parts, for arms that select."""
    arms = [arm for arm in order if metrics["correlations"].get(arm)]
    pairs = list(dict.fromkeys(pair for arm in arms for pair in metrics["correlations"][arm]))
    rows = [{"arm": arm} | {pair: metrics["correlations"][arm].get(pair) for pair in pairs} for arm in arms]
    shown = [
        {"arm": row["arm"]} | {pair: number(row[pair], digits=2, signed=True) for pair in pairs}
        for row in rows
    ]
    return Table("correlations", "Rank correlations within a user's period", rows, shown)


def gates_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """What learned gates foretold and what was true; no rows where runs were kept before it was measured."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics.get("gates", {})):
        found = metrics["gates"][arm]
        rows.append({"arm": arm, **found})
        shown.append(
            {
                "arm": arm,
                "pairs": f"{found['pairs']:,}",
                "before it could tell": f"{found['closed']:,}",
                "helped": share(found["helped"]),
                "expected": share(found["expected"]),
                "let in": share(found["passed"]),
                "helped of those": share(found["helped_of_passed"]),
                "Brier": number(found["brier"]),
                "Brier of the plain share": number(found["brier_of_share"]),
                "calibration error": number(found["calibration_error"]),
            }
        )
    return Table("gates", "What learned gates foretold", rows, shown)
