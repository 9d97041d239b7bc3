"""Fints: pairs, draws and aggregation by hand; who sees whose items, and when, in a whole small pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from kit.params import changed
from kit.pipeline import cells, experiment, run
from pydantic import ValidationError
from safetensors.numpy import load
from transformers import AutoModelForCausalLM

from spring.method.retrieval import query_text
from spring.rivals.fints import Fints, aggregate, contrast_rouge, draw_others
from spring.settings.params import ParameterError, Params, parse
from spring.store.keys import fingerprint
from tasks import adapt, consolidate, ingest, model, score_base, split
from tasks.cells.pairs import VECTORS, PairJob, extract
from tasks.params import load_params
from tasks.steps.experiment import Experiment
from tasks.steps.index import read_held
from tasks.steps.steering import Pool
from tasks.steps.steers import Steers


def fints(**changes: Any) -> Fints:
    return Fints(method="fints", **changes)


# --- the method -------------------------------------------------------------------------------------------


def test_rouge_l_by_hand_and_pairs_that_are_too_alike() -> None:
    """Longest common subsequence "the cat sat": P = 3/4, R = 3/6, F1 = 0.6. Nothing said is no pair."""
    assert contrast_rouge("the big cat sat on mats", "the cat sat down") == pytest.approx(0.6)
    assert contrast_rouge("one two", "three four") == 0
    for chosen, rejected in (("one two", " \n"), ("👍", "one two")):  # no answer; no words to compare
        assert contrast_rouge(chosen, rejected) == 1.0  # a threshold is at most 1, and 1 < 1 never holds


def test_weights_by_hand() -> None:
    """Similarities 0.8, 0.2, 0.5, -0.1 and top 3: items 0, 2, 1.

    softmax at 0.1: e^0, e^-3, e^-6 over their sum. distance: 0.8, 0.5, 0.2 over 1.5.
    """
    similarity = np.array([0.8, 0.2, 0.5, -0.1], np.float32)
    vectors = np.arange(1, 5, dtype=np.float32)[:, None, None] * np.array(
        [[1.0, 0.0], [0.0, 10.0]], np.float32
    )
    powers = np.exp([0, -6, -3])
    for weights, of_items in {
        "uniform": [1 / 3, 1 / 3, 1 / 3],
        "softmax": powers / powers.sum(),
        "distance": np.array([0.8, 0.2, 0.5]) / 1.5,
    }.items():
        s = float(np.dot(of_items, [1, 2, 3]))
        found = aggregate(similarity, vectors, fints(weights=weights, top_k=3, c=2.0))
        np.testing.assert_allclose(found, [[2 * s, 0], [0, 20 * s]], rtol=1e-6)
    few = aggregate(similarity[:2], vectors[:2], fints(weights="uniform"))
    np.testing.assert_allclose(few, vectors[:2].mean(0))
    nothing_near = aggregate(np.array([-0.5, -0.2]), vectors[:2], fints(weights="distance"))
    np.testing.assert_allclose(nothing_near, vectors[:2].mean(0))
    tied = aggregate(np.array([0.5, 0.5]), vectors[:2], fints(top_k=1))
    np.testing.assert_allclose(tied, vectors[1])  # the latest


def test_draws_are_spread_over_users_and_keep_to_those_that_stay() -> None:
    pool = {f"u{u}": [f"u{u}-{i}" for i in range(6)] for u in range(4)}
    drawn = {f"item {n}": draw_others(f"item {n}", pool, k=5, seed=0) for n in range(200)}
    everything = [name for names in drawn.values() for name in names]
    assert all(len(set(names)) == 5 for names in drawn.values()), "none twice"
    counts = np.array([everything.count(name) for names in pool.values() for name in names])
    # 1000 draws over 24 items: 42 each; a sixth to a quarter of that would be five standard deviations off
    assert counts.min() > 15 and counts.max() < 75
    assert len({tuple(names) for names in drawn.values()}) > 190
    assert drawn["item 0"] != draw_others("item 0", pool, k=5, seed=1)
    without = {user: names for user, names in pool.items() if user != "u3"}
    for item, names in drawn.items():
        if not any(name.startswith("u3") for name in names):
            assert draw_others(item, without, k=5, seed=0) == names
    assert draw_others("item 0", {"u0": ["a"], "u1": []}, k=5, seed=0) == ["a"]
    assert draw_others("item 0", {}, k=5, seed=0) == []


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steer", "named"),
    [
        ({"method": "magic"}, "steer.method is 'magic'"),
        ({}, "steer.method"),
        ({"method": "fints", "c": 0}, "steer.c is 0: .*other than 0; steer: null switches"),
        ({"method": "fints", "c": float("inf")}, "steer.c is inf"),
        ({"method": "fints", "layer": 1}, "steer.layer is 1"),
        ({"method": "fints", "others": 0}, "steer.others is 0"),
        ({"method": "fints", "top_k": 0}, "steer.top_k is 0"),
        ({"method": "fints", "rouge_below": 0}, "steer.rouge_below is 0"),
        (
            {"method": "fints", "weights": "best"},
            "steer.weights is 'best'.*'uniform', 'softmax' or 'distance'",
        ),
        ({"method": "fints", "read": "prompt"}, "steer.read is 'prompt'"),
        ({"method": "fints", "strength": 2}, "steer.strength: no such key; allowed are behind, c, layer"),
    ],
)
def test_senseless_steering_is_refused(steer: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError, match=f"arms.base.{named}"):
        parse(changed("arms.base", {"train": None, "memory": None, "steer": steer}))
    with pytest.raises(ValidationError):
        Fints(**steer)


def test_rejected_answers_can_have_a_length_of_their_own() -> None:
    """As where settings are chosen by likelihood, and answers are cut off after a token."""
    tree = changed("arms.base", {"train": None, "memory": None, "steer": {"method": "fints"}})
    whole = parse(tree).arms["base"]
    tree["arm"]["decode"]["max_new_tokens"] = 1
    assert parse(tree).arms["base"].steer_id != whole.steer_id
    tree["arms"]["base"]["steer"]["max_new_tokens"] = whole.decode.max_new_tokens
    assert parse(tree).arms["base"].steer_id == whole.steer_id


def test_arms_without_it_keep_their_names_and_arms_that_use_vectors_otherwise_share_them() -> None:
    def arms(steer: object) -> Params:
        return parse(changed("arms.base", {"train": None, "memory": None, "steer": steer}))

    plain, one = arms(None).arms["base"], arms({"method": "fints"}).arms["base"]
    assert "steer" not in plain.model_dump() and plain.steer_id is None
    assert fingerprint(plain) != fingerprint(one)
    used = arms({"method": "fints", "c": 2, "top_k": 1, "weights": "softmax"}).arms["base"]
    assert used.steer_id == one.steer_id
    others = [
        {"layer": 0.5},
        {"read": "last-token"},
        {"behind": "query"},
        {"others": 2},
        {"rouge_below": 0.15},
    ]
    ids = {arms({"method": "fints", **change}).arms["base"].steer_id for change in others}
    assert len(ids | {one.steer_id}) == 6


# --- a whole pipeline -------------------------------------------------------------------------------------

STEER = {"method": "fints", "others": 2, "c": 3.0}
ARMS: dict[str, Any] = {
    "base": {"train": None, "memory": None},
    "fints": {"train": None, "memory": None, "steer": STEER},
    "fints-rag": {"memory": {"scope": "history"}, "retrieve": {"gate": None}, "steer": STEER},
    "softly": {"train": None, "memory": None, "steer": STEER | {"weights": "softmax", "c": 1.0}},
}
USERS = [f"user {u}" for u in range(3)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Any:
    """All stages through three periods, in the current folder."""
    folder = tmp_path_factory.mktemp("fints")
    with experiment(folder, tiny_model_folder, arms=ARMS, evaluate__against="base"):
        yield folder


def vectors(project: Path, period: int) -> pl.DataFrame:
    return pl.read_parquet(project / f"data/consolidate/{period}/steers.parquet")


@pytest.mark.slow
def test_every_kept_item_has_one_vector_pair_and_earlier_periods_are_carried_on(project: Path) -> None:
    params = load_params()
    (name,) = {arm.steer_id for arm in params.arms.values()} - {None}
    before = None
    for period in range(3):
        found = vectors(project, period)
        train = pl.read_parquet(project / f"data/split/{period}.parquet").filter(pl.col("part") == "train")
        fresh = found.filter(pl.col("period") == period)
        assert set(fresh["interaction_id"]) <= set(train["interaction_id"]) and fresh.height > 3
        assert found["steer"].unique().to_list() == [name]
        assert found["interaction_id"].is_unique().all()
        if before is not None:
            assert found.filter(pl.col("period") < period).drop("file").equals(before)
        before = found.drop("file")
    # of the first day nobody else has anything earlier: three items of 45 have no pair
    pairs = cells(project, "pair.json")
    too_alike = pairs - cells(project, VECTORS)
    assert len(pairs) == 42 and vectors(project, 2).height == 42 - len(too_alike)
    spent = pl.read_parquet(project / "data/consolidate/2/steer_seconds.parquet")
    assert spent.height == 9 and (spent["seconds"] > 0).all()  # three users, three periods


@pytest.mark.slow
def test_a_vector_is_the_contrast_of_the_users_own_answer_and_one_given_others(project: Path) -> None:
    """Recomputed for one item from the definition, without the engine: plain passes of a plain model."""
    bench = Experiment()
    history = pl.read_parquet(project / "data/consolidate/2/history.parquet")
    users = {str(k[0]): part.to_dicts() for k, part in history.group_by(["user_id"], maintain_order=True)}
    entry = (
        vectors(project, 2).filter((pl.col("user_id") == "user 1") & (pl.col("period") == 2)).to_dicts()[0]
    )
    (row,) = [r for r in users["user 1"] if r["interaction_id"] == entry["interaction_id"]]
    others = Pool(users).draw("user 1", row, k=2, seed=0)
    assert len(others) == 2
    assert all(o["user_id"] != "user 1" and o["timestamp"] < row["timestamp"] for o in others)
    plain = AutoModelForCausalLM.from_pretrained(bench.params.model.id, dtype=torch.float32)
    seen: dict[str, Any] = {}
    layer = plain.model.layers[1]
    layer.self_attn.register_forward_hook(lambda _, __, out: seen.update(attn=out[0][0]))
    layer.mlp.register_forward_hook(lambda _, __, out: seen.update(mlp=out[0]))
    context = [(o["query"], o["response"]) for o in others]
    prompt = bench.prompter.prompt(row["task"], row["query"], context)
    rejected: list[int] = []
    while len(rejected) < 6:
        with torch.no_grad():
            score = plain(torch.tensor([[*prompt, *rejected]]), use_cache=False).logits[0, -1].log_softmax(0)
        score[list(set(rejected))] *= 1.2
        if int(score.argmax()) == bench.prompter.end:
            break
        rejected.append(int(score.argmax()))
    text = bench.prompter.decode(rejected)
    means = []
    for answer in (row["response"], text):
        tokens = bench.prompter.text(row["task"], row["query"], answer).response[:-1]  # not the end of turn
        with torch.no_grad():
            plain(torch.tensor([[*prompt, *tokens]]), use_cache=False)
        means.append({site: x[len(prompt) :].mean(0).numpy() for site, x in seen.items()})
    held = load(read_held(project / "data/consolidate/2" / entry["file"], entry["cell"])[VECTORS])
    for site in ("attn", "mlp"):
        expected = means[0][site] - means[1][site]
        np.testing.assert_allclose(held[site], expected, rtol=0, atol=1e-4)
        assert np.abs(expected).max() > 0.1
    assert entry["rouge"] == pytest.approx(contrast_rouge(row["response"], text))


@pytest.mark.slow
def test_pairs_that_are_too_alike_give_no_vector(project: Path) -> None:
    """Rejected answers that are the response, half of it (F1 = 2/3, above 0.2), nothing, and other words."""
    bench = Experiment()
    rows = pl.read_parquet(project / "data/consolidate/2/history.parquet").to_dicts()
    settings = bench.params.arms["fints"].steer
    assert settings is not None and settings.rouge_below == 0.2
    words = rows[3]["response"].split()
    half = " ".join(words[: len(words) // 2])
    answers = [rows[3]["response"], half, "", "zebra"]
    jobs = [PairJob("user 0", rows[3], rows[20:22], answer, settings) for answer in answers]
    cells = [bench.store.read(key) for key in extract(bench, jobs, "test")]
    assert [VECTORS in cell for cell in cells] == [False, False, False, True]


@pytest.mark.slow
def test_a_query_is_steered_by_its_users_own_earlier_items_alone(project: Path) -> None:
    """Also when a later state answers an older query."""
    bench = Experiment()
    arm, state = bench.params.arms["fints"], Steers(bench, 2)
    for period in range(3):
        rows = pl.read_parquet(project / f"data/split/{period}.parquet").filter(pl.col("part") == "test")
        then = Steers(bench, period)
        for row in rows.to_dicts():
            late, early = (some.of(arm, row["user_id"], row) for some in (state, then))
            assert (late is None) == (early is None)
            if late is not None and early is not None:
                assert late.digest == early.digest
    (row,) = rows.filter(pl.col("user_id") == "user 0").to_dicts()
    own = vectors(project, 2).filter(pl.col("user_id") == "user 0")
    stack = state._stack(arm.steer_id or "", "user 0")
    assert stack is not None and len(stack.vectors) == own.height > 5
    similarity = stack.embeddings @ bench.embedder.embed([query_text(row["query"])])[0]
    nearest = np.argsort(-similarity)[:5]
    found = state.of(arm, "user 0", row)
    assert found is not None and found.depth == 23 / 32
    np.testing.assert_allclose(found.vectors, 3 * stack.vectors[nearest].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_steering_changes_answers_and_the_matrix_agrees_with_generation(project: Path) -> None:
    """Reference likelihoods are the steered model's, read in either way; `base` stays the base model."""
    said = pl.concat(pl.read_parquet(project / f"data/generate/{t}/generations.parquet") for t in (1, 2))
    matrix = pl.read_parquet(project / "data/transfer/likelihoods.parquet").filter(pl.col("adapter") == "own")
    diagonal = matrix.filter(pl.col("learned") == pl.col("tested"))
    both = said.join(diagonal, on=["arm", "interaction_id"], validate="1:1")
    assert both.height == 4 * 2 * 3
    assert (both["logp"] - both["logp_right"]).abs().max() < 1e-3
    by_arm = said.pivot("arm", index="interaction_id", values="logp")
    for arm in ("fints", "softly"):
        assert ((by_arm[arm] - by_arm["base"]).abs() > 1e-2).sum() >= 4, arm
    assert ((by_arm["fints"] - by_arm["softly"]).abs() > 1e-2).any()
    scored = pl.concat(pl.read_parquet(project / f"data/score_base/{t}.parquet") for t in (1, 2))
    plain = said.filter(pl.col("arm") == "base").join(scored, on="interaction_id")
    assert plain.height == 6 and (plain["logp"] - plain["logp_right"]).abs().max() < 1e-3
    rag = said.filter(pl.col("arm") == "fints-rag")
    assert rag["contexts"].list.len().to_list() == [2] * 6 and rag["row_steps"].sum() > rag["tokens"].sum()


