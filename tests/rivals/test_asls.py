"""ASLS: the profile follows a drift, online steps go in order as stated, each switch changes what it says."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from kit.params import TREE
from kit.pipeline import adapter_bytes, cells, changed_state, experiment, index, learn_anew, run
from kit.training import TARGETS, assert_close, collate, learn, lesson, moved, recipe, some_state, texts

from spring.engine import embedding
from spring.engine.embedding import (
    PACKAGED,
    Embedder,
    EmbeddingModelMissing,
    RememberingEmbedder,
    packaged_folder,
)
from spring.engine.lessons import Learned, Lesson, plan
from spring.engine.turns import Turn
from spring.method.retrieval import Retriever, document_text
from spring.rivals.asls import Asls, Profile, Retune, drift_rate, feedback_weight, follow, liking
from spring.rivals.online import Stream
from spring.settings.params import ParameterError, merge, parse
from tasks import adapt, consolidate, transfer
from tasks.params import load_params
from tasks.steps.index import vector_id
from tasks.steps.vectors import read_profile_vectors

NOBODY = Profile(np.zeros(2, np.float32))
ONLINE = Asls(method="asls", steps=2, learn="each", feedback=5, retune=Retune(rho=0.2, limit=2))


# --- the profile ------------------------------------------------------------------------------------------


def test_the_recursion_by_hand() -> None:
    """rho 0.5 from zero: (0.5, 0); then (0.25, 0.25) for the weight 0.5 of (0, 1); then (0.125, 0.625).

    Distances: none to a zero profile; 1, without a mean yet; 1 - cos 45 degrees, over the mean 1.
    """
    profile, drifts = follow(NOBODY, [[1, 0], [0, 1], [0, 1]], [1.0, 0.5, 1.0], rho=0.5)
    np.testing.assert_allclose(profile.vector, [0.125, 0.625])
    third = 1 - math.sqrt(0.5)
    assert drifts == [1.0, 1.0, pytest.approx(third)]
    assert (profile.mean, profile.count) == (pytest.approx((1 + third) / 2), 2)


def test_in_periods_as_in_one_go() -> None:
    items = np.random.default_rng(0).normal(size=(9, 5))
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    start = Profile(np.zeros(5, np.float32))
    whole, drifts = follow(start, items, [1.0] * 9, rho=0.3)
    first, before = follow(start, items[:4], [1.0] * 4, rho=0.3)
    second, after = follow(first, items[4:], [1.0] * 5, rho=0.3)
    np.testing.assert_allclose(second.vector, whole.vector, atol=1e-6)
    assert before + after == pytest.approx(drifts, abs=1e-6) and second.count == 8


def test_it_follows_a_planted_drift() -> None:
    """From style a to style b: the difference to b shrinks by 1 - rho each time, and the drift falls to 0."""
    a, b, rho = np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.25
    profile = Profile(a.astype(np.float32), mean=0.5, count=1)
    lengths, drifts = [np.linalg.norm(a - b)], []
    for _ in range(12):
        profile, [drift] = follow(profile, b[None], [1.0], rho=rho)
        lengths.append(np.linalg.norm(profile.vector - b))
        drifts.append(drift)
    np.testing.assert_allclose(np.array(lengths[1:]) / lengths[:-1], 1 - rho, rtol=1e-4)
    assert drifts[0] == pytest.approx(2.0)  # a distance of 1 where 0.5 was usual
    assert all(later < earlier for earlier, later in pairwise(drifts))
    assert liking(profile.vector, b[None])[0] > 0.999


def test_rho_0_stays_and_rho_1_forgets() -> None:
    start = Profile(np.array([0.6, 0.8], np.float32))
    items, weights = [[1, 0], [0, 1]], [1.0, 0.5]
    assert np.array_equal(follow(start, items, weights, rho=0.0)[0].vector, start.vector)
    np.testing.assert_allclose(follow(start, items, weights, rho=1.0)[0].vector, [0, 0.5])


@pytest.mark.parametrize(
    ("rating", "best", "weight"),
    [(5, 5, 1), (1, 5, 0.2), (7, 5, 1), (-1, 5, 0), (0.5, 1, 0.5), (None, 5, 1), (1, None, 1)],
)
def test_feedback_is_the_share_of_the_best_rating(rating: Any, best: Any, weight: float) -> None:
    assert feedback_weight(rating, best) == pytest.approx(weight)


def test_rates_are_drifts_within_the_limit() -> None:
    assert [drift_rate(drift, limit=2) for drift in (0.0, 0.5, 0.8, 1.0, 1.9, 7.0)] == [
        0.5, 0.5, 0.8, 1.0, 1.9, 2.0,
    ]  # fmt: skip


def test_memories_are_ranked_by_query_and_profile() -> None:
    """Query (1, 0), profile (0, 3): at weight 0.25 the items score 0.75 and 0.25, at 0.75 the other way."""
    items = np.eye(2, dtype=np.float32)

    def scores(share: float) -> list[float]:
        index = Retriever(
            ["x", "y"], by="dense", times=[0, 1], embeddings=items, prior=liking([0, 3], items), share=share
        )
        return index.scores("q", np.array([1.0, 0.0])).tolist()

    assert scores(0.25) == pytest.approx([0.75, 0.25]) and scores(0.75) == pytest.approx([0.25, 0.75])
    assert liking([0, 0], items).tolist() == [0, 0]


# --- the turns, and what each switch changes --------------------------------------------------------------


def stream(*, seed: int = 0) -> Stream:
    rows = [{"rating": rating} for rating in (5, 1, None, 4, 2, 3)]
    return Stream(rows, [1.0, 1.5, 9.0, 0.1, 0.9, 1.0], seed)


def test_turns_go_in_time_order() -> None:
    assert ONLINE.turns(stream()) == [
        Turn(0, 2, 1.0, 1.0),
        Turn(1, 2, 0.2, 1.5),
        Turn(2, 2, 1.0, 2.0),
        Turn(3, 2, 0.8, 0.5),
        Turn(4, 2, 0.4, 0.9),
        Turn(5, 2, 0.6, 1.0),
    ]


def test_each_switch_changes_exactly_what_it_says() -> None:
    full = ONLINE.turns(stream())
    unheard = ONLINE.model_copy(update={"feedback": None}).turns(stream())
    assert unheard == [dataclasses.replace(turn, weight=1.0) for turn in full]
    steady = ONLINE.model_copy(update={"retune": None})
    assert steady.turns(stream()) == [dataclasses.replace(turn, rate=1.0) for turn in full]
    assert steady.profiling is None and ONLINE.profiling is not None
    drawn = ONLINE.model_copy(update={"learn": "random"})
    for seed in range(20):
        found = drawn.turns(stream(seed=seed))
        assert len(found) == 6 and all(turn in full for turn in found)  # weight and rate stay a text's own
        assert all(turn.text <= place for place, turn in enumerate(found))  # nothing that is still to come
        assert found == drawn.turns(stream(seed=seed))
    counts = np.bincount([t.text for s in range(400) for t in drawn.turns(stream(seed=s))], minlength=6) / 400
    np.testing.assert_allclose(counts, [sum(1 / n for n in range(k, 7)) for k in range(1, 7)], atol=0.2)


# --- the steps --------------------------------------------------------------------------------------------

TURNS = [Turn(2, 1, 1.0, 1.0), Turn(0, 3, 0.25, 2.0), Turn(1, 2, 0.6, 0.5)]


def learn_one_by_one(model: Any, one: Lesson, config: Any) -> Learned:
    """PEFT and torch's AdamW, written out: every turn's steps on its text alone."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    lora = config.lora
    wrapped = get_peft_model(
        model, LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=0, target_modules=list(TARGETS))
    )
    set_peft_model_state_dict(wrapped, dict(one.start or {}))
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
    learned = Learned({}, [], [], [], 0)
    for turn in one.turns:
        for _ in range(turn.steps):
            text = one.texts[turn.text]
            optimizer.param_groups[0]["lr"] = turn.rate * config.lr
            loss = turn.weight * wrapped(**collate([text])).loss
            loss.backward()
            learned.loss.append(loss.item())
            learned.lr.append(turn.rate * config.lr)
            learned.grad_norm.append(torch.stack([w.grad.norm() for w in weights]).norm().item())  # type: ignore[union-attr]
            learned = dataclasses.replace(learned, tokens=learned.tokens + len(text))
            optimizer.step()
            optimizer.zero_grad()
    return dataclasses.replace(learned, state=get_peft_model_state_dict(wrapped))


