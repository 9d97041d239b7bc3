"""Paired tests and effect sizes: numbers derived by hand, all sign patterns, and simulated experiments."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spring.measures import significance
from spring.measures.significance import (
    cohens_dz,
    differences_of,
    drawn_bits,
    holm,
    permutation_p,
    permutation_ps,
    signs_of,
    t_test_power,
    users_needed,
)


def test_permutation_by_hand() -> None:
    """Sums of +-1, +-2, +-3: 6, 4, 2, 0, 0, -2, -4, -6. Observed 6: two of eight. Observed 4: four."""
    assert permutation_p(np.array([1.0, 2.0, 3.0]), seed=0) == 2 / 8
    assert permutation_p(np.array([-1.0, 2.0, 3.0]), seed=0) == 4 / 8
    assert permutation_p(np.array([0.0, 0.0]), seed=0) == 1.0
    assert permutation_p(np.array([0.3]), seed=0) is None


@given(st.lists(st.integers(-40, 40), min_size=2, max_size=8))
@example([-16, -40, 24, 32])  # sums to nothing but last bits
def test_permutation_against_all_patterns(values: list[int]) -> None:
    """Tenths, whose sums differ in their last bits by order: ties must count as ties."""
    means = [
        abs(sum(s * v for s, v in zip(p, values, strict=True))) for p in product((1, -1), repeat=len(values))
    ]
    expected = np.mean([mean >= abs(sum(values)) for mean in means])
    assert permutation_p(np.array(values) / 10, seed=0) == expected


def test_drawn_patterns_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 users, exact p 0.02; 40,000 draws have a standard error of 0.001."""
    differences = np.random.default_rng(1).normal(0.25, 1, 12)
    exact = permutation_p(differences, seed=0)
    assert exact is not None and 0.01 < exact < 0.2
    monkeypatch.setattr(significance, "EXACT_USERS", 2)
    monkeypatch.setattr(significance, "PATTERNS_AT_ONCE", 12 * 7_000)  # several chunks, the last one short
    drawn = permutation_p(differences, draws=40_000, seed=0)
    assert drawn == pytest.approx(exact, abs=0.006)
    assert drawn == permutation_p(differences, draws=40_000, seed=0)
    assert drawn != permutation_p(differences, draws=40_000, seed=1)
    assert permutation_p(np.full(20, 5.0), draws=999, seed=0) == 1 / 1000  # never 0


def test_signs_of_many_users_are_drawn_as_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test: near the exact p-value, seeded, and no user's sign follows another's."""
    monkeypatch.setattr(significance, "MANY_USERS", 5)
    signs = np.concatenate([signs_of(bits, 13) for bits in drawn_bits(13, draws=40_000, seed=0)])
    assert signs.shape == (40_000, 13) and set(np.unique(signs)) == {-1.0, 1.0}
    together = signs.T @ signs / len(signs)
    assert np.abs(together - np.eye(13)).max() < 0.03 and np.abs(signs.mean(axis=0)).max() < 0.03
    differences = np.random.default_rng(1).normal(0.3, 1, size=13)
    exact = permutation_p(differences, seed=0)
    monkeypatch.setattr(significance, "EXACT_USERS", 12)
    drawn = permutation_p(differences, draws=40_000, seed=0)
    assert exact is not None and drawn is not None and abs(drawn - exact) < 0.01
    assert drawn == permutation_p(differences, draws=40_000, seed=0)


def test_every_column_has_the_p_value_that_it_has_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of 20, 3, 1 and 20 users; those of 20 share patterns, drawn and counted here again."""
    monkeypatch.setattr(significance, "PATTERNS_AT_ONCE", 20 * 30)
    columns = [np.random.default_rng(place).normal(0.4, 1, size) for place, size in enumerate((20, 3, 1, 20))]
    found = permutation_ps(columns, seed=5, draws=100)
    assert found == [permutation_p(values, seed=5, draws=100) for values in columns]
    signs = 2.0 * np.random.default_rng(5).integers(0, 2, size=(100, 20)) - 1
    for place in (0, 3):
        reached = (np.abs(signs @ columns[place]) >= abs(columns[place].sum()) - 1e-9).sum()
        assert 0 < reached < 100 and found[place] == (reached + 1) / 101
    assert found[0] != found[3] and found[2] is None


