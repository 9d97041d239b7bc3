"""Shared lessons: who is pooled with whom, in which order, and up to which date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from spring.settings.params import parse
from spring.settings.train import Train
from tasks.steps.population import Case, foundations, pool

ROOT = Path(__file__).parents[2]
START = datetime(2024, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def recipe(**changes: Any) -> Train:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    train = parse(tree).arms["spring"].train
    assert train is not None
    return train.model_copy(update=changes)


def case(user: str, how: Train, *, days: list[int], past: list[int] = ()) -> Case:  # type: ignore[assignment]
    def row(number: int) -> dict[str, Any]:
        return {"user_id": user, "interaction_id": f"{user}{number}", "timestamp": day(number)}

    rows = [row(number) for number in days]
    return Case(how.recipe, user, how, rows, [row(number) for number in past], [], None, chosen=rows)


def names(case: Case) -> list[str]:
    return [row["interaction_id"] for row in case.chosen]


def test_own_lessons_stay_apart_and_shared_ones_become_one() -> None:
    own, shared = recipe(), recipe(scope="population", data="current")
    cases = [case(user, how, days=[1, 2]) for how in (own, shared) for user in ("b", "a")]
    made = pool(cases, until=day(9), learned_until={})
    assert [(one.recipe, one.user) for one in made] == [
        (own.recipe, "b"),
        (own.recipe, "a"),
        (shared.recipe, None),
    ]
    assert {row["user_id"] for row in made[0].chosen} == {"b"}
    assert names(made[2]) == ["a1", "b1", "a2", "b2"]  # by time, whatever the order of users


def test_a_shared_lesson_took_what_all_its_users_took() -> None:
    how = recipe(scope="population-transductive")
    cases = [case(user, how, days=[1]) for user in ("a", "b", "c")]
    for one in cases:
        one.seconds_score = 10.0
    assert pool(cases, until=day(9), learned_until={})[0].seconds_score == 30.0


def test_nothing_later_than_any_test_query_is_shared_unless_the_arm_says_so() -> None:
    """The first test query of any user is on day 5: what is dated later waits."""
    for scope, expected in (("population", ["a1", "b5"]), ("population-transductive", ["a1", "b5", "b6"])):
        how = recipe(scope=scope, data="current")
        made = pool([case("a", how, days=[1]), case("b", how, days=[5, 6])], until=day(5), learned_until={})
        assert names(made[0]) == expected
        assert made[0].until == day(5)


def test_what_was_too_late_is_learned_in_a_later_period_once() -> None:
    """Until day 5 the adapter learned b5 but not b6, which comes with the period until day 12."""
    how = recipe(scope="population", data="current")
    cases = [case("a", how, days=[8], past=[1]), case("b", how, days=[11, 13], past=[5, 6])]
    made = pool(cases, until=day(12), learned_until={how.recipe: day(5)})
    assert names(made[0]) == ["b6", "a8", "b11"]


def test_a_foundation_is_a_population_recipe_and_is_shared() -> None:
    """It is trained once for both, whichever asks first; an arm that starts alone asks for none."""
    on_top = recipe(start="population")
    population = recipe(scope="population", data="current")
    cases = [case(user, how, days=[1]) for how in (on_top, recipe()) for user in ("a", "b")]
    made = foundations(cases)
    assert [(one.recipe, one.user) for one in made] == [(population.recipe, "a"), (population.recipe, "b")]
    assert on_top.foundation == population
    slower = recipe(start="population", lr=0.1, shared_lr=0.01)
    assert slower.lr == 0.1 and slower.foundation == recipe(scope="population", data="current", lr=0.01)