def online_recipe(**changes: Any) -> Any:
    return recipe(epochs=1, batch_size=1, warmup_ratio=0, grad_clip=None, **changes)


def test_online_steps_equal_peft_and_adamw_in_order(make_model: Callable[..., Any]) -> None:
    model, config = make_model(), online_recipe()
    one = Lesson(texts(count=3, seed=5), some_state(model, config), 1, turns=TURNS)
    [found] = learn(model, [one], config, slots=1)
    expected = learn_one_by_one(make_model(), one, config)
    assert len(found.loss) == 6
    np.testing.assert_allclose(found.lr, expected.lr)
    assert_close(dataclasses.replace(found, lr=expected.lr), expected)
    backwards = dataclasses.replace(one, turns=TURNS[::-1])
    assert moved(learn(model, [backwards], config, slots=1)[0], found) > 1e-3, "the order must show"


def test_weights_scale_the_gradient(make_model: Callable[..., Any]) -> None:
    """The same text from the same start: a quarter of the weight is a quarter of the loss and gradient."""
    model, config = make_model(), online_recipe()
    start = some_state(model, config)
    lessons = [
        Lesson(texts(count=1, seed=5), start, 1, turns=[Turn(0, 1, weight, 1.0)])
        for weight in (1.0, 0.25, 0.0)
    ]
    full, quarter, none = learn(model, lessons, config, slots=3)
    assert quarter.grad_norm[0] == pytest.approx(full.grad_norm[0] / 4, rel=1e-4)
    assert quarter.loss[0] == pytest.approx(full.loss[0] / 4, rel=1e-5)
    assert full.grad_norm[0] > 1e-3 and none.grad_norm[0] == 0


