"""The answer to a suite's question, in words that never say more or less than the interval beside them.

What is compared: the first arm of the suite's `compared` with each of the others, or, where a suite names
none, every arm with `evaluate.against`, of which the leading ones are told. Who leads is decided by the
likelihood of what the users really wrote; ROUGE-1 of the answers is told beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from spring.measures.significance import holm, smallest_p
from spring.settings.arm import Arm
from spring.settings.params import Params
from tasks.evaluate import over_periods
from tasks.measures.comparison import compare_all, intervals_of
from tasks.reporting.names import SIGNIFICANT, listed
from tasks.reporting.table import number
from tasks.suites import Suite

MAIN, BESIDE = "logp_per_token", "rouge1"
MOST_SHOWN = 6  # comparisons in the table and the picture
NEAR = 0.2  # ratios that are nearer to 1 are told in percent
MOST_NAMED = 4  # arms named in one sentence; more are counted
ASIDE = "Not in the running, since they have seen later texts than they are asked for"
Found = dict[str, Any]  # difference, low, high, p, p_holm
BETTER, PROBABLY, UNCLEAR, PROBABLY_WORSE, WORSE = (
    "better", "probably better", "cannot be told", "probably worse", "worse",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One comparison: `arm` less `other`, called `words`; its numbers by metric, and of each user."""

    arm: str
    other: str
    words: str
    found: dict[str, Found]
    users: dict[str, float]


@dataclass(frozen=True)
class Answer:
    """The answer as sentences, and the comparisons that it stands on."""

    sentence: str  # by likelihood
    beside: str  # by ROUGE-1; empty where that applies to no text
    limit: str  # what no test of this run could have shown; empty where all can
    lines: list[Line]
    verdicts: dict[str, list[str]]  # metric -> one of the five per line
    lead: str  # what the differences of the lines are
    aside: str = ""  # who could not lead, and why


def answer_of(params: Params, metrics: dict[str, Any], suite: Suite, users: pl.DataFrame) -> Answer:
    """The answer to a suite's question; `users`: means by arm, user and period."""
    named = {arm: words for arm, words in suite.compared.items() if arm in metrics["arms"]}
    if next(iter(suite.compared), None) not in named:  # params.yaml has lost the arm it is about
        named = {}
    return answer(params, metrics, users, named)


def answer(params: Params, metrics: dict[str, Any], users: pl.DataFrame, named: Mapping[str, str]) -> Answer:
    """`users`: means by arm, user and period; `named`: of the suite's `compared`, the arms that are there."""
    means = {arm: over_periods(users, arm) for arm in params.arms}
    if len(named) > 1:
        return planned(params, metrics, means, named)
    return leading(params, metrics, means)


def planned(
    params: Params, metrics: dict[str, Any], means: dict[str, pl.DataFrame], named: Mapping[str, str]
) -> Answer:
    """One arm against each of the others that the suite names; p-values are corrected for these alone."""
    arm, *others = named
    metrics_there = [metric for metric in (MAIN, BESIDE) if metrics["arms"][arm][metric]["mean"] is not None]
    found: dict[str, dict[str, Found]] = {other: {} for other in others}
    pairs = {(other, name): (means[arm], means[other], name) for other in others for name in metrics_there}
    compared = compare_all(params, pairs)
    for metric in metrics_there:
        here = [compared[other, metric] for other in others]
        for other, entry, p in zip(others, here, holm([entry["p"] for entry in here]), strict=True):
            found[other][metric] = entry | {"p_holm": p}
    lines = [
        Line(arm, other, named[other], found[other], gains(means[arm], means[other])) for other in others
    ]
    verdicts = verdicts_of(lines, metrics_there, len(lines), metrics["users"])
    told = {
        metric: grouped(
            [line.words for line in lines], verdicts[metric], [line.found[metric] for line in lines], metric
        )
        for metric in metrics_there
    }
    who = named[arm]
    return Answer(
        sentence=f"{who} {sentence(told[MAIN], 'predicts its users’ texts')}",
        beside=f"In words (ROUGE-1), its answers {sentence(told[BESIDE], 'match them')}"
        if BESIDE in told
        else "",
        limit=limit(metrics["users"], len(lines)),
        lines=lines,
        verdicts=verdicts,
        lead=f"{who}’s lead",
    )


