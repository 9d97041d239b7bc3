"""The continual rivals through all stages on a tiny model: what is kept, who learns from whom, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from kit.pipeline import (
    adapter_bytes,
    cells,
    changed_state,
    experiment,
    index,
    lay_out,
    learn_anew,
    run,
    state_files,
)
from safetensors.torch import load_file

from spring.engine.embedding import Embedder
from spring.engine.scoring import token_logps
from spring.method.replay import clusters
from spring.method.retrieval import document_text
from spring.rivals.sar import SarDraw
from spring.store.keys import fingerprint
from tasks import adapt
from tasks.cells.scoring import place
from tasks.cells.workbench import plain
from tasks.files import EVERYBODY
from tasks.params import load_params
from tasks.steps.experiment import Experiment
from tasks.steps.index import user_folder

pytestmark = pytest.mark.slow

ALONE: dict[str, Any] = {"decode": {"lmbda": 0.0}}
BUFFER: dict[str, Any] = {"policy": "reservoir", "first_period": 0, "capacity": 7}
O_LORA: dict[str, Any] = {"train": {"data": "current", "rule": {"method": "o-lora", "lambda1": 0.5}}}
ARMS: dict[str, Any] = {
    "base": {"train": None, "memory": None},
    "cama": {"train": {"data": "confident", "replay_share": 0.5}, "memory": BUFFER, **ALONE},
    "sar": {
        "train": {"data": "current", "replay_share": 0.5, "replay_draw": "sar"},
        "memory": BUFFER,
        **ALONE,
    },
    "again": {
        "train": {"data": "current", "replay_share": 0.5, "replay_draw": "own"},
        "memory": BUFFER,
        **ALONE,
    },
    "o-lora": {**O_LORA, "memory": None, **ALONE},
    "o-lora-retrieval": {**O_LORA, "memory": {"first_period": 0}, "retrieve": {"gate": None}},
    "ewc-lora": {
        "train": {"data": "current", "rule": {"method": "ewc-lora", "lmbda": 1000, "gamma": 1.0}},
        "memory": None,
        **ALONE,
    },
    "surprise": {
        "train": {"data": "current", "replay_share": 0.5, "rule": {"method": "surprise", "decay": 0.9}},
        "memory": {"policy": "loss", "first_period": 0, "capacity": 4},
        **ALONE,
    },
}
USERS = [f"user {u}" for u in range(3)]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """All arms through three periods, in the current folder."""
    folder = tmp_path_factory.mktemp("continual")
    with experiment(folder, tiny_model_folder, arms=ARMS) as patch:
        yield folder, patch


@pytest.fixture
def project(finished: tuple[Path, pytest.MonkeyPatch]) -> Path:
    return finished[0]


def folders(project: Path, period: int, arm: str) -> list[Path]:
    rows = index(project, period, arm).select("recipe", "user_id")
    place = lay_out(project, period) / f"adapt/{period}/adapters"
    return [
        place / recipe / user_folder(user) for recipe, user in rows.select("recipe", "user_id").iter_rows()
    ]


def test_the_rank_of_o_lora_grows_and_its_retrieval_arm_trains_nothing(project: Path) -> None:
    arms = load_params(project / "params.yaml").arms
    assert arms["o-lora"].recipe == arms["o-lora-retrieval"].recipe
    for period, rank in enumerate((2, 4, 6)):
        for folder in folders(project, period, "o-lora"):
            config = json.loads((folder / "adapter_config.json").read_text())
            assert (config["r"], config["lora_alpha"]) == (rank, 4 * rank)  # alpha 8 at rank 2
            state = load_file(folder / "adapter_model.safetensors")
            assert {value.shape[0] for name, value in state.items() if "lora_A" in name} == {rank}
    said = pl.read_parquet(project / "data/generate/2/generations.parquet")
    found = {arm: said.filter(pl.col("arm") == arm) for arm in ("o-lora", "o-lora-retrieval")}
    assert found["o-lora-retrieval"]["contexts"].list.len().to_list() == [2, 2, 2]
    assert found["o-lora"]["contexts"].list.len().to_list() == [0, 0, 0]
    assert (found["o-lora"]["logp"] != found["o-lora-retrieval"]["logp"]).all()


def test_own_items_drawn_again_take_as_many_steps_as_replay_and_nothing_of_the_past(project: Path) -> None:
    bench, period = Experiment(), 2
    for t in range(3):
        assert index(project, t, "again")["steps"].to_list() == index(project, t, "sar")["steps"].to_list()
    first = [load_file(folders(project, 0, arm)[0] / "adapter_model.safetensors") for arm in ("again", "sar")]
    assert all(torch.equal(value, first[1][name]) for name, value in first[0].items())  # nothing to draw yet
    recipe = bench.params.arms["again"].recipe
    for case in adapt.read_cases(bench, EVERYBODY, period):
        if case.recipe == recipe:
            case.chosen = case.rows
            job = adapt.job_of(bench, case, period)
            assert case.replay and list(job.replay) == list(case.rows)


def test_what_a_rule_carries_lies_beside_the_adapter_and_is_gone_on_from(project: Path) -> None:
    for period in range(3):
        for arm, name in (("ewc-lora", "fisher"), ("surprise", "fast")):
            for folder in folders(project, period, arm):
                carried = load_file(folder / "carried.safetensors")
                adapter = load_file(folder / "adapter_model.safetensors")
                assert carried[name].shape == (sum(value.numel() for value in adapter.values()),)
        assert not any(
            (folder / "carried.safetensors").exists() for folder in folders(project, period, "sar")
        )
    fishers = [
        load_file(folders(project, t, "ewc-lora")[0] / "carried.safetensors")["fisher"] for t in range(3)
    ]
    assert (fishers[2] >= fishers[1]).all() and (fishers[1] >= fishers[0]).all()  # gamma 1: they add up
    assert fishers[0].min() >= 0 and fishers[0].max() > 0


def test_cama_learned_what_its_adapter_is_surer_of_than_the_one_before_was_a_period_ago(
    project: Path,
) -> None:
    """Recomputed one by one for every user of period 2: items meet the adapter of the period before."""
    bench = Experiment()
    arm = bench.params.arms["cama"]
    learned = {row["user_id"]: row["chosen"] for row in index(project, 2, "cama").to_dicts()}
    rows = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in (1, 2)).filter(
        pl.col("part") == "train"
    )
    for user in USERS:
        sure: dict[int, dict[str, float]] = {1: {}, 2: {}}
        for t, found in sure.items():
            adapter = bench.adapters(t - 1).of(arm.recipe, user)
            assert adapter is not None
            with bench.bank(adapter.lora, 1) as bank:
                place(bank, 0, adapter)
                for row in rows.filter((pl.col("user_id") == user) & (pl.col("period") == t)).to_dicts():
                    text = bench.prompter.text(row["task"], row["query"], row["response"], slot=0)
                    [logps] = token_logps(bench.base.model, bank, [text], budget=4096)
                    found[row["interaction_id"]] = float(np.exp(logps.mean()))
        bar = float(np.mean(list(sure[1].values())))
        expected = [item for item, value in sure[2].items() if value > bar]
        expected = expected or [max(sure[2], key=lambda item: sure[2][item])]
        assert learned[user] == expected
    left = [5 - len(row) for t in (1, 2) for row in index(project, t, "cama")["chosen"]]
    assert max(left) > 0  # of 5 a user: something was left out


def test_sar_counts_uses_over_periods(project: Path) -> None:
    """5 train items a period, 2 epochs; 2 new and 2 old a batch: 6 batches, the last of an epoch of 1 new.

    Period 0 has no buffer: 10 uses. Later 10 of new items and 6 * 2 of old ones, on top of those before.
    """
    for user in range(3):
        names = {}
        rows = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in range(3))
        for row in rows.filter(pl.col("user_id") == USERS[user]).to_dicts():
            names[fingerprint(plain(row))] = row["period"]
        uses = [json.loads((folders(project, t, "sar")[user] / "uses.json").read_text()) for t in range(3)]
        assert sum(uses[0].values()) == 10 and set(uses[0].values()) == {2}
        assert sum(uses[1].values()) == 10 + 10 + 12 and len(uses[1]) == 10
        new = [count for name, count in uses[2].items() if names[name] == 2]
        assert new == [2] * 5 and len(uses[2]) == 5 + 7
        for name, count in uses[2].items():
            if names[name] < 2:
                assert count >= uses[1][name]
        assert sum(uses[2][n] - uses[1][n] for n in uses[2] if names[n] < 2) == 12


def test_sar_draws_by_the_clusters_of_the_buffer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lessons of later periods are told, and the uses they leave: six draws of two, three an epoch."""
    jobs: list[Any] = []

    def spy(bench: Experiment, asked: list[Any], what: str) -> Any:
        jobs.extend(asked)
        raise InterruptedError

    monkeypatch.setattr(adapt, "train", spy)
    bench, embedder = Experiment(), Embedder("all-minilm-l6-v2", device="cpu")
    for t in (1, 2):
        jobs.clear()
        with pytest.raises(InterruptedError):
            run(adapt, monkeypatch, t)
        draws = {job.rows[0]["user_id"]: job.draw for job in jobs if job.draw is not None}
        assert set(draws) == set(USERS)
        for user, rows in buffer_of(project, t - 1, "sar").items():
            vectors = embedder.embed([document_text(row["query"], row["response"]) for row in rows])
            labels = clusters(vectors.astype(np.float64), seed=bench.seed(user, t)).tolist()
            assert draws[user].clusters == tuple(labels) and len(set(labels)) > 1, user
            before, after = (uses_of(project, period, user, rows) for period in (t - 1, t))
            assert draws[user].uses == tuple(before) and min(before) > 0
            generator = torch.Generator().manual_seed(bench.seed(user, t))
            drawn = SarDraw(tuple(labels), tuple(before))(2, generator)
            for _ in range(2):
                torch.randperm(5, generator=generator)  # the order of the new items
                for i in (i for _ in range(3) for i in next(drawn)):
                    before[i] += 1
            assert after == before