def test_p_values_of_no_difference_are_uniform() -> None:
    """400 made experiments without an effect: 5 % fall below 0.05; more than 9 % has odds below 1e-3."""
    random = np.random.default_rng(2)
    found = [permutation_p(random.normal(size=10), seed=0) for _ in range(400)]
    assert 0.02 < np.mean([p is not None and p <= 0.05 for p in found]) < 0.09


def test_holm_by_hand() -> None:
    """Ranked 0.01, 0.02, 0.03, 0.3 of four: x4 = 0.04, x3 = 0.06, x2 = 0.06, x1 = 0.3."""
    assert holm([0.3, 0.01, None, 0.03, 0.02]) == pytest.approx([0.3, 0.04, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([None]) == [None] and holm([]) == []


def test_effect_size_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1. Equal differences have no spread, also 0.1 + 0.2 - 0.3."""
    assert cohens_dz(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert cohens_dz(np.array([0.5, 0.5])) is None
    assert cohens_dz(np.array([0.3, 0.1 + 0.2])) is None
    assert cohens_dz(np.array([0.0, 0.0])) is None and cohens_dz(np.array([1.0])) is None


@pytest.mark.parametrize(
    ("effect", "users"), [(1.0, 10), (0.5, 34), (0.2, 199), (0.1, 787), (5.52, 3), (8.0, 3), (100.0, 2)]
)
def test_users_needed_are_those_of_the_tables(effect: float, users: int) -> None:
    """Sample sizes of a two-sided paired t-test, alpha 0.05, power 0.80, as G*Power gives them.

    With 5.52 and 8 standard deviations 2 users have a power of 0.46 and 0.625, by integration.
    """
    differences = np.array([-1.0, 0.0, 1.0])  # standard deviation 1
    assert users_needed(differences, effect=effect, power=0.8, alpha=0.05) == users
    assert users_needed(differences, effect=-effect, power=0.8, alpha=0.05) == users


def test_no_spread_and_no_effect_need_no_number() -> None:
    settings = {"power": 0.8, "alpha": 0.05}
    assert users_needed(np.array([1.0, 1.0]), effect=0.1, **settings) is None
    assert users_needed(np.array([1.0]), effect=0.1, **settings) is None
    assert users_needed(np.array([1.0, 2.0]), effect=0.0, **settings) is None


def test_what_only_rounding_tells_apart_is_equal() -> None:
    """Without that, differences of 1e-16 have a spread, against which any effect is infinite."""
    values, others = np.array([0.3, 0.2, 0.5]), np.array([0.1 + 0.2, 0.2, 0.4])
    assert differences_of(values, others).tolist() == pytest.approx([0, 0, 0.1], abs=1e-12)
    assert differences_of(values, others)[0] == 0
    assert users_needed(np.array([0, 0, 0, 1e-16]), effect=0.01, power=0.8, alpha=0.05) == 2


def test_power_against_simulation() -> None:
    """20,000 made experiments of 12 users at d_z 0.9: the standard error of the share found is 0.003."""
    samples = np.random.default_rng(3).normal(0.9, 1, size=(20_000, 12))
    t = samples.mean(1) / (samples.std(1, ddof=1) / np.sqrt(12))
    assert t_test_power(12, effect=0.9, alpha=0.05) == pytest.approx((np.abs(t) > 2.201).mean(), abs=0.015)
    assert t_test_power(12, effect=0.0, alpha=0.05) == pytest.approx(0.05)
