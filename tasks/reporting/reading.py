"""What the numbers say beyond the first sentence, claim by claim: every metric, transfer, drift, caution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spring.measures.statistics import EVERY
from tasks.reporting.answer import BETTER, MOST_NAMED, PROBABLY, UNCLEAR, can_succeed, judge
from tasks.reporting.names import SIGNIFICANT, is_headline, listed, significant, titles
from tasks.reporting.table import excludes_zero, interval, number, p_value, with_interval

FEW_USERS = 10  # below, even expanded bootstrap intervals are rough
NOTE = (
    "Intervals and tests are over users only: they hold no variation between training runs{seeds}. "
    "Corrected p-values allow for looking at several arms, intervals do not, and nothing allows for "
    "looking at several metrics."
)


def reading(metrics: dict[str, Any], order: Sequence[str]) -> list[tuple[str, str]]:
    """What the numbers say: (heading, sentence)."""
    told = {metric: title for metric, title in titles(metrics).items() if is_headline(metric)}
    said = [(title, metric_reading(metrics, order, metric)) for metric, title in told.items()]
    said += [("Transfer", sentence) for sentence in transfer_reading(metrics, order)]
    said += [("Drift", sentence) for sentence in drift_reading(metrics, order)]
    return [*said, ("Caution", caution(metrics))]


def caution(metrics: dict[str, Any]) -> str:
    """What intervals and tests do not hold, and how rough they are."""
    users, seeds = metrics["users"], len(metrics.get("seeds", ()))
    few = ""
    if users == 1:
        few = "A single user gives no intervals at all. "
    elif users < FEW_USERS:
        few = f"Intervals from only {users} users are rough. "
    return few + NOTE.format(
        seeds=" (this is one seed)" if seeds < 2 else f", of which {seeds} seeds give an idea"
    )


def metric_reading(metrics: dict[str, Any], order: Sequence[str], metric: str) -> str:
    """The arm with the highest mean, whether it can be told from the one compared with, and who else can."""
    against, paired = metrics["against"], metrics["paired"]
    means = {arm: metrics["arms"][arm][metric]["mean"] for arm in order}
    if None in means.values():
        return "Applies to no test item: none has a word to compare."
    best = [arm for arm in order if means[arm] == max(means.values())]
    if against in best:
        text = f"No arm has a higher mean than {against} ({number(means[against])})."
    else:
        found = paired[best[0]][metric]
        limits = interval(found["low"], found["high"], signed=True)
        have = "has" if len(best) == 1 else "have"
        text = (
            f"{listed(best)} {have} the highest mean, {number(means[best[0]])}: "
            f"{number(found['difference'], signed=True)} {limits} against {against}, "
            f"{verdict(found, users=metrics['users'], tests=len(paired))}."
        )
    for side, sign in (("above", 1), ("below", -1)):
        others = [arm for arm in order if arm in paired and arm not in best]
        others = [arm for arm in others if significant(paired[arm][metric])]
        others = [arm for arm in others if sign * paired[arm][metric]["difference"] > 0]
        if others:
            start = "Arms" if against in best else "Other arms"
            shown = listed(others) if len(others) <= MOST_NAMED else f"{len(others)} of {len(order) - 1}"
            text += f" {start} {side} {against} (corrected p < {SIGNIFICANT}): {shown}."
    return text


def verdict(found: dict[str, Any], *, users: int, tests: int) -> str:
    """Whether the best arm can be told from the one compared with; never against the interval.

    A p-value is given where the test could have told; where it cannot, the page says so once, at its top.
    """
    tested = can_succeed(users, tests)
    words = {
        UNCLEAR: "which does not tell the two apart",
        BETTER: "better",
        PROBABLY: "probably better, though the corrected test does not confirm it",
    }[judge(found, tested)]
    if not tested or found["p_holm"] is None:
        return words
    return f"{words} (corrected {p_value(found['p_holm'])})"


def transfer_reading(metrics: dict[str, Any], order: Sequence[str]) -> list[str]:
    """Which arms lost or gained on earlier periods by learning on, as far as their intervals tell."""
    arms = [arm for arm in order if arm in metrics["transfer"]]
    told = {arm: metrics["transfer"][arm]["backward"] for arm in arms}
    parts = []
    for what, sign in (("lost", -1), ("gained", 1)):
        some = [arm for arm in arms if excludes_zero(told[arm]) and sign * told[arm]["mean"] > 0]
        if some:
            some.sort(key=lambda arm: -abs(told[arm]["mean"]))
            named = [f"{arm} ({number(told[arm]['mean'], signed=True)})" for arm in some[:MOST_NAMED]]
            more = f" and {len(some) - MOST_NAMED} more" if len(some) > MOST_NAMED else ""
            parts.append(f"by learning on, earlier periods {what} under {', '.join(named)}{more}")
    if not arms:
        return []
    if not parts:
        return ["No arm's interval of backward transfer excludes zero: nothing says that any forgets."]
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}, in nats per token; no other interval excludes zero."]


def drift_reading(metrics: dict[str, Any], order: Sequence[str]) -> list[str]:
    """How well the first arm that selects by drift finds the real changes; the others are in the table."""
    arms = [arm for arm in order if arm in metrics["drift"]]
    if not arms:
        return []
    found = metrics["drift"][arms[0]][EVERY]
    if found["auroc"]["mean"] is None:
        return ["No period of any user holds real changes and others, so that none can be told apart."]
    text = (
        f"Under {arms[0]}, a real change scores above the rest of its period with probability "
        f"{with_interval(found['auroc'], 'mean')} (0.5 is chance); {found['precision']['mean']:.0%} of what "
        f"was selected is a real change, where a blind selection would reach {found['blind']['mean']:.0%}."
    )
    different = any(metrics["drift"][arm] != metrics["drift"][arms[0]] for arm in arms)
    return [text + " Other selections are in the table below." * different]
