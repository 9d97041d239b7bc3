"""The report's first sentence: who leads, by how much, what cannot be told; never against an interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.experiment import ROOT

from spring.settings.params import Params
from tasks.evaluate import over_periods
from tasks.measures.comparison import compare_arms
from tasks.measures.scores import METRICS
from tasks.params import load_params
from tasks.reporting.answer import (
    BETTER,
    PROBABLY,
    PROBABLY_WORSE,
    UNCLEAR,
    WORSE,
    Answer,
    answer,
    can_succeed,
    judge,
    limit,
    times,
)

NAMED = {"spring": "SPRInG", "rag-accum": "retrieval alone", "base": "the base model"}


def experiment(users: int, **gains: tuple[float, float]) -> tuple[Params, dict[str, Any], pl.DataFrame]:
    """Arms whose users gain (mean, spread) over the base model by every metric."""
    params = load_params(ROOT / "params.yaml")
    arms = {"base": params.arms["base"]} | {
        name: params.arms.get(name, params.arms["spring"]) for name in gains
    }
    params = params.model_copy(update={"arms": arms})
    noise = np.linspace(-1, 1, users) if users > 1 else np.zeros(1)
    rows = [
        {"arm": arm, "user_id": f"u{user:02}", "period": 1}
        | dict.fromkeys(
            METRICS, -4.0 + user / 10 + (gains[arm][0] + gains[arm][1] * noise[user] if arm != "base" else 0)
        )
        for arm in arms
        for user in range(users)
    ]
    table = pl.DataFrame(rows)
    means = {arm: over_periods(table, arm) for arm in arms}
    found = {arm: {name: {"mean": means[arm][name].mean()} for name in METRICS} for arm in arms}
    paired = compare_arms(params, means, METRICS)
    return params, {"arms": found, "paired": paired, "against": "base", "users": users}, table


def told(users: int, named: dict[str, str] | None = None, **gains: tuple[float, float]) -> Answer:
    return answer(*experiment(users, **gains), named or {})


def test_a_planned_comparison_names_every_arm_once() -> None:
    """8 users: 2/256 for 2 comparisons is 0.016. exp(1.5) = 4.5; retrieval alone differs either way."""
    found = told(8, NAMED, **{"spring": (1.5, 0.1), "rag-accum": (1.45, 0.4)})
    assert found.sentence == (
        "SPRInG predicts its users’ texts better than the base model (every token 4.5 times as likely); "
        "whether better than retrieval alone, these data cannot tell."
    )
    assert found.limit == "" and [line.other for line in found.lines] == ["rag-accum", "base"]
    assert found.verdicts["logp_per_token"] == [UNCLEAR, BETTER]
    assert found.beside.startswith("In words (ROUGE-1), its answers match them better than the base")
    assert found.lines[1].found["logp_per_token"]["p_holm"] == pytest.approx(2 * 2 / 256)
    assert len(found.lines[1].users) == 8 and min(found.lines[1].users.values()) > 0


def test_worse_and_nothing() -> None:
    found = told(8, NAMED, **{"spring": (-0.5, 0.1), "rag-accum": (-0.5, 0.4)})
    assert found.sentence.startswith(
        "SPRInG predicts its users’ texts worse than the base model (every token 0.61"
    )
    found = told(8, NAMED, **{"spring": (0.0, 0.5), "rag-accum": (0.02, 0.1)})
    assert found.sentence == (
        "SPRInG predicts its users’ texts neither better nor worse than retrieval alone or the base "
        "model, as far as these data tell."
    )


def test_what_no_test_could_show_is_said_once_and_contradicts_nothing() -> None:
    """5 users: at best 2/32, of 2 comparisons 0.12; 7 users reach 2 * 2/128 = 0.031."""
    found = told(5, NAMED, **{"spring": (1.5, 0.1), "rag-accum": (0.5, 0.1)})
    assert (
        "better than the base model (every token 4.5 times as likely) and retrieval alone (2.7"
        in found.sentence
    )
    assert found.verdicts["logp_per_token"] == [BETTER, BETTER]
    assert found.limit.startswith("5 users are too few for any test") and "p = 0.12 at best" in found.limit
    assert "7 users reach 0.031" in found.limit
    assert "cannot tell" not in found.sentence + found.beside


def test_one_user_has_no_interval() -> None:
    found = told(1, NAMED, **{"spring": (1.5, 0.1), "rag-accum": (0.5, 0.1)})
    assert found.verdicts["logp_per_token"] == [UNCLEAR, UNCLEAR] and found.limit.startswith(
        "One user gives neither"
    )


def test_without_a_plan_the_leader_is_told_and_who_is_as_good() -> None:
    found = told(8, good=(1.0, 0.1), equal=(0.98, 0.1), weak=(0.2, 0.1))
    assert found.sentence == (
        "good predicts its users’ texts best: every token is 2.7 times as likely as with base."
    )  # equal is 0.02 less for every single user
    found = told(8, good=(1.0, 0.3), equal=(0.98, 0.1), weak=(0.2, 0.1))
    assert found.sentence.endswith("as with base; equal cannot be told from it.")
    assert [line.arm for line in found.lines] == ["good", "equal", "weak"]
    assert told(8, weak=(-1.0, 0.1)).sentence == "No arm predicts its users’ texts better than base."
    assert (
        "has the highest mean, but these data cannot tell it from base" in told(8, weak=(0.1, 1.0)).sentence
    )


def test_controls_that_know_what_is_later_cannot_lead() -> None:
    params, metrics, table = experiment(8, good=(1.0, 0.1), seer=(2.0, 0.1))
    seer = params.arms["good"].model_copy(
        update={"retrieve": params.arms["good"].retrieve.model_copy(update={"sigma_from": "transductive"})}
    )
    params = params.model_copy(update={"arms": params.arms | {"seer": seer}})
    found = answer(params, metrics, table, {})
    assert found.sentence.startswith("good predicts") and found.aside.endswith("asked for: seer.")


@given(
    low=st.floats(-3, 3), width=st.floats(0, 3), p=st.one_of(st.none(), st.floats(0, 1)), tested=st.booleans()
)
def test_words_never_contradict_the_interval(low: float, width: float, p: float | None, tested: bool) -> None:
    high = low + width
    word = judge({"low": low, "high": high, "p_holm": p}, tested)
    assert (word in (BETTER, PROBABLY)) == (low > 0)
    assert (word in (WORSE, PROBABLY_WORSE)) == (high < 0)
    assert (word == UNCLEAR) == (low <= 0 <= high)
    if tested and word in (BETTER, WORSE):
        assert p is not None and p < 0.05


@pytest.mark.parametrize(
    ("users", "tests", "can"), [(5, 1, False), (6, 1, True), (8, 4, True), (8, 7, False), (1, 1, False)]
)
def test_whether_a_test_can_succeed(users: int, tests: int, can: bool) -> None:
    """2 / 2^users, times the number of tests, against 0.05."""
    assert can_succeed(users, tests) == can
    assert bool(limit(users, tests)) != can


def test_ratios_in_words() -> None:
    """exp(0.693) = 2, exp(3) = 20, exp(0.04) = 1.041; a loss is a ratio below 1."""
    assert times(0.693) == "2.0 times as likely" and times(3.0) == "20 times as likely"
    assert times(-0.693) == "0.50 times as likely" and times(None) == ""
    assert times(0.04, "base") == "4.1% likelier than with base" and times(-0.04) == "3.9% less likely"
    assert times(0.693, "base") == "2.0 times as likely as with base"