def buffer_of(project: Path, period: int, arm: str) -> dict[str, list[dict[str, Any]]]:
    """What an arm's buffers hold after a period, in time order, by user."""
    memory = load_params(project / "params.yaml").arms[arm].memory_id
    folder = project / f"data/consolidate/{period}"
    held = pl.read_parquet(folder / "buffers.parquet").filter(pl.col("memory") == memory)
    rows = pl.read_parquet(folder / "history.parquet").join(
        held, on=["user_id", "interaction_id"], how="semi"
    )
    return {str(user): mine.sort("timestamp").to_dicts() for (user,), mine in rows.group_by("user_id")}


def uses_of(project: Path, period: int, user: str, rows: list[dict[str, Any]]) -> list[int]:
    """How often SAR has trained on each of a user's rows."""
    folder = folders(project, period, "sar")[USERS.index(user)]
    known = json.loads((folder / "uses.json").read_text())
    return [known[fingerprint(plain(row))] for row in rows]


def test_nothing_learned_is_later_than_the_first_query_it_serves(project: Path) -> None:
    when = dict(
        pl.read_parquet(project / "data/ingest/interactions.parquet")
        .select("interaction_id", "timestamp")
        .iter_rows()
    )
    for t in range(3):
        learned = pl.read_parquet(project / f"data/adapt/{t}/index.parquet")
        tests = pl.read_parquet(project / f"data/split/{t}.parquet").filter(pl.col("part") == "test")
        first = dict(tests.group_by("user_id").agg(pl.col("timestamp").min()).iter_rows())
        assert learned.height == 6 * 3
        assert learned.filter(pl.col("seconds_score") > 0).height == 3  # cama alone asks
        for user, chosen in learned.select("user_id", "chosen").iter_rows():
            assert chosen and all(when[item] < first[user] for item in chosen)