def test_together_as_alone_beside_ordinary_lessons(make_model: Callable[..., Any]) -> None:
    """Two slots for three lessons, one of them in shuffled batches, dropout on."""
    model, config = make_model(), online_recipe(dropout=0.3)
    warm = some_state(model, config)
    lessons = [
        Lesson(texts(count=3, seed=1), warm, 11, turns=TURNS),
        lesson(2, count=4),
        Lesson(texts(count=3, seed=3), None, 13, turns=TURNS[::-1]),
    ]
    together = learn(model, lessons, config, slots=2, budget=60)
    for one, found in zip(lessons, together, strict=True):
        assert_close(found, learn(model, [one], config, slots=1)[0])
    assert moved(together[0], together[2]) > 0.01


def test_without_turns_the_plan_is_the_schedule(make_model: Callable[..., Any]) -> None:
    """10 steps with two of warm-up: 0 and half of the rate, then from all of it down by eighths."""
    config = recipe(batch_size=1, epochs=2)
    steps = plan(lesson(0, count=5), config)
    assert [batch.rate for batch in steps] == pytest.approx([0, 0.5, *(1 - k / 8 for k in range(8))])
    assert {batch.weight for batch in steps} == {1.0}


# --- parameters -------------------------------------------------------------------------------------------

ARM: dict[str, Any] = {
    "train": {
        "data": "current",
        "lr": 0.01,
        "epochs": 1,
        "batch_size": 1,
        "warmup_ratio": 0,
        "grad_clip": None,
        "online": {
            "method": "asls",
            "steps": 2,
            "learn": "each",
            "feedback": 5,
            "retune": {"rho": 0.2, "limit": 3},
        },
    },
    "memory": {"scope": "history"},
    "retrieve": {
        "by": "dense",
        "top_k": 2,
        "gate": None,
        "profile": {"rho": 0.2, "feedback": 5, "weight": 0.8},
    },
    "decode": {"lmbda": 1.0},
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train": {"batch_size": 4}}, "needs train.batch_size 1, not 4"),
        ({"train": {"epochs": 2}}, "needs train.epochs 1, not 2"),
        ({"train": {"warmup_ratio": 0.1}}, "needs train.warmup_ratio 0, not 0.1"),
        ({"train": {"scope": "population"}}, "needs train.scope user, not population"),
        ({"train": {"start": "base"}}, "needs train.start previous, not base"),
        ({"train": {"data": "cumulative"}}, "take current or drift"),
        ({"train": {"online": {"steps": 0}}}, "steps is 0"),
        ({"train": {"online": {"learn": "some"}}}, "learn is 'some': must be 'each'"),
        ({"train": {"online": {"retune": {"rho": 0}}}}, "retune.rho is 0"),
        ({"train": {"online": {"retune": {"limit": 1}}}}, "retune.limit is 1"),
        ({"train": {"online": {"method": "sgd"}}}, "'sgd'"),
        ({"retrieve": {"by": "bm25"}}, "by: dense or hybrid, not bm25"),
        ({"retrieve": {"gate": "strict"}}, "a number as sigma"),
        ({"retrieve": {"profile": {"weight": 0}}}, "profile.weight is 0"),
        ({"retrieve": {"profile": {"feedback": None}}}, "a user has one profile"),
        ({"retrieve": {"profile": {"rho": 0.5}}}, "a user has one profile"),
        ({"memory": None}, "there are none"),
    ],
)  # fmt: skip
def test_bad_values_are_named(change: dict[str, Any], named: str) -> None:
    tree = copy.deepcopy(TREE)
    tree["arms"]["asls"] = merge(ARM, change)
    with pytest.raises(ParameterError, match="nothing was run") as error:
        parse(tree)
    assert named in str(error.value)