@pytest.mark.slow
def test_a_second_run_computes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tasks.cells.workbench.Workbench.base", property(lambda self: pytest.fail("model loaded"))
    )
    run(consolidate, monkeypatch, 1)
    assert vectors(project, 1).height > 0


@pytest.mark.slow
def test_nothing_later_and_no_test_item_reaches_a_vector(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Period 2 and all test responses rewritten: the vectors of periods 0 and 1 stay as they are, bitwise."""

    def state() -> tuple[pl.DataFrame, list[dict[str, np.ndarray]]]:
        index = vectors(project, 1)
        places = index.select("file", "cell").iter_rows()
        held = [read_held(project / "data/consolidate/1" / file, cell) for file, cell in places]
        return index.drop("file"), [load(one[VECTORS]) for one in held]

    index, held = state()
    table = pl.read_csv(project / "table.csv")
    items = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in range(3))
    items = items.with_columns(line=pl.col("interaction_id").str.strip_prefix("row-").cast(pl.Int64))
    late = items.filter((pl.col("part") == "test") | (pl.col("period") == 2))
    lines = (late["line"] - items["line"].min()).to_list()
    assert len(lines) == 3 * (1 + 1 + 6)
    body = pl.when(pl.int_range(pl.len()).is_in(lines)).then(pl.lit("quite other words")).otherwise("body")
    table.with_columns(body=body).write_csv(project / "table.csv")
    for stage in (ingest, split, model, score_base):
        run(stage, monkeypatch)
    for period in range(2):
        for stage in (adapt, consolidate):
            run(stage, monkeypatch, period)
    again, held_again = state()
    assert again.equals(index)
    for before, after in zip(held, held_again, strict=True):
        assert all(np.array_equal(before[site], after[site]) for site in ("attn", "mlp"))
    assert pl.read_parquet(project / "data/split/1.parquet")["response"].str.contains("quite").sum() == 3
