"""When the preferences of personas drift, when they write noise, and what is labelled as which.

Indices are absolute, from 0, and lie later for every other round of users: docs/personas.md has the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

EPOCH = 10  # interactions; schedules and labels count in it
ABRUPT_FIRST, ABRUPT_EVERY = 24, 30
GRADUAL_FIRST, GRADUAL_SPAN, GRADUAL_EVERY = 20, 20, 50
RECURRING_FIRST, RECURRING_EVERY = 14, 20
TRANSIENT_FIRST, TRANSIENT_SPAN, TRANSIENT_EVERY = 22, 5, 20
NOISE_FIRST, NOISE_EVERY, BURST_SHARE = 20, 20, 0.5


def kind_of(drift: Sequence[str], user: int) -> tuple[str, int]:
    """The drift kind of a user, round-robin, and by how many interactions its schedule is shifted."""
    if not drift:
        return "stable", 0
    return drift[user % len(drift)], EPOCH * (user // len(drift) % 2)


def version_at(kind: str, index: int, shift: int, *, phase: float) -> int:
    """Which version of the user's preference holds at `index`, passing contexts aside."""
    if kind == "abrupt":
        return max(0, (index - shift - ABRUPT_FIRST) // ABRUPT_EVERY + 1)
    if kind == "recurring":
        return max(0, (index - shift - RECURRING_FIRST) // RECURRING_EVERY + 1) % 2
    if kind == "gradual":
        turn, place = divmod(index - shift - GRADUAL_FIRST, GRADUAL_EVERY)
        return 0 if turn < 0 else turn + _risen(place, phase)
    return 0


def _risen(place: int, phase: float) -> bool:
    """Spreads the new style over the span so that its running count is (place + 1)^2 / (2 span), rounded."""
    if place >= GRADUAL_SPAN:
        return True

    def count(places: int) -> int:
        return int(places**2 / (2 * GRADUAL_SPAN) + phase)

    return count(place + 1) > count(place)


def window_at(kind: str, index: int, shift: int) -> int | None:
    """The number of the passing context that `index` falls into, if any."""
    turn, place = divmod(index - shift - TRANSIENT_FIRST, TRANSIENT_EVERY)
    return turn if kind == "transient" and turn >= 0 and place < TRANSIENT_SPAN else None


def noise_indices(kind: str, shift: int, epoch: int, share: float, key: str) -> frozenset[int]:
    """Which interactions of an epoch are noise: share x 10 of them, the epoch's last one only if all are."""
    turn, place = divmod(epoch * EPOCH - shift - NOISE_FIRST, NOISE_EVERY)
    if kind == "noise" and turn >= 0 and place < EPOCH:
        share = max(share, BURST_SHARE)
    rng = Random(f"{key}/noise/{epoch}")
    count = int(share * EPOCH + rng.random())
    order = [*rng.sample(range(EPOCH - 1), EPOCH - 1), EPOCH - 1]
    return frozenset(epoch * EPOCH + place for place in order[:count])


def phase_of(seed: int, user: int) -> float:
    """Where in 0..1 the rounding of a user's gradual change starts."""
    return Random(f"{seed}/{user}/phase").random()


def label(kind: str, shift: int, index: int, *, noisy: bool, phase: float) -> tuple[str, bool | None]:
    """(drift, is_drift) of one interaction; the rule is in docs/personas.md."""
    if noisy:
        return "noise", False
    if window_at(kind, index, shift) is not None:
        return "transient", False
    version = version_at(kind, index, shift, phase=phase)

    def held(epoch: int) -> bool:
        """Whether this version made up at least half of an epoch."""
        span = range(epoch * EPOCH, (epoch + 1) * EPOCH)
        return 2 * sum(version_at(kind, i, shift, phase=phase) == version for i in span) >= EPOCH

    epoch = index // EPOCH
    if epoch == 0 or held(epoch - 1):
        return "stable", False
    return kind, None if any(held(earlier) for earlier in range(epoch)) else True