def test_switched_off_it_leaves_no_trace_in_fingerprints() -> None:
    spring = parse(TREE).arms["spring"]
    assert spring.train is not None and "online" not in spring.train.model_dump()
    assert "profile" not in spring.retrieve.model_dump()


# --- the whole pipeline -----------------------------------------------------------------------------------

NO_RETUNE = {"train": {"online": {"retune": None}}}
CHANGES: dict[str, dict[str, Any]] = {
    "asls": {},
    "profile-only": {"train": None},
    "adaptation-only": merge(
        NO_RETUNE, {"memory": None, "retrieve": {"profile": None}, "decode": {"lmbda": 0.0}}
    ),
    "feedback-ignored": {
        "train": {"online": {"feedback": None}},
        "retrieve": {"profile": {"feedback": None}},
    },
    "random-sampling": {"train": {"online": {"learn": "random"}}},
    "retuning-off": NO_RETUNE,
    "no-profile": {"train": None, "retrieve": {"profile": None}},
}
ARMS = {"base": {"train": None, "memory": None}} | {n: merge(ARM, change) for n, change in CHANGES.items()}


def rate(table: Path) -> None:
    stars = (pl.int_range(pl.len()) * 2 % 5 + 1).alias("stars")
    pl.read_csv(table).with_columns(stars).write_csv(table)


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """All arms through three periods, in the current folder."""
    try:
        packaged_folder(PACKAGED["all-minilm-l6-v2"])
    except EmbeddingModelMissing as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("asls")
    with experiment(
        folder, tiny_model_folder, prepare=rate, arms=ARMS, ingest__table__rating="stars"
    ) as patch:
        yield folder, patch


