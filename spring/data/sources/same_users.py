"""Which profiles are of one user, where users have no names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

SHARED = 0.5  # of all items of two profiles, more than which makes them one user's [ours]


def find_users(profiles: Sequence[Sequence[str]]) -> list[list[int]]:
    """Places of the profiles of each user, users and places in the order of the profiles.

    Two profiles that have more than `SHARED` of all their items in common are of one user, and so through
    chains. Of all their items, not of the smaller profile's: of those who write together, one may have
    written everything with the other.
    """
    sets = [frozenset(profile) for profile in profiles]
    leader = list(range(len(sets)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = place = leader[leader[place]]
        return place

    latest: dict[str, int] = {}  # item -> the last profile that has it
    for place, items in enumerate(sets):
        for other in sorted({latest[item] for item in items if item in latest}):
            common = len(items & sets[other])
            if common > SHARED * (len(items) + len(sets[other]) - common):
                first, second = sorted((find(place), find(other)))
                leader[second] = first
        latest |= dict.fromkeys(items, place)
    users: dict[int, list[int]] = defaultdict(list)
    for place in range(len(sets)):
        users[find(place)].append(place)
    return list(users.values())
