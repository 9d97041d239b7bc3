"""All methods of suites/compare.yaml in one experiment on a tiny model, from interactions to the report."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from kit.pipeline import WORDS, changed_state, experiment, index, lay_out, run, stagger
from peft import PeftModel
from polars.testing import assert_frame_equal
from safetensors.torch import load
from torch.nn.functional import normalize
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks import adapt, consolidate, generate, ingest, model, score_base, split
from tasks.params import load_params
from tasks.steps.index import read_held, user_folder
from tasks.suites import valued

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())["suite_values"]
SUITE = valued(yaml.safe_load((ROOT / "suites/compare.yaml").read_text()), VALUES)
SMALL = {"arm__memory__capacity": 4}  # of a buffer, so that something has to go
ALIKE = [  # arms that must share adapters, since they differ in how they answer alone
    ("oppu-accum", "cope"),
    ("oppu-each", "fints-oppu"),
    ("spring", "spring-popi", "fints-spring", "cope-spring", "cad-spring"),
    *((name, f"{name}-retrieval") for name in ("cama", "sar", "o-lora", "ewc-lora", "surprise")),
]
KEPT = ["history", "buffers", "vectors", "profiles", "steers", "gate_scores"]  # tables that are carried on
AT_FIRST = [  # arms whose settings matter from period 1 on: what to hold, replay, leave out or read besides
    ("current", "oppu-each", "oppu-accum", "spring-parametric", "cama", "sar", "replay-random", "reservoir"),
    ("current", "replay-loss", "ewc-lora", "ewc-lora-strong", "o-lora", "o-lora-0"),
    ("rag-each", "rag-accum"),
    ("pag-each", "pag-accum"),
]
BY_HAND = ["base", "oppu-each", "oppu-accum", "oppu-task", "spring-parametric", "current", "current-ffn"]
BY_HAND += ["sar", "o-lora", "ewc-lora", "surprise", "asls-adaptation"]  # an adapter alone answers, or none


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Path]:
    """Three users through three periods of 6 items, 5 of them train, in the current folder.

    Their periods overlap: some items come too late for what users share.
    """
    folder = tmp_path_factory.mktemp("compare")
    changes = {"arms": SUITE["arms"], "evaluate__against": "spring", **SMALL}
    with experiment(folder, tiny_model_folder, prepare=stagger, **changes):
        yield folder


@pytest.fixture(scope="module")
def metrics(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "data/metrics.json").read_text())
    return found


def test_every_method_answers_and_is_compared(project: Path, metrics: dict[str, Any]) -> None:
    assert set(metrics["arms"]) == set(SUITE["arms"])
    assert set(metrics["paired"]) == set(SUITE["arms"]) - {"spring"}
    for t in (1, 2):
        said = pl.read_parquet(project / f"data/generate/{t}/generations.parquet")
        tests = pl.read_parquet(project / f"data/split/{t}.parquet").filter(pl.col("part") == "test")
        answered = dict(said.group_by("arm").agg(pl.col("interaction_id").sort()).iter_rows())
        assert answered == dict.fromkeys(SUITE["arms"], sorted(tests["interaction_id"]))


def test_arms_are_alike_before_their_settings_matter_and_no_two_afterwards(project: Path) -> None:
    """Log-likelihoods of the nine references: 0.001 nats apart at most, or 0.05 at least."""
    read = pl.read_parquet(project / "data/transfer/likelihoods.parquet").sort("interaction_id")
    read = read.filter(pl.col("adapter") == "own")
    states: list[dict[str, np.ndarray]] = [
        {
            str(arm): mine["logp"].to_numpy()
            for (arm,), mine in read.filter(pl.col("learned") == t).group_by("arm", maintain_order=True)
        }
        for t in range(3)
    ]
    assert all(logp.shape == (9,) for state in states for logp in state.values())
    for first, *others in AT_FIRST:
        for other in others:
            assert np.abs(states[0][first] - states[0][other]).max() < 1e-3, (first, other)
    for state in states[1:]:
        for one, other in itertools.combinations(SUITE["arms"], 2):
            assert np.abs(state[one] - state[other]).max() > 0.05, (one, other)


def test_an_adapter_alone_answers_as_peft_and_transformers_do(project: Path, tiny_model_folder: Path) -> None:
    """One query of the last period by hand: the chat of params.yaml, the response, the end of its turn."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    rows = pl.read_parquet(project / "data/split/2.parquet").filter(pl.col("part") == "test")
    row = rows.row(by_predicate=pl.col("user_id") == "user 1", named=True)
    subject = json.loads(row["query"])["SUBJECT"]
    asked = f"Write the body of the commit message with the subject '{subject}'."
    chat = [
        {"role": "system", "content": "You are a software developer."},
        {"role": "user", "content": asked},
    ]
    turn = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer.encode(turn, add_special_tokens=False)
    answer = [*tokenizer.encode(row["response"], add_special_tokens=False), tokenizer.eos_token_id]
    said = pl.read_parquet(project / "data/generate/2/generations.parquet")
    found = dict(said.filter(pl.col("user_id") == "user 1").select("arm", "logp").iter_rows())
    for arm in BY_HAND:
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
        for recipe in index(project, 2, arm).filter(pl.col("user_id") == "user 1")["recipe"]:
            place = lay_out(project, 2) / "adapt/2/adapters" / recipe / user_folder("user 1")
            model = PeftModel.from_pretrained(model, place)
        with torch.inference_mode():
            logps = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        expected = sum(float(logps[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
        assert found[arm] == pytest.approx(expected, abs=1e-3), arm


def test_the_penalty_of_o_lora_keeps_periods_apart(project: Path) -> None:
    """Rows of A of the last period against those before: |cosines| of 0.05 with the penalty, 0.13 without."""
    for user in range(3):
        mean = {}
        for arm in ("o-lora", "o-lora-0"):
            file, cell = index(project, 2, arm).select("file", "cell").row(user)
            state = load(read_held(project / "data/adapt/2" / file, cell)["adapter_model.safetensors"])
            unit = [normalize(value) for name, value in state.items() if "lora_A" in name]
            mean[arm] = float(torch.cat([(a[4:] @ a[:4].T).abs() for a in unit]).mean())
        assert mean["o-lora"] < 0.7 * mean["o-lora-0"]


def rewritten(table: Path, *, period: int) -> pl.DataFrame:
    """Other words for all texts of a period of six items, and for the response of every period's last."""
    other = dict(zip(WORDS, WORDS[1:] + WORDS[:1], strict=True))
    rows = []
    for row in pl.read_csv(table).with_columns(n=pl.int_range(pl.len()).over("who")).to_dicts():
        late, test = row["n"] // 6 >= period, row["n"] % 6 == 5
        for column in ("subject", "body") if late else ("body",) if test else ():
            row[column] = " ".join(other.get(word, word) for word in f"{row[column]} cup".split())
        rows.append(row)
    return pl.DataFrame(rows).drop("n")


def test_no_state_knows_later_items_or_a_test_response(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last period's texts and all test items' responses are others, and all before it is learned anew.

    What each arm has learned, kept, written and answered stays: no test item is learned from or replayed.
    """
    monkeypatch.chdir(tmp_path)
    rewritten(project / "table.csv", period=2).write_csv(tmp_path / "table.csv")
    shutil.copyfile(project / "params.yaml", tmp_path / "params.yaml")
    for stage in (ingest, split, model, score_base):
        run(stage, monkeypatch)
    for t in (0, 1):
        for stage in (adapt, consolidate, generate):
            run(stage, monkeypatch, t)
    for t in range(3):
        old, new = (pl.read_parquet(folder / f"data/split/{t}.parquet") for folder in (project, tmp_path))
        changed = (old["part"] == "test") | (t == 2)
        assert (old["interaction_id"] == new["interaction_id"]).all()
        assert ((old["response"] != new["response"]) == changed).all() and changed.any()
        assert ((old["query"] != new["query"]) == (t == 2)).all()
    assert changed_state(project, tmp_path, periods=2) == set()
    recipes = {arm.recipe for arm in load_params().arms.values()} - {None}
    for t in (0, 1):
        chosen = pl.col("recipe", "user_id", "chosen", "items", "tokens")
        assert_alike(project, tmp_path, f"adapt/{t}/index", chosen)
        assert set(pl.read_parquet(f"data/adapt/{t}/index.parquet")["recipe"]) >= recipes
        for name in KEPT:
            assert_alike(project, tmp_path, f"consolidate/{t}/{name}", pl.all().exclude("seconds", "cell"))
    answered = pl.col("arm", "interaction_id", "text", "contexts", "lmbda", "sigma")
    assert_alike(project, tmp_path, "generate/1/generations", answered)


def assert_alike(before: Path, after: Path, name: str, columns: pl.Expr) -> None:
    """Equal tables with something in them, numbers up to the order of float32 sums."""
    old, new = (
        pl.read_parquet(folder / f"data/{name}.parquet").select(columns) for folder in (before, after)
    )
    assert old.height > 0, name
    old, new = (frame.drop("file", strict=False) for frame in (old, new))  # a segment has seconds in it
    assert_frame_equal(old, new, rel_tol=1e-4, abs_tol=1e-4)


def test_arms_share_adapters(project: Path) -> None:
    """As many recipes as there are trainings, whatever the number of arms."""
    from tasks.suites import parse_with_suite

    tree = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    arms = parse_with_suite(tree | {"suite": "compare"}, "params.yaml").arms
    for first, *others in ALIKE:
        assert {arms[other].recipe for other in others} == {arms[first].recipe}, first
    trained = pl.read_parquet(project / "data/adapt/2/index.parquet")["recipe"].n_unique()
    assert len({arm.recipe for arm in arms.values()} - {None}) == trained