@pytest.fixture
def project(finished: tuple[Path, pytest.MonkeyPatch]) -> Path:
    return finished[0]


@pytest.mark.slow
def test_profiles_are_the_recursion_over_train_items_alone(project: Path) -> None:
    """Recomputed in one go from period 0 on: what is carried from period to period gives the same."""
    embedder = Embedder("all-minilm-l6-v2", device="cpu")
    arm = load_params().arms["asls"]
    assert arm.profiling is not None
    for last in (0, 2):
        found = read_profile_vectors(last)
        assert len(found) == 2 * 3  # feedback heard and ignored, three users
        rows = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in range(last + 1))
        for (user,), mine in rows.filter(pl.col("part") == "train").group_by("user_id"):
            ordered = mine.sort("timestamp").to_dicts()
            expected, _ = follow(
                Profile(np.zeros(384, np.float32)),
                embedder.embed([document_text(r["query"], r["response"]) for r in ordered]),
                [r["rating"] / 5 for r in ordered],
                rho=0.2,
            )
            profile = found[vector_id(arm.profiling), str(user)].profile
            np.testing.assert_allclose(profile.vector, expected.vector, atol=1e-5)
            assert profile.count == len(ordered) - 1


@pytest.mark.slow
def test_in_the_pipeline_each_switch_changes_what_it_says(project: Path) -> None:
    said = pl.read_parquet(project / "data/generate/2/generations.parquet")
    contexts = {str(arm): part["contexts"].to_list() for (arm,), part in said.group_by("arm")}
    for arm in ("profile-only", "random-sampling", "retuning-off"):
        assert contexts[arm] == contexts["asls"]  # the profile ranks alike
    assert contexts["no-profile"] != contexts["asls"] and contexts["adaptation-only"] == [[]] * 3
    adapters = {arm: index(project, 2, arm)["cell"].to_list() for arm in CHANGES}
    assert adapters["profile-only"] == [] and adapters["adaptation-only"] == adapters["retuning-off"]
    different = ("asls", "feedback-ignored", "random-sampling", "retuning-off")
    assert len({cell for arm in different for cell in adapters[arm]}) == 4 * 3
    for arm in different:  # as many steps, whatever is switched off
        assert index(project, 2, arm)["steps"].to_list() == [5 * 2] * 3
    assert rates(project, "retuning-off", "user 1") == [0.01] * 10


def rates(project: Path, arm: str, user: str) -> list[float]:
    """Learning rates of the steps of period 2."""
    curves = pl.read_parquet(project / "data/adapt/2/curves.parquet")
    mine = curves.filter(pl.col("recipe") == load_params().arms[arm].recipe, pl.col("user_id") == user)
    return mine.sort("step")["lr"].to_list()


@pytest.mark.slow
def test_the_steps_of_a_period_go_by_the_profile_before_each_item(project: Path) -> None:
    """From the profile after period 1, item by item in time order, two steps each."""
    profiling = load_params().arms["asls"].profiling
    assert profiling is not None
    train = pl.read_parquet(project / "data/split/2.parquet").filter(pl.col("part") == "train")
    for user in ("user 0", "user 2"):
        mine = train.filter(pl.col("user_id") == user).sort("timestamp").to_dicts()
        vectors = Embedder("all-minilm-l6-v2", device="cpu").embed(
            [document_text(row["query"], row["response"]) for row in mine]
        )
        before = read_profile_vectors(1)[vector_id(profiling), user].profile
        _, drifts = follow(before, vectors, [row["rating"] / 5 for row in mine], rho=0.2)
        expected = [0.01 * drift_rate(drift, limit=3) for drift in drifts for _ in range(2)]
        assert rates(project, "asls", user) == pytest.approx(expected, rel=1e-4)
        assert len(set(expected)) == 5


