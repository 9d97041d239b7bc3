"""Whose adapter a user answers with in the control `adapter: swapped` [ours].

What an adapter gains with a stranger's adapter in its place is the task, not the person.
"""

from __future__ import annotations

from collections.abc import Collection

from spring.strict import fingerprint


def swap(users: Collection[str], *, seed: int) -> dict[str, str]:
    """For every user another one: a seeded derangement, each adapter used once.

    Users stand in a circle in the order of their fingerprints and take the next one's adapter, so that a new
    user changes the partner of one other user only. `ValueError` for a single user.
    """
    circle = sorted(users, key=lambda user: fingerprint([seed, user], length=64))
    if len(circle) < 2:
        raise ValueError(f"adapter: swapped needs at least two users to swap between; there is {circle}")
    return dict(zip(circle, circle[1:] + circle[:1], strict=True))