def leading(params: Params, metrics: dict[str, Any], means: dict[str, pl.DataFrame]) -> Answer:
    """The arm with the highest likelihood, by how much over `evaluate.against`, and who may be as good.

    Controls that have seen later texts than they are asked for cannot lead.
    """
    against, paired = metrics["against"], metrics["paired"]
    told = {arm for arm in params.arms if knows_later(params.arms[arm]) and arm != against}
    fair = [arm for arm in params.arms if arm not in told]
    ranked = sorted(fair, key=lambda arm: -metrics["arms"][arm][MAIN]["mean"])
    shown = [arm for arm in ranked if arm != against][:MOST_SHOWN]
    there = [metric for metric in (MAIN, BESIDE) if metrics["arms"][against][metric]["mean"] is not None]
    lines = [
        Line(
            arm, against, arm, {name: paired[arm][name] for name in there}, gains(means[arm], means[against])
        )
        for arm in shown
    ]
    verdicts = verdicts_of(lines, there, len(paired), metrics["users"])
    rest = [arm for arm in ranked[1:] if arm != against]
    equals = equal(params, means[ranked[0]], {arm: means[arm] for arm in rest})
    if len(equals) > MOST_NAMED:
        equals = [*equals[:MOST_NAMED], f"{len(equals) - MOST_NAMED} more"]
    if ranked[0] == against:
        text = f"No arm predicts its users’ texts better than {against}"
        text += f"; {listed(equals)} cannot be told from it" if equals else ""
    else:
        text = f"{ranked[0]} {of_leader(verdicts[MAIN][0], lines[0].found[MAIN], against, equals)}"
    beside = ""
    if BESIDE in there:
        best = max(fair, key=lambda arm: metrics["arms"][arm][BESIDE]["mean"])
        beside = words_beside(best, against, paired, metrics["users"])
    return Answer(
        sentence=f"{text}.",
        beside=beside,
        limit=limit(metrics["users"], len(paired)),
        lines=lines,
        verdicts=verdicts,
        lead=f"lead over {against}",
        aside=f"{ASIDE}: {listed(sorted(told))}." if told else "",
    )


def knows_later(arm: Arm) -> bool:
    """Whether an arm is a control that learns, or sets its gate, with texts of later than its queries."""
    return "transductive" in arm.model_dump_json()


def of_leader(verdict: str, found: Found, against: str, equals: list[str]) -> str:
    """What the arm with the highest mean does, beside the one all are compared with, and who may equal it."""
    if verdict == UNCLEAR:
        return f"has the highest mean, but these data cannot tell it from {alternatives([against, *equals])}"
    maybe = "probably " if verdict == PROBABLY else ""
    text = f"{maybe}predicts its users’ texts best: every token is {times(found['difference'], against)}"
    return f"{text}; {listed(equals)} cannot be told from it" if equals else text


def words_beside(best: str, against: str, paired: dict[str, Any], users: int) -> str:
    """The arm whose answers share most words with the texts, and whether it can be told from `against`."""
    if best == against:
        return f"In words (ROUGE-1), no arm’s answers match them better than those of {against}."
    found = paired[best][BESIDE]
    verdict = judge(found, can_succeed(users, len(paired)))
    end = f"which cannot be told from {against}" if verdict == UNCLEAR else f"{verdict} than {against}"
    return f"In words (ROUGE-1), the answers of {best} match them most, {end} ({signed(found)})."


# --- verdicts ---------------------------------------------------------------------------------------------


def judge(found: Found, tested: bool) -> str:
    """A difference in words. Its interval decides on the side; a test that could have failed to, how surely.

    `tested`: whether any data of so many users could have passed the test.
    """
    low, high = found["low"], found["high"]
    if low is None or low <= 0 <= high:
        return UNCLEAR
    sure = not tested or (found["p_holm"] is not None and found["p_holm"] < SIGNIFICANT)
    if low > 0:
        return BETTER if sure else PROBABLY
    return WORSE if sure else PROBABLY_WORSE


def can_succeed(users: int, tests: int) -> bool:
    """Whether the corrected p-value of so many users can be below 0.05 at all."""
    return users > 1 and smallest_p(users, tests=tests) < SIGNIFICANT


