"""Bootstrap and AUROC against brute force and numbers derived by hand."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from spring.measures import statistics
from spring.measures.statistics import (
    EVERY,
    Interval,
    auroc,
    average_precision,
    bootstrap_means,
    chance_precision,
    detection,
    mean_interval,
    mean_intervals,
    rank_correlations,
    selection_precision,
    spearman,
    tail_share,
)

SETTINGS: dict[str, Any] = {"resamples": 4000, "confidence": 0.9, "seed": 3}


def test_bootstrap_against_all_resamples() -> None:
    """The 4^4 resamples of four users are enumerated; 40,000 draws must have their distribution.

    Seeded, so it cannot fail by chance; with any seed the odds of missing a tolerance are below 1e-6.
    """
    values = np.array([0.1, 0.5, 0.7, 1.6])
    exact = np.array([np.mean(drawn) for drawn in product(values, repeat=4)])
    drawn = bootstrap_means(values, resamples=40_000, seed=0)
    assert drawn.mean() == pytest.approx(exact.mean(), abs=0.01)
    assert drawn.std() == pytest.approx(exact.std(), abs=0.01)
    for point in (0.4, 0.7, 1.0):
        assert (drawn <= point).mean() == pytest.approx((exact <= point + 1e-12).mean(), abs=0.02)


def test_interval_by_hand() -> None:
    """Two users at 0 and 1: means 0, 1/2, 1 with odds 1/4, 1/2, 1/4: 90 % spans 0..1, 20 % is one point."""
    values = np.array([0.0, 1.0])
    assert mean_interval(values, **SETTINGS) == Interval(0.5, 0.0, 1.0)
    assert mean_interval(values, **SETTINGS | {"confidence": 0.2}) == Interval(0.5, 0.5, 0.5)


def test_chunks_change_no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([0.0, 1.0, 5.0])
    whole = bootstrap_means(values, resamples=3000, seed=1)
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", 7)
    parts = bootstrap_means(values, resamples=3000, seed=1)
    assert parts.shape == whole.shape == (3000,)
    assert parts.mean() == pytest.approx(whole.mean(), abs=0.15)
    assert len(np.unique(parts)) == len(np.unique(whole)) == 10  # multisets of three of three


def test_columns_share_their_draws() -> None:
    values = np.array([[0.0, 0.0], [1.0, 2.0], [5.0, 10.0]])
    drawn = bootstrap_means(values, resamples=50, seed=2)
    assert drawn.shape == (50, 2)
    assert drawn[:, 1] == pytest.approx(2 * drawn[:, 0])


def test_means_are_those_of_the_users_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn again by the same generator, one resample at a time; in chunks of two, the last one short."""
    values = np.random.default_rng(4).normal(size=(5, 3))
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", 10)
    random = np.random.default_rng(9)
    expected = [values[random.integers(0, 5, size=5)].mean(axis=0) for _ in range(7)]
    assert bootstrap_means(values, resamples=7, seed=9) == pytest.approx(np.array(expected), abs=1e-12)


def test_every_column_has_the_interval_that_it_has_alone() -> None:
    """Columns of 6, 1, 9 and 6 users, in no order: those of 6 are drawn together."""
    columns = [np.random.default_rng(place).normal(size=users) for place, users in enumerate((6, 1, 9, 6))]
    together = mean_intervals(columns, **SETTINGS)
    for values, found in zip(columns, together, strict=True):
        alone = mean_interval(values, **SETTINGS)
        assert found.mean == alone.mean == values.mean()
        assert (found.low is None) == (len(values) == 1)
        if found.low is not None:
            assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert together[0] != together[3] and mean_intervals([], **SETTINGS) == []


def test_pairing_removes_what_users_have_in_common() -> None:
    """Users differ by tens, the arms by exactly one: paired, nothing is left to vary."""
    against = np.array([10.0, 40.0, 20.0, 90.0])
    found = mean_interval((against + 1) - against, **SETTINGS)
    assert found == Interval(1.0, 1.0, 1.0)
    alone = mean_interval(against, **SETTINGS)
    assert alone.low is not None and alone.high is not None and alone.high - alone.low > 20


def test_seed_decides_and_one_user_gives_no_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert mean_interval(values, **SETTINGS) == mean_interval(values, **SETTINGS)
    assert mean_interval(values, **SETTINGS) != mean_interval(values, **SETTINGS | {"seed": 4})
    single = mean_interval(np.array([0.25]), **SETTINGS)
    assert single == Interval(0.25, None, None)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """150 samples of 40 normal users at 90 %: about 135 cover; fewer than 115 has odds below 1e-4."""
    random = np.random.default_rng(5)
    found = [mean_interval(random.normal(size=40), resamples=300, confidence=0.9, seed=0) for _ in range(150)]
    covered = sum(i.low <= 0 <= i.high for i in found if i.low is not None and i.high is not None)
    assert 115 <= covered <= 148


def test_few_users_get_intervals_as_wide_as_they_need() -> None:
    """500 samples of 5 normal users at 95 %: plain percentiles hold the truth in 425, these in 457."""
    assert tail_share(5, confidence=0.95) == pytest.approx(0.00096, abs=1e-5)  # t = 2.776, sqrt(5 / 4)
    assert tail_share(10**6, confidence=0.95) == pytest.approx(0.025, abs=1e-5)
    random = np.random.default_rng(6)
    samples = random.normal(size=(500, 5))
    found = [mean_interval(sample, resamples=1000, confidence=0.95, seed=0) for sample in samples]
    covered = sum(i.low <= 0 <= i.high for i in found if i.low is not None and i.high is not None)
    assert 441 <= covered <= 485


