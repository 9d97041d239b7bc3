"""Who the personas are, how they like to write, and the catalogue of products they write about.

A `Person` keeps facts and temper for life; a `Preference` is one version of how that person writes and about
what. Preferences drift, persons do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from spring.data.sources.personas import bank, catalogue, voices

PRODUCTS_PER_TYPE = 10
# How much is kept of what is asked for again and again: of all users, and of the one at hand
LASTING, OWN = 4096, 64


@dataclass(frozen=True)
class Feature:
    """One property of a product: how a description and a review call it, and how it is judged."""

    phrase: str
    mention: str
    plural: bool
    aspect: str

    def slots(self) -> dict[str, str]:
        """Words that agree with the feature in number."""
        words = ("are", "have", "them", "their") if self.plural else ("is", "has", "it", "its")
        return {"F": self.mention, **dict(zip(("is", "has", "it", "its"), words, strict=True))}


@dataclass(frozen=True)
class Product:
    """An entry of the catalogue."""

    name: str
    head: str
    brand: str
    category: str
    features: tuple[Feature, ...]
    description: str


@dataclass(frozen=True)
class Person:
    """What does not drift about a user."""

    name: str
    town: str
    companion: str
    units: str
    star_weights: tuple[int, ...]


@dataclass(frozen=True)
class Preference:
    """One version of a user's habits: structure, tone, length, vocabulary and topics."""

    key: str  # seeds the favourites
    structure: str
    tone: str
    length: str
    punctuation: str
    spelling: str
    sign_off: str
    catchphrase: str
    intensifier: str
    good: str
    bad: str
    categories: tuple[str, str]
    care: tuple[str, ...]  # aspects, dearest first


@lru_cache(maxsize=LASTING)
def product(seed: int, category: str, number: int) -> Product:
    """Entry `number` (0 .. 4 types x 10 - 1) of a category."""
    rng = Random(f"{seed}/product/{category}/{number}")
    types = list(catalogue.CATALOGUE[category].items())
    full_name, features = types[number % len(types)]
    name, head = full_name.split("|")
    brand = _order(seed, f"brands/{category}", catalogue.BRANDS)[number % len(catalogue.BRANDS)]
    model = catalogue.MODELS[(7 * number + number // len(catalogue.BRANDS)) % len(catalogue.MODELS)]
    shown = tuple(_feature(rng, line) for line in rng.sample(features, 3))
    phrases = [feature.phrase for feature in shown]
    description = f"{name.capitalize()} with {phrases[0]}, {phrases[1]} and {phrases[2]}."
    return Product(f"{brand} {model} {name}", head, brand, category, shown, description)


def products_of(category: str) -> int:
    """How many entries a category has."""
    return len(catalogue.CATALOGUE[category]) * PRODUCTS_PER_TYPE


@lru_cache(maxsize=OWN)
def person(seed: int, user: int) -> Person:
    """The lasting facts of a user."""

    def turn(name: str, values: tuple[str, ...]) -> str:
        return _order(seed, name, values)[user % len(values)]

    weights = voices.GENEROSITY[turn("generosity", tuple(voices.GENEROSITY))]
    units = turn("units", voices.UNITS)
    names = turn("names", voices.NAMES), turn("towns", voices.TOWNS), turn("companions", voices.COMPANIONS)
    return Person(*names, units=units, star_weights=weights)


@lru_cache(maxsize=OWN)
def preference(seed: int, user: int, version: int) -> Preference:
    """Version `version` of a user's habits; versions in a row differ in every habit and one of two topics."""

    def turn(name: str, values: tuple[str, ...]) -> str:
        step = _step(seed, name, len(values))
        return _order(seed, name, values)[(user + version * step) % len(values)]

    topics = _order(seed, f"topics/{user}", tuple(catalogue.CATALOGUE))
    key = f"{seed}/{user}/{version}"
    return Preference(
        key=key,
        structure=turn("structure", tuple(voices.STRUCTURES)),
        tone=turn("tone", tuple(voices.TONES)),
        length=turn("length", tuple(voices.LENGTHS)),
        punctuation=turn("punctuation", tuple(voices.PUNCTUATION)),
        spelling=turn("spelling", voices.SPELLING),
        sign_off=turn("sign-off", voices.SIGN_OFFS),
        catchphrase=turn("catchphrase", voices.CATCHPHRASES),
        intensifier=turn("intensifier", voices.INTENSIFIERS),
        good=turn("good", voices.GOOD_WORDS),
        bad=turn("bad", voices.BAD_WORDS),
        categories=(topics[version % len(topics)], topics[(version + 1) % len(topics)]),
        care=_order(seed, f"care/{user}/{version}", tuple(bank.ASPECTS)),
    )


@lru_cache(maxsize=OWN)
def shelf(seed: int, user: int, category: str) -> list[int]:
    """The entries of a category in the order in which a user comes by them."""
    entries = list(range(products_of(category)))
    Random(f"{seed}/{user}/shelf/{category}").shuffle(entries)
    return entries


@lru_cache(maxsize=OWN)
def favourites(key: str, options: tuple[str, ...]) -> list[str]:
    """The half of a bank that a preference, named by its key, favours."""
    return Random(f"{key}/{options[0]}").sample(options, (len(options) + 1) // 2)


@lru_cache(maxsize=LASTING)
def _order(seed: int, name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """A seeded permutation; the same for every user unless the name says which."""
    return tuple(Random(f"{seed}/order/{name}").sample(values, len(values)))


@lru_cache(maxsize=LASTING)
def _step(seed: int, name: str, values: int) -> int:
    """How far a new version moves in a permutation."""
    return Random(f"{seed}/step/{name}").randrange(1, values)


def _feature(rng: Random, line: str) -> Feature:
    phrase, mention, aspect = (part.strip() for part in line.split(" / "))
    phrase = re.sub(r"\[([^\]]+)\]", lambda m: rng.choice(m[1].split("|")), phrase)
    return Feature(phrase, mention.rstrip("+"), mention.endswith("+"), aspect)
