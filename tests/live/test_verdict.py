"""Verdicts on new adapters: bounds by hand and by chance, properties of the rule, slices, the fleet."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spring.live.fleet import Share, alarm, fleet, in_words
from spring.live.verdict import Answer, Rules, Slice, Verdict, bounds, judge, means_of_some, worst_slice

RULES = Rules(margin=0.05, least=1, items=16, level=0.1, confirm=2, drift={"base": 0.5, "before": 0.2})
NONE: dict[str, float] = {}
numbers = st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 3))
columns = st.lists(numbers, min_size=1, max_size=8)
margins = st.sampled_from([0.0, 0.05, 0.5])
several = st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=4)  # of each new period
older = st.lists(numbers, max_size=6)
RANK = {"refused": 0, "held": 1, "same": 2, "improved": 3}


def of_new(differences: list[float], rules: Rules = RULES) -> Verdict:
    """The verdict on texts of one new period, with none that is older."""
    return judge([differences], [], NONE, rules)


def ruling(differences: list[float], **changes: Any) -> str:
    return of_new(differences, RULES._replace(**changes)).ruling


def test_means_by_hand() -> None:
    """Of 1, 2, 6: themselves, the pairs 1.5, 3.5 and 4, and all three: 3."""
    assert means_of_some(np.array([6.0, 1.0, 2.0])).tolist() == [1, 1.5, 2, 3, 3.5, 4, 6]


def test_bounds_by_hand() -> None:
    """0.25 of 8 gaps is two: the second mean from either end; 0.1 is none: the outermost, 1/8 beyond each."""
    values = np.array([1.0, 2.0, 6.0])
    assert bounds(values, level=0.25) == (1.5, 4, 0.25)
    assert bounds(values, level=0.1) == (1, 6, 0.125)


@given(columns)
def test_means_against_all_choices(values: list[float]) -> None:
    some = [c for size in range(1, len(values) + 1) for c in itertools.combinations(values, size)]
    expected = sorted(float(np.mean(c)) for c in some)
    np.testing.assert_allclose(means_of_some(np.array(values)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("items", [4, 7])
def test_bounds_hold_the_centre_as_often_as_they_say(items: int) -> None:
    """Symmetric differences of unequal spread, with heavy tails: 4,000 draws, a tenth (1/16) beyond each."""
    random, missed = np.random.default_rng(0), np.zeros(2)
    for _ in range(4000):
        found = bounds(random.standard_t(2, items) * np.arange(1, items + 1), level=0.1)
        missed += [found.low > 0, found.high < 0]
    error = 4 * (found.beyond * (1 - found.beyond) / 4000) ** 0.5
    assert np.abs(missed / 4000 - found.beyond).max() < error
    assert found.beyond == {4: 1 / 16, 7: 12 / 128}[items]


@given(st.integers(1, 16), st.integers(0, 16), margins)
def test_equal_adapters_are_never_held_or_refused(new: int, old: int, margin: float) -> None:
    rules = RULES._replace(margin=margin)
    assert judge([[0.0] * new], [0.0] * old, NONE, rules).ruling == "same"


@given(columns, margins)
def test_worse_everywhere_is_refused_and_better_everywhere_improved(
    values: list[float], margin: float
) -> None:
    beyond = [abs(value) + margin + 1e-6 for value in values]
    assert ruling([-value for value in beyond], margin=margin) == "refused"
    assert ruling(beyond, margin=margin) == "improved"


@given(columns, st.integers(0, 7), st.floats(0, 5), margins, st.sampled_from([0.01, 0.1, 0.4]))
def test_no_ruling_falls_when_a_difference_rises(
    values: list[float], place: int, more: float, margin: float, level: float
) -> None:
    assume(place < len(values))
    raised = [value + more * (i == place) for i, value in enumerate(values)]
    before, after = (ruling(one, margin=margin, level=level) for one in (values, raised))
    assert RANK[before] <= RANK[after]


@given(columns.flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_the_order_of_items_is_irrelevant(both: tuple[list[float], list[float]]) -> None:
    first, second = both
    assert of_new(first) == of_new(second)
    assert judge([], first, NONE, RULES) == judge([], second, NONE, RULES)


@given(columns, margins)
def test_a_wider_margin_decides_less(values: list[float], margin: float) -> None:
    narrow, wide = (ruling(values, margin=m) for m in (margin, margin + 0.3))
    assert wide in (narrow, "same")


def test_one_bad_text_among_many_does_not_refuse() -> None:
    """The mean of -2 and five times 0.1 is -0.25; every choice without the first is above zero."""
    assert ruling([-2, 0.1, 0.1, 0.1, 0.1, 0.1]) == "same"
    found = of_new([-2, 0.1, 0.1, 0.1, 0.1, 0.1]).new
    assert found.difference == pytest.approx(-0.25)
    assert found.bounds is not None and found.bounds.high == pytest.approx(0.1)


def test_few_items() -> None:
    """Of three items 1/8 is beyond either bound, over a tenth: all three must be worse."""
    found = of_new([-0.3, -0.2, -0.06])
    assert found.ruling == "refused" and found.new == Answer(
        3, pytest.approx(-0.56 / 3), (-0.3, -0.06, 1 / 8)
    )
    assert found.old == Answer(0, None, None)
    assert ruling([-3, -2, -0.04]) == "same"
    assert ruling([-3, -2, -1], least=4) == "same"
    nothing = judge([], [], NONE, RULES)
    assert nothing == judge([], [], {"base": 0.5, "before": 0.2}, RULES)
    assert nothing.reason == "0 new texts, fewer than 1: likelihood was not asked"


def test_what_too_few_texts_say_is_said_with_its_chance() -> None:
    """2^-N beyond either bound: of two texts 1/4 is above a level of 0.2, of three 1/8 is not."""
    unsure, sure = (of_new([-0.3] * n, RULES._replace(level=0.2)) for n in (2, 3))
    assert unsure.ruling == sure.ruling == "refused"
    assert sure.reason == "worse on new texts: at most -0.300 nats per token"
    assert unsure.reason == f"{sure.reason} (of 2 texts: by chance with probability up to 0.25, level 0.2)"
    better = of_new([0.3], RULES._replace(level=0.2)).reason
    assert better.endswith(" (of 1 text: by chance with probability up to 0.5, level 0.2)")


def test_only_the_latest_texts_are_asked() -> None:
    """Two of three, those that come first."""
    rules = RULES._replace(items=2)
    assert of_new([0.3, 0.2, -9], rules) == of_new([0.3, 0.2], rules)
    assert judge([[0.3], [0.2, -9]], [0.1, 0.1, -9], NONE, rules).ruling == "improved"


def test_a_change_that_makes_older_texts_worse_waits_for_a_second_period() -> None:
    """Both texts of either period are better: held with one of them, published with both."""
    better, worse = [0.4, 0.3], [-0.2, -0.3, -0.1]
    first = judge([better], worse, NONE, RULES)
    assert first.ruling == "held" and first.old.difference == pytest.approx(-0.2)
    assert first.reason == (
        "worse on older texts: at most -0.100 nats per token (of 3 texts: by chance with probability "
        "up to 0.125, level 0.1), not yet borne out by new texts of 2 periods"
    )
    assert judge([better, better], worse, NONE, RULES).ruling == "improved"
    assert judge([[0.4, 0.0], better], worse, NONE, RULES).ruling == "held"
    assert judge([better], worse, NONE, RULES._replace(confirm=1)).ruling == "improved"
    assert judge([better, better], worse, NONE, RULES._replace(confirm=3)).ruling == "held"
    assert judge([better] * 3, worse, NONE, RULES._replace(confirm=3)).ruling == "improved"


def test_older_texts_that_hold_delay_nothing() -> None:
    assert judge([[0.4, 0.3]], [-0.2, 0.1], NONE, RULES).ruling == "improved"
    assert judge([[0.4, 0.3]], [-0.2], NONE, RULES._replace(least=2)).ruling == "improved", "too few to ask"
    assert judge([[-0.4, -0.3]], [0.2, 0.1], NONE, RULES).ruling == "refused"
    assert judge([], [-0.2], NONE, RULES).ruling == "held"


@given(several, st.integers(0, 3), columns, older, st.sampled_from([0.1, 0.4]))
def test_what_one_period_alone_says_is_never_published(
    others: list[list[float]], place: int, burst: list[float], old: list[float], level: float
) -> None:
    """Older texts are worse, no period but one is better: held or refused, whatever that one says."""
    others = [[min(value, RULES.margin) for value in period] for period in others]
    old = [-abs(value) - 0.06 for value in [*old, 1.0]]
    new = [*others[:place], burst, *others[place:]]
    assert judge(new, old, NONE, RULES._replace(level=level)).ruling in ("held", "refused")


@given(several, older, st.integers(0, 3), st.integers(0, 5), st.floats(0, 5), st.integers(1, 3))
def test_no_ruling_falls_when_a_difference_of_any_slice_rises(
    new: list[list[float]], old: list[float], period: int, place: int, more: float, confirm: int
) -> None:
    rules = RULES._replace(confirm=confirm, level=0.4)
    before = judge(new, old, NONE, rules).ruling
    raised = [value + more * (i == place) for i, value in enumerate(old)]
    assert RANK[before] <= RANK[judge(new, raised, NONE, rules).ruling]
    fresh = [
        [v + more * ((t, i) == (period, place)) for i, v in enumerate(each)] for t, each in enumerate(new)
    ]
    assert RANK[before] <= RANK[judge(fresh, old, NONE, rules).ruling]


@given(several, older, st.integers(1, 2))
def test_asking_for_more_periods_publishes_no_more(
    new: list[list[float]], old: list[float], confirm: int
) -> None:
    fewer, more = (judge(new, old, NONE, RULES._replace(confirm=c)).ruling for c in (confirm, confirm + 1))
    assert more in (fewer, "held")


def test_drift_refuses_whatever_likelihood_says() -> None:
    better = [[0.5] * 6]
    assert judge(better, [], {"base": 0.5, "before": 0.2}, RULES).ruling == "improved"
    found = judge(better, [], {"base": 0.1, "before": 0.21}, RULES)
    assert found.ruling == "refused" and "drifted 0.210 nats per token from before" in found.reason
    assert found.new.difference == pytest.approx(0.5)
    assert judge([], [], {"base": 0.51}, RULES).ruling == "refused"
    assert judge(better, [], {"base": 99.0}, RULES._replace(drift={"base": None})).ruling == "improved"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(bad: float) -> None:
    rules = RULES._replace(least=9, drift={"base": None})
    assert judge([[0.5, bad]], [], NONE, rules).ruling == "refused"
    assert judge([[0.5]], [0.1, bad], NONE, rules).ruling == "refused"
    assert judge([[0.5]], [], {"base": abs(bad)}, rules).ruling == "refused"


def test_the_slice_that_got_worse() -> None:
    """By task: review -0.4, title 0.15; by age: old -0.5 of one item, new 0. One label sets nothing apart."""
    values = [-0.5, -0.3, 0.1, 0.2]
    labels = {"task": ["review", "review", "title", "title"], "age": ["old", "new", "new", "new"]}
    assert worst_slice(values, labels) == Slice("age", "old", 1, -0.5)
    assert worst_slice(values, {"task": labels["task"]}) == Slice("task", "review", 2, -0.4)
    assert worst_slice(values, {"task": ["review"] * 4}) is None
    assert worst_slice([0.1, 0.2], {"task": ["review", "title"]}) is None


def test_the_fleet_by_hand() -> None:
    """Wilson's interval of 1 in 4: z = 1.959964, (1 + 1.920729) / 7.841459 -/+ z sqrt(0.1875 / 4 + ...)."""
    found = fleet(["improved", "same", "refused", "same"])
    counts = {"improved": 1, "same": 2, "held": 0, "refused": 1}
    assert {name: one.count for name, one in found.items()} == counts
    assert found["refused"].interval == pytest.approx((0.0456, 0.6994), abs=1e-4)
    assert in_words(found).startswith("4 judged: 1 improved (25%, 5% to 70%), 2 same (50%, ")
    assert Share(0, 0).interval == (0, 1) and Share(0, 3).interval[0] == 0 and Share(3, 3).interval[1] == 1


def test_held_and_refused_ones_raise_the_alarm_alike() -> None:
    assert alarm(fleet([]), most=0.0) == ""
    assert alarm(fleet(["improved", "same", "held", "refused"]), most=0.5) == ""
    found = alarm(fleet(["same", "held", "refused"]), most=0.5)
    assert found == "ALARM: 2 of 3 updates held or refused, more than 50% (live.gate.alarm)"
