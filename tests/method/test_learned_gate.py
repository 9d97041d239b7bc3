"""The learned gate: learns a plain rule, stays closed without both kinds of pairs."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from spring.method import learned_gate
from spring.method.learned_gate import (
    EXACT,
    Features,
    LearnedGate,
    brier,
    calibration_error,
    features,
    foretold,
    learned_from,
)
from tasks.measures.gates import measure
from tasks.reporting.findings import gates_table


def pair(score: float, *, rank: int = 1) -> Features:
    return features(score=score, standing=score / 10, rank=rank, query_words=4, item_words=9, days=3.0)


def test_lengths_and_age_are_logarithmic() -> None:
    assert pair(2.0) == Features(2.0, 0.2, 1, math.log(5), math.log(10), math.log(4))


def test_an_item_later_than_its_query_is_no_pair() -> None:
    with pytest.raises(AssertionError):
        features(score=1, standing=0, rank=1, query_words=1, item_words=1, days=-0.1)


def test_it_learns_that_high_scores_help() -> None:
    """Gains are positive exactly above 5; far from there the gate is sure, and weights are probabilities."""
    seen = [pair(score / 10) for score in range(100)]
    gate = LearnedGate(seen, [score / 10 - 5 for score in range(100)])
    asked = [pair(1.0), pair(4.0), pair(6.0), pair(9.0)]
    found = gate.probabilities(asked)
    assert (np.diff(found) > 0).all() and found[0] < 0.1 < 0.9 < found[3]
    assert gate.weights(asked).tolist() == [0.0, 0.0, found[2], found[3]]


def test_probabilities_are_calibrated_where_the_rule_is_noisy() -> None:
    """Scores of 0 help in 1 of 5 cases, scores of 1 in 4 of 5: the fitted odds are theirs."""
    seen = [pair(float(i % 2)) for i in range(1000)]
    gains = [1.0 if (i // 2) % 5 < (4 if i % 2 else 1) else -1.0 for i in range(1000)]
    np.testing.assert_allclose(
        LearnedGate(seen, gains).probabilities([pair(0.0), pair(1.0)]), [0.2, 0.8], atol=0.01
    )


@pytest.mark.parametrize("gains", [[], [-1.0, 0.0]])
def test_without_a_pair_that_helped_it_stays_closed(gains: list[float]) -> None:
    """A gain of exactly 0 is none."""
    gate = LearnedGate([pair(1.0 + i) for i in range(len(gains))], gains)
    assert gate.closed
    assert gate.weights([pair(9.0), pair(1.0)]).tolist() == [0, 0]


def test_where_every_pair_helped_all_pass() -> None:
    """By Laplace's rule: of two pairs two, so three of four."""
    gate = LearnedGate([pair(1.0), pair(2.0)], [1.0, 2.0])
    assert not gate.closed and gate.weights([pair(9.0), pair(-9.0)]).tolist() == [0.75, 0.75]


def test_nothing_retrieved_is_nothing_weighed() -> None:
    gate = LearnedGate([pair(1.0), pair(2.0)], [1.0, -1.0])
    assert not gate.closed and gate.weights([]).shape == (0,)


def test_a_pair_is_foretold_from_earlier_queries_alone() -> None:
    """Not from its own query's other items, nor later ones, whatever the order of the rows."""
    pairs = [pair(float(i % 10)) for i in range(60)]
    gains = np.array([1.0 if i % 10 > 4 else -1.0 for i in range(60)])
    times = np.arange(60) // 2
    said, shares = foretold(pairs, gains, times)
    assert np.isnan(said[:6]).all() and not np.isnan(said[6:]).any()  # nothing helped before
    for i in (7, 30, 59):
        before = [j for j in range(60) if times[j] < times[i]]
        gate = LearnedGate([pairs[j] for j in before], gains[before])
        assert said[i] == pytest.approx(gate.probabilities([pairs[i]])[0])
        assert shares[i] == pytest.approx((gains[before] > 0).mean())
    mixed = np.random.default_rng(0).permutation(60)
    again, _ = foretold([pairs[i] for i in mixed], gains[mixed], times[mixed])
    np.testing.assert_allclose(again, said[mixed], rtol=1e-3)
    said, shares = foretold([], [], [])
    assert said.shape == shares.shape == (0,)


