"""Which users a page shows of many: by hand, and the same whatever order they come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from spring.settings.params import Params
from tasks.params import load_params
from tasks.reporting import choice
from tasks.reporting.choice import CHANCE, DOWN, UP, Shown, choose, evenly, evenly_said

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params() -> Params:
    """The project's, two users of each kind to be shown."""
    found = load_params(ROOT / "params.yaml")
    return found.model_copy(update={"report": found.report.model_copy(update={"sample_users": 2})})


def test_of_few_users_the_first_by_name(params: Params) -> None:
    leads = {f"u{place:03}": float(place) for place in reversed(range(choice.FEW))}
    assert choose(params, leads) == [Shown("u000"), Shown("u001")]


def test_of_many_those_at_the_ends_and_some_by_chance(params: Params) -> None:
    """101 users whose lead is their number: 100 and 99 lead most, 0 and 1 least; no one is shown twice."""
    leads = {f"u{place:03}": float(place) for place in range(choice.FEW + 1)}
    shown = choose(params, leads)
    assert shown[:4] == [
        Shown("u100", UP, 100.0),
        Shown("u099", UP, 99.0),
        Shown("u000", DOWN, 0.0),
        Shown("u001", DOWN, 1.0),
    ]
    assert [one.why for one in shown[4:]] == [CHANCE, CHANCE] and len({one.user for one in shown}) == 6
    assert choose(params, dict(sorted(leads.items(), reverse=True))) == shown
    other = choose(params.model_copy(update={"seed": 1}), leads)
    assert other[:4] == shown[:4] and other[4:] != shown[4:]


def test_one_user_more_changes_at_most_one_drawn_by_chance(params: Params) -> None:
    leads = {f"u{place:03}": 0.5 for place in range(150)} | {"a": 2.0, "b": 1.0, "y": -1.0, "z": -2.0}
    before = {one.user for one in choose(params, leads) if one.why == CHANCE}
    for place in range(20):
        after = {one.user for one in choose(params, leads | {f"v{place}": 0.5}) if one.why == CHANCE}
        assert len(after - before) <= 1


def test_even_spacing_by_hand() -> None:
    """Ranks 0, 3, 6, 9 of ten; of no more than asked for all, as they come."""
    values = [9.0, 0.0, 8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0]
    assert evenly(values, 4) == [0.0, 3.0, 6.0, 9.0]
    assert evenly(values, 10) == values
    assert (
        evenly_said(10, 10) == ""
        and evenly_said(1234, 10) == "ticks: 10 of 1,234 users, evenly spaced in rank"
    )