def test_auroc_by_hand() -> None:
    """Pairs: 2 over 1, 2 and 2 tied, 3 over 1, 3 over 2: (1 + 1/2 + 1 + 1) / 4."""
    assert auroc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])) == 0.875


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=25))
def test_auroc_against_all_pairs(items: list[tuple[int, bool]]) -> None:
    positives = [score for score, positive in items if positive]
    negatives = [score for score, positive in items if not positive]
    found = auroc(np.array([score for score, _ in items], float), np.array([p for _, p in items], bool))
    if not positives or not negatives:
        assert found is None
        return
    wins = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert found == pytest.approx(np.mean(wins))


def test_average_precision_by_hand() -> None:
    """Positives at 4 (1 of 1) and at 2, tied with a negative (2 of 4): (1 + 1/2) / 2."""
    scores, positive = np.array([4.0, 3.0, 2.0, 2.0, 1.0]), np.array([True, False, True, False, False])
    assert average_precision(scores, positive) == 0.75
    assert average_precision(scores, np.zeros(5, bool)) is None
    assert average_precision(scores, np.ones(5, bool)) is None


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=25))
def test_average_precision_is_that_of_scikit_learn(items: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in items], float)
    positive = np.array([p for _, p in items], bool)
    found = average_precision(scores, positive)
    if found is not None:
        assert found == pytest.approx(average_precision_score(positive, scores))


def test_spearman_by_hand() -> None:
    """Ranks 1 2 3 4 and 1 2 4 3: 1 - 6 (1 + 1) / (4 * 15) = 0.8. Only the order counts."""
    first = np.array([1.0, 10.0, 100.0, 1000.0])
    assert spearman(first, np.array([0.1, 0.2, 0.4, 0.3])) == pytest.approx(0.8)
    assert spearman(first, -(first**3)) == pytest.approx(-1.0)
    assert spearman(first, np.ones(4)) is None
    assert spearman(np.zeros(0), np.zeros(0)) is None


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=20))
def test_spearman_is_that_of_scipy(items: list[tuple[int, int]]) -> None:
    first, second = np.array(items, float).T
    found = spearman(first, second)
    if found is None:
        assert len(set(first)) == 1 or len(set(second)) == 1
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic)


def test_every_pair_of_columns_is_correlated_once() -> None:
    up = np.arange(3.0)
    found = rank_correlations({"a": up, "b": -up, "c": up**2})
    assert found == pytest.approx({"a ~ b": -1.0, "a ~ c": 1.0, "b ~ c": -1.0})


def test_selection_precision() -> None:
    real = np.array([True, False, True, False])
    assert selection_precision(np.array([True, True, True, False]), real) == pytest.approx(2 / 3)
    assert selection_precision(np.zeros(4, bool), real) is None


@pytest.mark.parametrize(("positives", "items"), [(1, 2), (1, 6), (3, 6), (5, 6), (2, 7)])
def test_chance_precision_is_the_mean_over_all_orders(positives: int, items: int) -> None:
    found = []
    for places in combinations(range(items), positives):
        positive = np.isin(np.arange(items), places)
        found.append(average_precision(-np.arange(float(items)), positive))
    assert chance_precision(positives, items) == pytest.approx(np.mean(found))  # type: ignore[arg-type]


def test_detection_by_hand() -> None:
    """Abrupt 3 beats stable 1, noise 0 and 2: 1. Gradual 1 beats 0, ties 1, loses to 2: (1 + 1/2) / 3.

    Noise (0, 2), which is no change itself, against stable 1: one win of two.
    """
    found = detection(
        np.array([3.0, 1.0, 1.0, 0.0, 2.0]),
        selected=np.array([True, False, False, False, True]),
        real=np.array([True, True, False, False, False]),
        kinds=np.array(["abrupt", "gradual", "stable", "noise", "noise"]),
    )
    every = found.pop(EVERY)
    assert {kind: of["auroc"] for kind, of in found.items()} == {"abrupt": 1.0, "gradual": 0.5, "noise": 0.5}
    assert found["abrupt"] == {"auroc": 1.0, "average_precision": 1.0, "chance": pytest.approx(25 / 12 / 4)}
    assert found["gradual"]["average_precision"] == pytest.approx(1 / 3)
    assert every["auroc"] == pytest.approx((3 + 1.5) / 6)
    assert every["chance"] == pytest.approx(0.25 + 0.75 * 137 / 60 / 5)
    assert every["precision"] == 0.5 and every["blind"] == 0.4


def test_detection_where_nothing_changes() -> None:
    """There is nothing to rank, so that no chance goes into its mean; but what was selected was selected."""
    found = detection(
        np.array([1.0, 2.0]),
        selected=np.array([True, False]),
        real=np.array([False, False]),
        kinds=np.array(["stable", "stable"]),
    )
    nothing = dict.fromkeys(("auroc", "average_precision", "chance"))
    assert found == {EVERY: nothing | {"precision": 0.0, "blind": 0.0}}
