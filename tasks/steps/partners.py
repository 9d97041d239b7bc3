"""Whose adapter a user answers with in the control `adapter: swapped` [ours].

What is gained with a stranger's adapter is the task, not the person.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from spring.settings.arm import Arm
from spring.store.keys import fingerprint


def swap(users: Collection[str], *, seed: int) -> dict[str, str]:
    """For every user another one: a seeded derangement, each adapter used once.

    Users stand in a circle in the order of their fingerprints and take the next one's adapter, so that a new
    user changes the partner of one other user only. `ValueError` for a single user.
    """
    circle = sorted(users, key=lambda user: fingerprint([seed, user], length=64))
    if len(circle) < 2:
        raise ValueError(f"adapter: swapped needs at least two users to swap between; there is {circle}")
    return dict(zip(circle, circle[1:] + circle[:1], strict=True))


def check_partners(arms: Mapping[str, Arm], users: Collection[str]) -> None:
    """Raises `ValueError` if an arm needs another user, to swap with or for contrast."""
    needing = [f"arms.{name}.adapter: swapped" for name, arm in arms.items() if arm.adapter == "swapped"]
    needing += [f"arms.{name}.steer" for name, arm in arms.items() if arm.steer is not None]
    if needing and len(users) < 2:
        raise ValueError(
            f"{', '.join(needing)} needs at least two users, whose adapters are swapped or whose texts "
            f"contrast; there is {len(users)} ({', '.join(users)}): raise ingest.max_users or lower "
            f"ingest.min_interactions if the source has more, or leave these arms out"
        )