def test_a_second_run_computes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, adapters = cells(project), adapter_bytes(project, 2)
    monkeypatch.setattr(Experiment, "base", property(lambda self: pytest.fail("model loaded")))
    for t in range(3):
        run(adapt, monkeypatch, t)
    assert cells(project) == before and adapter_bytes(project, 2) == adapters


def test_no_users_state_depends_on_another(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user's texts change and all is learned anew: adapters, and what lies beside, of the others stay."""
    edited = tmp_path / "edited"
    learn_anew(edited, project, monkeypatch, edited="user 1")
    states = {name for t in range(3) for name in state_files(edited, t)}
    assert changed_state(project, edited) == {
        name for name in states if "/user-1-" in name and not name.endswith("adapter_config.json")
    }
    assert {name.rsplit("/", 1)[1] for name in states} >= {"carried.safetensors", "uses.json"}
    others = pl.col("user_id") != "user 1"
    for t in (1, 2):
        old, new = (
            pl.read_parquet(folder / f"data/generate/{t}/generations.parquet").filter(others)
            for folder in (project, edited)
        )
        answered = ["arm", "interaction_id", "text", "contexts"]
        assert old.select(answered).equals(new.select(answered)) and old.height == 2 * len(ARMS)
        assert (old["logp"] - new["logp"]).abs().max() < 1e-3
