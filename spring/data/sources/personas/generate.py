"""The seeded benchmark `personas`: users who write product reviews and whose preferences drift in known ways.

Everything about interaction i of user k is a function of (seed, k, i), the drift kinds and the noise share,
so more users or more interactions never change the ones there were. docs/personas.md is the full account.
`python -m spring.data.sources.personas` prints measurements and samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal

import polars as pl

from spring.data.rows import INTERACTIONS
from spring.data.sources.personas import profiles, voices
from spring.data.sources.personas.schedule import (
    EPOCH,
    kind_of,
    label,
    noise_indices,
    phase_of,
    version_at,
    window_at,
)
from spring.data.sources.personas.writer import Writer
from spring.engine.strict import PositiveInt, Share, Strict

START = datetime(2023, 1, 2, tzinfo=UTC)
AT_ONCE = 500  # users of a part
CONTEXT_VERSION = 1000  # styles of passing contexts are numbered from here

SCHEMA = {**INTERACTIONS, "drift": pl.String, "is_drift": pl.Boolean}
TASK = "review"


class PersonasSource(Strict):
    """Seeded users whose writing preferences drift in known ways."""

    users: PositiveInt
    interactions: PositiveInt  # per user
    drift: tuple[Literal["abrupt", "gradual", "recurring", "transient", "noise"], ...]
    noise_share: Share  # share of a user's interactions that are boilerplate or gibberish


def generate(source: PersonasSource, *, seed: int) -> pl.DataFrame:
    """Interactions of `source.users` x `source.interactions` rows, with their labels `drift` and `is_drift`.

    Users in order of their numbers, each one's rows by time. `drift` is stable, abrupt, gradual, recurring,
    transient or noise; `is_drift` is True for a preference that is new to the user, null for one that comes
    back, False otherwise.
    """
    return pl.concat(parts(source, seed=seed))


def parts(source: PersonasSource, *, seed: int) -> Iterator[pl.DataFrame]:
    """The same, some users at a time."""
    for first in range(0, source.users, AT_ONCE):
        some = range(first, min(first + AT_ONCE, source.users))
        rows = [row for user in some for row in _stream(source, seed, user)]
        yield pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _stream(source: PersonasSource, seed: int, user: int) -> list[tuple[object, ...]]:
    """The rows of one user."""
    kind, shift = kind_of(source.drift, user)
    user_id, day = f"persona-{user:02d}", START + timedelta(days=user % 7)
    phase, noise = phase_of(seed, user), frozenset[int]()
    rows: list[tuple[object, ...]] = []
    for index in range(source.interactions):
        rng = Random(f"{seed}/{user}/{index}/text")
        clock = Random(f"{seed}/{user}/{index}/time")
        day += timedelta(days=1 + int(clock.expovariate(1 / 6)))
        when = day + timedelta(seconds=clock.randrange(7 * 3600, 23 * 3600))
        if index % EPOCH == 0:
            noise = noise_indices(kind, shift, index // EPOCH, source.noise_share, f"{seed}/{user}")
        noisy = index in noise
        window = window_at(kind, index, shift)
        version = version_at(kind, index, shift, phase=phase)
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
        told = label(kind, shift, index, noisy=noisy, phase=phase)
        name, asked = f"{user_id}-{index:04d}", json.dumps(query, sort_keys=True)
        rows.append((user_id, name, when, TASK, asked, response, float(writer.rating), *told))
    return rows


def _writer(seed: int, user: int, index: int, version: int, rng: Random) -> Writer:
    """Who writes interaction `index`, about which product, with how many stars."""
    person, preference = profiles.person(seed, user), profiles.preference(seed, user, version)
    category = rng.choice(preference.categories)
    shelf = profiles.shelf(seed, user, category)
    rating = rng.choices((1, 2, 3, 4, 5), person.star_weights)[0]
    return Writer(
        person, preference, profiles.product(seed, category, shelf[index % len(shelf)]), rating, rng
    )


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
