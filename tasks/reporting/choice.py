"""Which users are shown where all would be too many: by rules, so that a page made again shows the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spring.settings.params import Params
from spring.store.keys import fingerprint

FEW = 100  # users: of more, some are chosen by what they show, and a drawing shows how all of them lie
TICKS = 300  # users that a drawing marks one by one
UP, DOWN, CHANCE = "highest lead", "lowest lead", "by chance"


@dataclass(frozen=True)
class Shown:
    """A user who is shown one by one, why, and their lead; of few users there is no why."""

    user: str
    why: str = ""
    lead: float | None = None


def choose(params: Params, leads: dict[str, float]) -> list[Shown]:
    """Of few users the first by name; of many those with the highest and the lowest lead, and some by chance.

    `report.sample_users` of each. Chance is a digest of seed and name, as fair as a draw and the same always.
    """
    some, users = params.report.sample_users, sorted(leads)
    if len(users) <= FEW:
        return [Shown(user) for user in users[:some]]
    ranked = sorted(users, key=lambda user: (-leads[user], user))
    found = dict.fromkeys(ranked[:some], UP) | dict.fromkeys(ranked[-some:][::-1], DOWN)
    rest = [user for user in users if user not in found]
    drawn = sorted(rest, key=lambda user: fingerprint([params.seed, user], length=64))
    found |= dict.fromkeys(drawn[:some], CHANCE)
    return [Shown(user, why, leads[user]) for user, why in found.items()]


def evenly(values: Sequence[float], most: int = TICKS) -> list[float]:
    """Of more than `most` values those evenly spaced in rank, lowest and highest among them; else all."""
    if len(values) <= most:
        return list(values)
    ranked = sorted(values)
    return [ranked[round(place * (len(ranked) - 1) / (most - 1))] for place in range(most)]


def evenly_said(users: int, most: int = TICKS) -> str:
    """What `evenly` did, for a drawing; empty where all are shown."""
    return "" if users <= most else f"ticks: {most:,} of {users:,} users, evenly spaced in rank"