def test_of_many_pairs_few_gates_are_fitted() -> None:
    """All pairs count where there are few; of more the gate lags by less than a hundredth, never ahead."""
    counts = list(range(0, 200_000, 7))
    used = [learned_from(count) for count in counts]
    assert used[: EXACT // 7] == counts[: EXACT // 7] and used == sorted(used)
    assert all(0 <= count - some < max(1, count / 100) for count, some in zip(counts, used, strict=True))
    assert len({some for some in used if some > EXACT}) < 600


def test_a_pair_is_foretold_by_the_gate_fitted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond `EXACT`; the share beside it is still of all that is known."""
    monkeypatch.setattr(learned_gate, "EXACT", 256)
    chance = np.random.default_rng(1)
    pairs = chance.normal(size=(600, 6))
    gains = pairs[:, 0] + chance.normal(size=600)
    said, shares = foretold(pairs, gains, np.arange(600))
    for i in (200, 257, 259, 599):
        count = learned_from(i)
        gate = LearnedGate(pairs[:count], gains[:count])
        assert said[i] == pytest.approx(gate.probabilities(pairs[i : i + 1])[0])
        assert shares[i] == pytest.approx((gains[:i] > 0).mean())
    assert [learned_from(i) for i in (256, 257, 259, 599)] == [256, 256, 258, 596]


def test_brier_and_calibration_error_of_known_forecasts() -> None:
    happened = np.array([True, False, True, False])
    assert brier([1, 0, 1, 0], happened) == 0 and brier([0.5] * 4, happened) == 0.25
    assert brier([1, 1, 1, 1], happened) == 0.5
    assert calibration_error([0.9, 0.1, 0.9, 0.1], happened, bins=2) == pytest.approx(0.1)
    assert calibration_error([0.5] * 4, happened, bins=1) == 0  # right on average, and tells nothing
    assert calibration_error([0.8], [True]) == pytest.approx(0.2)


def test_calibration_error_of_honest_forecasts_is_small() -> None:
    random = np.random.default_rng(0)
    said = random.random(20_000)
    assert calibration_error(said, random.random(20_000) < said) < 0.02
    assert calibration_error(said, random.random(20_000) < said**2) > 0.1


def test_what_a_gate_foretold_is_measured_on_the_pairs_it_could_tell() -> None:
    """Rank 1 helps, rank 2 does not: known after the first query, and foretold well from the second on."""
    seen = [vars(pair(3.0, rank=1 + i % 2)) for i in range(80)]
    gains = [0.5 if i % 2 == 0 else -0.5 for i in range(80)]
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=i // 2) for i in range(80)]
    pairs = pl.DataFrame(seen).with_columns(gain=pl.Series(gains), known_at=pl.Series(times))
    found = measure(pairs)
    assert (found["pairs"], found["closed"]) == (80, 2)
    assert found["helped"] == found["passed"] == 0.5 and found["helped_of_passed"] == 1
    assert found["expected"] == pytest.approx(0.5, abs=0.01)
    assert found["brier"] < 0.02 and found["brier_of_share"] == pytest.approx(0.25)
    table = gates_table({"gates": {"learned": found}}, ["parametric", "learned"])
    assert table.shown[0]["helped of those"] == "100%" and len(table.rows) == 1
    none = measure(pairs.filter(pl.col("gain") < 0))
    assert none["pairs"] == none["closed"] == 40 and none["brier"] is None and none["helped"] is None
    assert gates_table({"gates": {"learned": none}}, ["learned"]).shown[0]["Brier"] == "–"
    assert gates_table({}, ["learned"]).rows == []  # kept before it was measured
