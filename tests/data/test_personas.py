"""The benchmark `personas`: exact reproduction, the labels' schedule, and text that fits its query."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from random import Random
from typing import Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spring.data.sources.personas import profiles
from spring.data.sources.personas.bank import ASPECTS, NOTHING_BAD
from spring.data.sources.personas.catalogue import CATALOGUE
from spring.data.sources.personas.generate import SCHEMA, PersonasSource, generate
from spring.data.sources.personas.measures import near_duplicates, separability, texture
from spring.data.sources.personas.schedule import version_at
from spring.data.sources.personas.voices import CONTEXTS
from spring.data.sources.personas.writer import Writer

Kind = Literal["abrupt", "gradual", "recurring", "transient", "noise"]
KINDS: tuple[Kind, ...] = ("abrupt", "gradual", "recurring", "transient", "noise")
FULL = PersonasSource(users=10, interactions=60, drift=KINDS, noise_share=0.1)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return generate(FULL, seed=0)


def only(kind: Kind, *, interactions: int, noise_share: float = 0.0, users: int = 1) -> PersonasSource:
    return PersonasSource(
        users=users,
        interactions=interactions,
        drift=(kind,),
        noise_share=noise_share,
    )


def labels(kind: Kind, interactions: int = 60, seed: int = 0) -> list[tuple[str, bool | None]]:
    return generate(only(kind, interactions=interactions), seed=seed).select("drift", "is_drift").rows()


def where(rows: list[tuple[str, bool | None]], label: tuple[str, bool | None]) -> list[int]:
    return [index for index, row in enumerate(rows) if row == label]


# --- reproduction -------------------------------------------------------------------------------------------


def test_the_seed_decides_everything(frame: pl.DataFrame) -> None:
    assert frame.equals(generate(FULL, seed=0))
    other = generate(FULL, seed=1)
    assert sum((frame["response"] != other["response"]).to_list()) > 0.95 * len(frame)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    users=st.integers(1, 7),
    interactions=st.integers(1, 25),
    more=st.tuples(st.integers(0, 3), st.integers(0, 12)),
    noise_share=st.floats(0, 1),
)
def test_growing_changes_nothing_there_was(
    seed: int, users: int, interactions: int, more: tuple[int, int], noise_share: float
) -> None:
    small = PersonasSource(users=users, interactions=interactions, drift=KINDS, noise_share=noise_share)
    large = small.model_copy(update={"users": users + more[0], "interactions": interactions + more[1]})
    before, after = generate(small, seed=seed), generate(large, seed=seed)
    assert after.filter(pl.col("interaction_id").is_in(before["interaction_id"].implode())).equals(before)


def test_table_is_canonical(frame: pl.DataFrame) -> None:
    assert dict(frame.schema) == SCHEMA
    assert len(frame) == 600 and frame["interaction_id"].n_unique() == 600
    assert frame["interaction_id"][61] == "persona-01-0001"
    assert frame.drop("is_drift").null_count().sum_horizontal().item() == 0
    assert frame.equals(frame.sort("user_id", "timestamp", maintain_order=True))
    for stream in frame.partition_by("user_id"):
        assert stream["timestamp"].is_sorted() and stream["timestamp"].dt.date().n_unique() == 60
    assert frame["rating"].is_in([1.0, 2.0, 3.0, 4.0, 5.0]).all()


# --- labels: positions as docs/personas.md gives them, worked out by hand -----------------------------------


def test_abrupt_labels() -> None:
    """Changes at 24 and 54; new until the epoch ends, since 6 of its 10 are in the new style."""
    rows = labels("abrupt", 70)
    assert where(rows, ("abrupt", True)) == [*range(24, 30), *range(54, 60)]
    assert len(where(rows, ("stable", False))) == 70 - 12


def test_recurring_labels() -> None:
    """B is new in 14-19; A comes back at 34, B at 54: known, yet not what the epoch before held."""
    rows = labels("recurring", 70)
    assert where(rows, ("recurring", True)) == [*range(14, 20)]
    assert where(rows, ("recurring", None)) == [*range(34, 40), *range(54, 60)]
    assert len(where(rows, ("stable", False))) == 70 - 18


@pytest.mark.parametrize("seed", range(8))
def test_gradual_labels(seed: int) -> None:
    """A quarter of 20-29, three quarters of 30-39, all from 40: ten new items."""
    rows = labels("gradual", 70, seed)
    new = where(rows, ("gradual", True))
    assert set(new) <= set(range(20, 40)) and len(new) == 10
    assert sum(index < 30 for index in new) in (2, 3)
    assert len(where(rows, ("stable", False))) == 70 - 10
    assert {version_at("gradual", index, 0, phase=0.0) for index in range(40, 70)} == {1}


def test_transient_labels() -> None:
    """Windows of five in 22-26 and 42-46, opened by their context and never to be learned."""
    rows = generate(only("transient", interactions=60), seed=0)
    windows = where(rows.select("drift", "is_drift").rows(), ("transient", False))
    assert windows == [*range(22, 27), *range(42, 47)]
    opened = [index for index, text in enumerate(rows["response"]) if text.startswith(CONTEXTS)]
    assert opened == windows


@pytest.mark.parametrize("kind", ["abrupt", "recurring", "transient"])
def test_the_second_round_of_users_drifts_one_epoch_later(kind: Kind) -> None:
    rows = generate(only(kind, interactions=50, users=2), seed=0)
    first, second = (user["drift"].to_list() for user in rows.partition_by("user_id", maintain_order=True))
    assert "stable" in first and first[:40] == second[10:]


def test_noise_users_have_bursts() -> None:
    rows = generate(only("noise", interactions=60, noise_share=0.1), seed=0)
    per_epoch = [(part["drift"] == "noise").sum() for part in rows.iter_slices(10)]
    assert per_epoch == [1, 1, 5, 1, 5, 1]
    assert rows["is_drift"].to_list() == [False] * 60


def test_without_kinds_nothing_drifts() -> None:
    source = PersonasSource(users=3, interactions=60, drift=(), noise_share=0.0)
    assert generate(source, seed=0).select("drift", "is_drift").unique().rows() == [("stable", False)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.9))
def test_noise_share_and_clean_last_items(seed: int, share: float) -> None:
    """Every epoch holds the share of noise within one item, and its last item (tested on) is clean."""
    rows = generate(only("abrupt", interactions=30, noise_share=share), seed=seed)
    for epoch in rows.iter_slices(10):
        noisy = epoch["drift"] == "noise"
        assert abs(sum(noisy.to_list()) - 10 * share) < 1
        assert not noisy[-1]


def test_all_noise_is_possible() -> None:
    rows = generate(only("abrupt", interactions=20, noise_share=1.0), seed=0)
    assert (rows["drift"] == "noise").all() and (rows["response"].str.len_chars() >= 12).all()


# --- text ---------------------------------------------------------------------------------------------------


def test_queries_have_the_prompt_fields(frame: pl.DataFrame) -> None:
    for row in frame.iter_rows(named=True):
        query = json.loads(row["query"])
        assert list(query) == ["DESCRIPTION", "PRODUCT", "RATING", "SUMMARY"]
        assert all(isinstance(value, str) and value.strip() for value in query.values())
        assert float(query["RATING"]) == row["rating"]
        assert 8 <= len(query["DESCRIPTION"].split()) <= 20 and 2 <= len(query["SUMMARY"].split()) <= 8


def catalogue(seed: int) -> list[profiles.Product]:
    return [
        profiles.product(seed, category, number)
        for category in CATALOGUE
        for number in range(profiles.products_of(category))
    ]


def test_catalogue_has_400_products_of_their_own() -> None:
    products = catalogue(seed=0)
    assert len(products) == len({product.name for product in products}) == 400
    for product in products:
        assert len({feature.mention for feature in product.features}) == 3
        assert all(feature.phrase in product.description for feature in product.features)
        assert not re.search(r"[\[\]|{}+]", product.description)


def test_reviews_speak_of_their_product(frame: pl.DataFrame) -> None:
    """Every clean review names at least two features that its description lists."""
    products = {product.name: product for product in catalogue(seed=0)}
    for row in frame.filter(pl.col("drift") != "noise").iter_rows(named=True):
        features = products[json.loads(row["query"])["PRODUCT"]].features
        named = [f for f in features if f.mention.removeprefix("the ").lower() in row["response"].lower()]
        assert len(named) >= 2, row["response"]


@pytest.mark.parametrize("length_of_user", range(3))
def test_stars_decide_what_is_observed(length_of_user: int) -> None:
    """Five stars praise, one star blames, three do both; two and four lean their way."""
    product = profiles.product(0, "kitchen", 3)
    for rating, allowed in {
        5: [{True}],
        4: [{True}, {True, False}],
        3: [{True, False}],
        1: [{False}],
    }.items():
        who, habits = profiles.person(0, length_of_user), profiles.preference(0, length_of_user, 0)
        observed = Writer(who, habits, product, rating, Random(0)).observed()
        assert {good for _, good in observed} in allowed
        assert observed[0][1] == (rating >= 3)


def test_five_stars_list_no_cons(frame: pl.DataFrame) -> None:
    cons = frame.filter((pl.col("rating") == 5) & (pl.col("drift") != "noise"))["response"]
    cons = cons.str.extract(r"(?i)\ncons: ([^.!~\n]+)").drop_nulls().str.strip_chars()
    assert len(cons) > 5 and cons.is_in(list(NOTHING_BAD)).all()


def test_text_is_clean(frame: pl.DataFrame) -> None:
    for text in frame["response"]:
        assert len(text) >= 12 and text == text.strip()
        assert not re.search(r"[{}]|  |\ba [aeiou]|\b(the|it|a) \1\b", text), text
    whole = frame.filter(pl.col("drift") != "noise")["response"]
    assert (whole.str.len_chars() > 60).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), user=st.integers(0, 200), version=st.integers(0, 50))
def test_versions_in_a_row_share_no_habit_but_one_topic(seed: int, user: int, version: int) -> None:
    old, new = (asdict(profiles.preference(seed, user, number)) for number in (version, version + 1))
    assert len(set(old["categories"]) & set(new["categories"])) == 1
    assert all(old[habit] != new[habit] for habit in old if habit != "categories")


def test_every_observation_names_its_feature() -> None:
    clauses = [clause for pair in ASPECTS.values() for bank in pair for clause in bank]
    assert len(clauses) == len(set(clauses)) == 204 and all("{F}" in clause for clause in clauses)


def test_near_duplicates_by_hand() -> None:
    """Two runs of four words each; the first two texts share one, which is half."""
    assert near_duplicates(["a b c d e", "a b c d x", "q w e r t"]) == pytest.approx(2 / 3)
    assert near_duplicates(["a b c d e f", "a b c d x y", "q w e r t z"]) == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_texture(seed: int) -> None:
    figures = texture(generate(FULL, seed=seed))
    assert figures["duplicates"] == 0 and figures["near-duplicates"] < 0.08
    assert 40 < figures["words per response"] < 65
    assert 10 < figures["words per description"] < 18 and 3 < figures["words per summary"] < 7
    assert figures["distinct-2"] > 0.15


@pytest.mark.slow
def test_styles_are_separable() -> None:
    """Topic words and names masked, five users are told apart (chance: 0.2), and so is old from new (0.5)."""
    source = FULL.model_copy(update={"users": 5, "interactions": 50})
    figures = separability(generate(source, seed=0), source.drift, seed=0)
    assert figures["users"] > 0.8
    changed = {name: value for name, value in figures.items() if name.startswith("before and after")}
    assert set(changed) == {f"before and after, {kind}" for kind in ("abrupt", "gradual", "recurring")}
    assert min(changed.values()) > 0.85
