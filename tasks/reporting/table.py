"""The report's tables of arms: as rows for files (every number) and as short text for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.measures.costs import COSTS
from tasks.reporting.names import METRIC_NAMES, titles

ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """`rows` hold raw numbers, one key per column; `shown` the same rows as text under readable headings."""

    name: str
    title: str
    rows: list[dict[str, Any]]
    shown: list[dict[str, str]]


def number(value: float | None, *, digits: int = 3, signed: bool = False) -> str:
    """A number as text with a true minus sign, a dash for none."""
    return ABSENT if value is None else f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def share(value: float | None) -> str:
    """A share as text."""
    return ABSENT if value is None else f"{value:.0%}"


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """An interval as text; empty where there is none."""
    return "" if low is None else f"[{number(low, signed=signed)}, {number(high, signed=signed)}]"


def probability(p: float | None) -> str:
    """A p-value as a cell of a table; a small one as a bound."""
    return "< 0.001" if p is not None and p < 0.001 else number(p)


def p_value(p: float) -> str:
    """A p-value in a sentence."""
    return f"p {text}" if (text := probability(p)).startswith("<") else f"p = {text}"


def with_interval(found: dict[str, Any], name: str, *, signed: bool = False) -> str:
    """An entry of metrics.json as text: its middle, under `name` there, and its interval."""
    limits = interval(found["low"], found["high"], signed=signed)
    return f"{number(found[name], signed=signed)} {limits}".strip()


def excludes_zero(found: dict[str, Any]) -> bool:
    """Whether an entry of `paired` has its whole interval on one side of zero."""
    return found["low"] is not None and (found["low"] > 0 or found["high"] < 0)


def size(count: float) -> str:
    """Bytes as text."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes everything")


def arms_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """Arms x metrics: mean over periods and users with its interval."""
    rows, shown = [], []
    for arm in order:
        row: dict[str, Any] = {"arm": arm}
        text = {"arm": arm}
        for metric, title in titles(metrics).items():
            found = metrics["arms"][arm][metric]
            row |= {metric: found["mean"], f"{metric}_low": found["low"], f"{metric}_high": found["high"]}
            text[title] = with_interval(found, "mean") + (
                f" (n={found['users']})" if "users" in found else ""
            )
        row |= {f"{metric}_inapplicable": count for metric, count in metrics.get("inapplicable", {}).items()}
        rows.append(row)
        shown.append(text)
    title = "Mean over periods, with its interval over users"
    return Table("arms", f"{title}{f'. {said}' if (said := left_out(metrics)) else ''}", rows, shown)


def left_out(metrics: dict[str, Any]) -> str:
    """Which metrics do not apply to how many test items; empty where all apply."""
    counts = [f"{METRIC_NAMES[name]} ({count:,})" for name, count in metrics.get("inapplicable", {}).items()]
    return f"Test items without a word to compare are left out: {', '.join(counts)}" if counts else ""


def period_table(metrics: dict[str, Any], order: Sequence[str], metric: str) -> Table:
    """One metric: arms x periods."""
    rows, shown = [], []
    for arm in order:
        found = metrics["arms"][arm][metric]
        periods = {str(period): found["periods"][str(period)] for period in metrics["periods"]}
        rows.append({"arm": arm, "mean": found["mean"], **periods})
        texts = {f"period {period}": number(value) for period, value in periods.items()}
        shown.append({"arm": arm, **texts, "mean": number(found["mean"])})
    return Table(f"periods-{metric}", f"{METRIC_NAMES[metric]} per period", rows, shown)


def paired_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """Every arm's difference from the arm compared with, user by user."""
    rows, shown = [], []
    for arm in (arm for arm in order if arm in metrics["paired"]):
        text = {"arm": arm}
        for metric, title in titles(metrics).items():
            found = metrics["paired"][arm][metric]
            rows.append({"arm": arm, "metric": metric, **found, "excludes_zero": excludes_zero(found)})
            text[title] = with_interval(found, "difference", signed=True)
        shown.append(text)
    return Table("paired", f"Difference from {metrics['against']}, paired by user", rows, shown)


def cost_table(metrics: dict[str, Any], order: Sequence[str]) -> Table:
    """What every arm took, as if it shared no training."""
    rows, shown = [], []
    for arm in order:
        found = metrics["arms"][arm]
        rows.append({"arm": arm, **{key: found[key] for key in (*COSTS, "pass_rate")}})
        shown.append(
            {
                "arm": arm,
                "training, s": number(found["seconds_train"], digits=1),
                "scoring, s": number(found["seconds_score"], digits=1),
                "generation, s": number(found["seconds_generate"], digits=1),
                "tokens trained on": f"{found['tokens_trained']:,}",
                "tokens generated": f"{found['tokens_generated']:,}",
                "rows per token": number(found["rows_per_step"], digits=2),
                "adapters": size(found["adapter_bytes"]) if found["adapter_bytes"] else ABSENT,
                "memory": size(found["memory_bytes"]) if found["memory_bytes"] else ABSENT,
                "queries with context": share(found["pass_rate"]),
            }
        )
    return Table("cost", f"Cost, {whose_cost(metrics)}", rows, shown)


def whose_cost(metrics: dict[str, Any]) -> str:
    """What costs are of: a run, or several seeds, of seconds the median and of the rest the mean."""
    seeds = len(metrics.get("seeds", ()))
    return "all users and periods" + (
        f" of a seed (of {seeds}: median seconds, else means)" if seeds > 1 else ""
    )


def as_markdown(table: Table) -> str:
    """A pipe table under its title."""
    if not table.shown:
        return f"**{table.title}**\n\nNothing to show.\n"
    heads = list(table.shown[0])
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *(list(row.values()) for row in table.shown)]
    return f"**{table.title}**\n\n" + "".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines
    )


def as_plain(table: Table) -> str:
    """Aligned columns for a terminal."""
    if not table.shown:
        return f"{table.title}\nNothing to show.\n"
    lines = [list(table.shown[0]), *(list(row.values()) for row in table.shown)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = [
        "  ".join(
            cell.rjust(w) if column else cell.ljust(w)
            for column, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return f"{table.title}\n" + "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]]) + "\n"
