"""The seeded benchmark `personas`: users who write product reviews and whose preferences drift in known ways.

Everything about interaction i of user k is a function of (seed, k, i), the drift kinds and the noise share,
so more users or more interactions never change the ones there were. docs/personas.md is the full account.
`python -m spring.data.sources.personas.generate` prints measurements and samples.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random

import polars as pl

from spring.data.rows import INTERACTIONS
from spring.data.sources.personas import profiles as profiles
from spring.data.sources.personas import text as text
from spring.data.sources.personas import voices as voices
from spring.settings.ingest import PersonasSource

EPOCH = 10  # interactions; schedules and labels count in it
START = datetime(2023, 1, 2, tzinfo=UTC)
ABRUPT_FIRST, ABRUPT_EVERY = 24, 30
GRADUAL_FIRST, GRADUAL_SPAN, GRADUAL_EVERY = 20, 20, 50
RECURRING_FIRST, RECURRING_EVERY = 14, 20
TRANSIENT_FIRST, TRANSIENT_SPAN, TRANSIENT_EVERY = 22, 5, 20
NOISE_FIRST, NOISE_EVERY, BURST_SHARE = 20, 20, 0.5
CONTEXT_VERSION = 1000  # styles of passing contexts are numbered from here

SCHEMA = {**INTERACTIONS, "drift": pl.String, "is_drift": pl.Boolean}


def generate(source: PersonasSource, *, seed: int) -> pl.DataFrame:
    """Interactions of `source.users` x `source.interactions` rows, with their labels `drift` and `is_drift`.

    Sorted by user and time. `drift` is stable, abrupt, gradual, recurring, transient or noise; `is_drift` is
    True for a preference that is new to the user, null for one that comes back, False otherwise.
    """
    rows = [row for user in range(source.users) for row in _stream(source, seed, user)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _stream(source: PersonasSource, seed: int, user: int) -> list[tuple[object, ...]]:
    """The rows of one user."""
    kind, shift = kind_of(source, user)
    user_id, day = f"persona-{user:02d}", START + timedelta(days=user % 7)
    rows: list[tuple[object, ...]] = []
    for index in range(source.interactions):
        rng = Random(f"{seed}/{user}/{index}/text")
        clock = Random(f"{seed}/{user}/{index}/time")
        day += timedelta(days=1 + int(clock.expovariate(1 / 6)))
        when = day + timedelta(seconds=clock.randrange(7 * 3600, 23 * 3600))
        noisy = index in noise_indices(kind, shift, index // EPOCH, source.noise_share, f"{seed}/{user}")
        window = window_at(kind, index, shift)
        version = version_at(kind, index, shift, phase=phase_of(seed, user))
        writer = _writer(seed, user, index, version if window is None else CONTEXT_VERSION + window, rng)
        context = None if window is None else voices.CONTEXTS[(user + window) % len(voices.CONTEXTS)]
        query = {
            "PRODUCT": writer.product.name,
            "DESCRIPTION": writer.product.description,
            "RATING": str(writer.rating),
            "SUMMARY": writer.summary(),
        }
        response = writer.review(context)
        response = _noise(response, rng) if noisy else response
        label = _label(kind, shift, index, noisy=noisy, phase=phase_of(seed, user))
        name, asked = f"{user_id}-{index:04d}", json.dumps(query, sort_keys=True)
        rows.append((user_id, name, when, "review", asked, response, float(writer.rating), *label))
    return rows


def _writer(seed: int, user: int, index: int, version: int, rng: Random) -> text.Writer:
    """Who writes interaction `index`, about which product, with how many stars."""
    person, preference = profiles.person(seed, user), profiles.preference(seed, user, version)
    category = rng.choice(preference.categories)
    shelf = list(range(profiles.products_of(category)))
    Random(f"{seed}/{user}/shelf/{category}").shuffle(shelf)
    rating = rng.choices((1, 2, 3, 4, 5), person.star_weights)[0]
    return text.Writer(
        person, preference, profiles.product(seed, category, shelf[index % len(shelf)]), rating, rng
    )


# --- schedule: absolute indices, later for every other round of users ---------------------------------------


def kind_of(source: PersonasSource, user: int) -> tuple[str, int]:
    """The drift kind of a user, round-robin, and by how many interactions its schedule is shifted."""
    if not source.drift:
        return "stable", 0
    return source.drift[user % len(source.drift)], EPOCH * (user // len(source.drift) % 2)


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


# --- labels -------------------------------------------------------------------------------------------------


def _label(kind: str, shift: int, index: int, *, noisy: bool, phase: float) -> tuple[str, bool | None]:
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


# --- noise --------------------------------------------------------------------------------------------------


def _noise(review: str, rng: Random) -> str:
    """What stands in for `review`: boilerplate, gibberish, a pasted notice or a torso, equally often."""
    match rng.choice(("boilerplate", "gibberish", "notice", "truncated")):
        case "boilerplate":
            return " ".join(rng.sample(voices.BOILERPLATE, rng.choice((1, 1, 2))))
        case "gibberish":
            rows = ("asdfghjkl", "qwertyuiop", "zxcvbnm")
            words = (
                "".join(rng.choices(rng.choice(rows), k=rng.randint(3, 9))) for _ in range(rng.randint(4, 12))
            )
            return " ".join(words)
        case "notice":
            code = "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", k=10))
            day = rng.choice(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"))
            return rng.choice(voices.NOTICES).format(code=code, day=day)
    return review[: max(12, int(len(review) * rng.uniform(0.12, 0.35)))].rstrip()


if __name__ == "__main__":
    from spring.data.sources.personas.measures import main

    main()
