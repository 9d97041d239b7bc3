"""The projection's parts by hand: lines, the driver's queue, a period."""

from __future__ import annotations

import pytest

from bench.projection.check import Row, table
from bench.projection.measured import line
from bench.projection.paper import REVIEWS
from bench.projection.period import WEIGHTS, Rates, one_period, stages
from bench.projection.schedule import Driver, makespan

NOTHING = Driver(0.0, 0.0)
SHARE = {"score": 0.8, "train": 0.5, "generate": 0.5}


def test_a_line_goes_through_both_sizes() -> None:
    """11 s for 1,000 and 31 for 3,000 users: a second, and 10 ms for each; 10,000 are held out."""
    found = line({"1000": 11.0, "3000": 31.0, "10000": 7.0})
    assert (found.fixed, found.each) == pytest.approx((1.0, 0.01))
    assert found.at(10_000) == pytest.approx(101)


def test_a_line_is_as_far_off_small_values_as_off_large_ones_in_parts_of_each() -> None:
    """A tenth too much at one end: what it says for both is between the lines without and with that tenth."""
    exact, found = line({"0": 1.0, "1000": 2.0, "3000": 4.0}), line({"0": 1.1, "1000": 2.0, "3000": 4.4})
    for users, low, high in ((0, 1.0, 1.1), (3000, 4.0, 4.4)):
        assert exact.at(users) == pytest.approx(low) and low < found.at(users) < high
    points = {0: 1.1, 1000: 2.0, 3000: 4.4}
    errors = {users: (found.at(users) - value) / value for users, value in points.items()}
    assert sum(errors[users] / value for users, value in points.items()) == pytest.approx(0)
    assert sum(errors[users] / value * users for users, value in points.items()) == pytest.approx(0, abs=1e-9)


def test_the_longest_chunk_goes_out_first() -> None:
    """3 and 2 to the two workers, 2 to the second at 2, 1 to the first at 3: all is done at 4."""
    assert makespan([1, 2, 3, 2], 2, NOTHING) == 4
    assert makespan([1, 2, 3, 2], 2, NOTHING, start=10) == 14
    assert makespan([1, 2, 3, 2], 1, NOTHING) == 8
    assert makespan([1, 2, 3, 2], 99, NOTHING) == 3


def test_many_workers_wait_for_the_driver() -> None:
    """5 tasks without work, 2 s each and 1 s for every segment before: 2 + 3 + 4 + 5 + 6."""
    driver = Driver(2.0, 1.0)
    assert makespan([0.0] * 5, 3, driver) == driver.all(5) == 20
    assert makespan([100.0, 0.0], 2, driver) == 102


def test_more_workers_take_less_time_until_the_driver_binds() -> None:
    lines = {stage.name: line({"1000": 1.9, "3000": 3.9}) for stage in stages(REVIEWS, SHARE)}
    known = Rates(Driver(0.01, 0.0), lines, SHARE)
    one, ten, many = (one_period(20_000, workers, known) for workers in (1, 10, 1000))
    assert one.all_hours > 5 * ten.all_hours
    assert all(many.hours[stage] >= many.driven[stage] for stage in many.hours)
    assert ten.dollars > one.dollars / 2 and ten.stored == one.stored
    assert ten.moved - one.moved == pytest.approx(9 * 4 * WEIGHTS)


def test_what_is_over_the_bound_is_marked() -> None:
    lines = table([Row("near", 1.1, 1.0), Row("far", 1.2, 1.0)]).splitlines()
    assert "over" not in lines[2] and lines[3].endswith("+20% **over** |")