@pytest.mark.slow
def test_nothing_is_later_than_the_query_also_for_earlier_tests(project: Path) -> None:
    """State 2 on the tests of period 1 retrieves by the profile of period 1: as state 1 did."""
    found = pl.read_parquet(project / "data/transfer/likelihoods.parquet").filter(
        pl.col("arm") == "profile-only"
    )
    when = dict(
        pl.read_parquet(project / "data/ingest/interactions.parquet")
        .select("interaction_id", "timestamp")
        .iter_rows()
    )
    for item, contexts in found.select("interaction_id", "contexts").iter_rows():
        assert contexts and all(when[one] < when[item] for one in contexts)

    def of(learned: int) -> list[list[str]]:
        cell = (pl.col("learned") == learned) & (pl.col("tested") == 1)
        return found.filter(cell).sort("user_id")["contexts"].to_list()

    assert of(1) == of(2)


@pytest.mark.slow
def test_one_users_texts_move_nobody_elses_profile_or_adapter(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All learned anew: steps, weights and rates of the others stay too, or their adapters would not."""
    before = read_profile_vectors(2)
    edited = tmp_path / "edited"
    learn_anew(edited, project, monkeypatch, edited="user 1", prepare=rate)
    adapters = {f"adapt/{t}/{name}" for t in range(3) for name in adapter_bytes(edited, t)}
    assert changed_state(project, edited) == {name for name in adapters if "/user-1-" in name}
    assert len(adapters) == 3 * 3 * 4  # periods, users, ways to learn
    for (name, user), known in read_profile_vectors(2).items():
        away = np.abs(known.profile.vector - before[name, user].profile.vector).max()
        assert away > 1e-3 if user == "user 1" else away < 1e-6


@pytest.mark.slow
def test_again_nothing_is_computed_and_no_model_is_loaded(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cells(project)
    for name in ("base", "embedder"):
        monkeypatch.setattr(
            f"tasks.cells.workbench.Workbench.{name}",
            property(lambda self: pytest.fail("a model was loaded")),
        )
    run(adapt, monkeypatch, 2)
    run(consolidate, monkeypatch, 2)
    assert cells(project) == before


# --- embeddings, once -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_transfer_embeds_no_text_twice(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three states on the tests of three periods: histories of 5, 10 and 15 items of three users, 9 queries.

    6 searches of those histories are made for each of two rankings: they are 54 texts all in all.
    """
    asked, read = [], []
    once, plain = RememberingEmbedder._embed, Embedder._embed
    monkeypatch.setattr(
        RememberingEmbedder, "_embed", lambda self, batch: (asked.extend(batch), once(self, batch))[1]
    )
    monkeypatch.setattr(Embedder, "_embed", lambda self, batch: (read.extend(batch), plain(self, batch))[1])
    run(transfer, monkeypatch)
    assert len(read) == len(set(read)) == len(set(asked)) == 3 * 15 + 3 * 3
    assert len(asked) > 4 * len(read)


@pytest.mark.parametrize("most", [1, 1000])
def test_remembered_embeddings_are_the_embeddings(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """New and known texts mixed, one twice, and none; also where fewer are remembered than asked for."""
    monkeypatch.setattr(embedding, "REMEMBERED", most)
    try:
        embedder = RememberingEmbedder("all-minilm-l6-v2", device="cpu")
    except EmbeddingModelMissing as error:
        pytest.skip(str(error))
    plain = Embedder("all-minilm-l6-v2", device="cpu")
    asked = ["a cup", "a lamp", "a cup", "an old chair that works again"]
    embedder.embed(asked[:1])
    np.testing.assert_allclose(embedder.embed(asked), plain.embed(asked), atol=2e-6)
    assert embedder.embed([]).shape == (0, 384) and len(embedder._known) == min(most, 3)
