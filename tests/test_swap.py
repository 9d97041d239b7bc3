"""Swapped adapters: always another user's, each once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spring.swap import swap

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