def limit(users: int, tests: int) -> str:
    """What no test of so few users can show; empty where it can."""
    if users == 1:
        return "One user gives neither intervals nor tests: nothing here says how other users would fare."
    if can_succeed(users, tests):
        return ""
    needed = next(number for number in range(users, 40) if can_succeed(number, tests))
    return (
        f"{users} users are too few for any test to confirm this: even if all of them agreed, it could be "
        f"chance (p = {smallest_p(users, tests=tests):.2g} at best, corrected for {tests} "
        f"comparison{'s' * (tests > 1)}; {needed} users reach {smallest_p(needed, tests=tests):.2g}). Until "
        f"then, go by the intervals."
    )


def verdicts_of(lines: list[Line], there: list[str], tests: int, users: int) -> dict[str, list[str]]:
    """Metric -> the verdict on every line."""
    tested = can_succeed(users, tests)
    return {metric: [judge(line.found[metric], tested) for line in lines] for metric in there}


def grouped(words: list[str], verdicts: list[str], found: list[Found], metric: str) -> dict[str, list[str]]:
    """Verdict -> who it is on, the largest difference first, and by how much where anything can be told."""
    ranked = sorted(
        zip(words, verdicts, found, strict=True), key=lambda line: -abs(line[2]["difference"] or 0)
    )
    groups: dict[str, list[str]] = {}
    for word, verdict, entry in ranked:
        if verdict != UNCLEAR:
            what = "every token " if metric == MAIN and not groups.keys() - {UNCLEAR} else ""
            word += f" ({what}{how_much(entry['difference'], metric)})"
        groups.setdefault(verdict, []).append(word)
    return groups


def how_much(difference: float, metric: str) -> str:
    """A difference for a sentence: of likelihoods as a ratio, of others as it is."""
    return times(difference) if metric == MAIN else number(difference, signed=True)


def sentence(groups: dict[str, list[str]], does: str) -> str:
    """Verdicts as one sentence without its subject: `predicts ... better than A; from B ...`."""
    said = [
        f"{does if place == 0 else 'and'} {verdict} than {listed(groups[verdict])}"
        for place, verdict in enumerate(v for v in (BETTER, PROBABLY, PROBABLY_WORSE, WORSE) if v in groups)
    ]
    unclear = groups.get(UNCLEAR, [])
    if not said:
        return f"{does} neither better nor worse than {alternatives(unclear)}, as far as these data tell."
    end = f"; whether better than {alternatives(unclear)}, these data cannot tell" if unclear else ""
    return f"{', '.join(said)}{end}."


def alternatives(words: list[str]) -> str:
    """Words after a negation."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


# --- numbers ----------------------------------------------------------------------------------------------


def gains(mine: pl.DataFrame, others: pl.DataFrame) -> dict[str, float]:
    """Every user's difference by likelihood."""
    return dict(zip(mine["user_id"], mine[MAIN] - others[MAIN], strict=True))


def equal(params: Params, mine: pl.DataFrame, others: dict[str, pl.DataFrame]) -> list[str]:
    """The arms whose difference from `mine` has an interval that holds zero."""
    found = intervals_of(params, {arm: mine[MAIN] - means[MAIN] for arm, means in others.items()})
    return [arm for arm, of in found.items() if of["low"] is None or of["low"] <= 0 <= of["high"]]


def signed(found: Found) -> str:
    """A difference with its interval."""
    parts = [found["difference"], found["low"], found["high"]]
    text = ["–" if part is None else f"{part:+.2f}".replace("-", "−") for part in parts]
    return text[0] if found["low"] is None else f"{text[0]} [{text[1]}, {text[2]}]"


def times(difference: float | None, other: str = "") -> str:
    """A difference in nats a token as a ratio: how likely every token of the text is, beside `other`."""
    if difference is None:
        return ""
    ratio = math.exp(difference)
    if abs(ratio - 1) < NEAR:
        than = f" than with {other}" if other else ""
        return f"{abs(ratio - 1):.1%} {'likelier' if ratio >= 1 else 'less likely'}{than}"
    digits = 2 if ratio < 1 else 1 if ratio < 10 else 0
    return f"{ratio:.{digits}f} times as likely{f' as with {other}' if other else ''}"
