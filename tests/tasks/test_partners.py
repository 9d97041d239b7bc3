"""Swapped adapters: always another user's, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.pipeline import run, write_params, write_table

from tasks import adapt, ingest, split
from tasks.steps.partners import swap

ALONE: dict[str, Any] = {"memory": None, "decode": {"lmbda": 0.0}}

users = st.sets(st.text(max_size=3), min_size=2, max_size=9)


@given(users, st.integers(0, 3))
def test_everyone_gets_another_users_adapter_and_each_is_used_once(users: set[str], seed: int) -> None:
    partner = swap(users, seed=seed)
    assert partner.keys() == users and set(partner.values()) == users
    assert all(user != other for user, other in partner.items())
    assert swap(sorted(users), seed=seed) == swap(sorted(users, reverse=True), seed=seed) == partner


@given(users)
def test_a_user_leaving_changes_the_partner_of_one_other(users: set[str]) -> None:
    if len(users) == 2:
        return
    left = sorted(users)[0]
    before, after = swap(users, seed=0), swap(users - {left}, seed=0)
    assert sum(before[user] != after[user] for user in users - {left}) == 1


def test_the_seed_decides() -> None:
    assert len({tuple(sorted(swap("abcdefgh", seed=seed).items())) for seed in range(5)}) == 5


def test_one_user_has_nobody_to_swap_with() -> None:
    with pytest.raises(ValueError, match="at least two users"):
        swap(["only"], seed=0)


STRANGER = {"stranger": {"adapter": "swapped", **ALONE}}, r"arms\.stranger\.adapter: swapped"
CONTRAST = {"fints": {"train": None, "memory": None, "steer": {"method": "fints"}}}, r"arms\.fints\.steer"


@pytest.mark.parametrize(("needing", "named"), [STRANGER, CONTRAST])
@pytest.mark.parametrize("when", ["from the start", "later"])
def test_one_user_is_refused_at_the_first_stage_that_sees_the_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, needing: dict[str, Any], named: str
) -> None:
    """`split` is not run again if arms change; then the stage that trains them refuses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    write_table(tmp_path / "table.csv", users=1, items=18)
    arms = {"base": {"train": None, "memory": None}, **needing}
    write_params(tmp_path, tmp_path, arms=arms if when == "from the start" else {"base": arms["base"]})
    run(ingest, monkeypatch)
    told = rf"{named} needs at least two users, .* there is 1 \(user 0\)"
    if when == "from the start":
        with pytest.raises(ValueError, match=told):
            run(split, monkeypatch)
        return
    run(split, monkeypatch)
    write_params(tmp_path, tmp_path, arms=arms)
    with pytest.raises(ValueError, match=told):
        run(adapt, monkeypatch, 0)
