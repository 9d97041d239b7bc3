"""Which profiles are of one user, where users have no names."""

from __future__ import annotations

from collections import Counter, defaultdict
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

    having: dict[str, list[int]] = defaultdict(list)  # item -> the profiles before that have it
    for place, items in enumerate(sets):
        common = Counter(other for item in items for other in having[item])
        for other, count in common.items():
            if count > SHARED * (len(items) + len(sets[other]) - count):
                first, second = sorted((find(place), find(other)))
                leader[second] = first
        for item in items:
            having[item].append(place)
    users: dict[int, list[int]] = defaultdict(list)
    for place in range(len(sets)):
        users[find(place)].append(place)
    return list(users.values())
