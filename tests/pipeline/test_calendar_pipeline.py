"""Periods of the calendar on a tiny model: users who come, stay away and write late; closed periods stay."""

from __future__ import annotations

import os
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from kit.months import DAYS, START, by_calendar, closed, finish, learn, write_rows
from kit.pipeline import ROOT, adapter_bytes, cells, run

from tasks import adapt, consolidate, generate
from tasks.params import load_params
from tasks.seeds.keeping import keep, read_kept
from tasks.seeds.pooling import pool
from tasks.steps.experiment import Experiment
from tasks.steps.index import read_held

ARMS: dict[str, Any] = {
    "base": {"train": None, "memory": None},
    "spring": {"retrieve": {"sigma": "q2"}},
    "history": {"train": {"data": "current"}, "memory": {"scope": "history"}},
}


BATCHES = [
    {"ann": 4, "bob": 5},
    {"ann": 3, "cem": 4},  # bob is away, cem is new
    {"bob": 1, "dee": 1},  # single texts: learned, not asked
    {"ann": 6, "cem": 2, "dee": 3},
]


def test_users_who_come_and_stay_away(folder, monkeypatch, tiny_model_folder):
    write_rows(folder / "table.csv", BATCHES)
    by_calendar(folder, tiny_model_folder, arms=ARMS, periods=4, evaluate__confidence=0.9)
    learn(monkeypatch, 4)
    rows = pl.concat(pl.read_parquet(f"data/split/{t}.parquet") for t in range(4))
    there = {(u, t): n for t, batch in enumerate(BATCHES) for u, n in batch.items()}
    assert {(u, t): n for u, t, n in rows.group_by("user_id", "period").len().iter_rows()} == there
    # an absent user keeps the cell and the place; nothing is copied, trained or paid
    index = {t: pl.read_parquet(f"data/adapt/{t}/index.parquet") for t in range(4)}
    own = {t: {(r["recipe"], r["user_id"]): r for r in index[t].to_dicts()} for t in range(4)}
    for (recipe, user), row in own[1].items():
        if user == "bob":
            assert row["cell"] == own[0][recipe, "bob"]["cell"] and row["file"].startswith("../0/adapters/")
            assert row["seconds"] == row["tokens"] == row["steps"] == 0
            assert read_held(Path("data/adapt/1") / row["file"], row["cell"])
    assert not [name for name in adapter_bytes(folder, 1) if "/bob-" in name]
    assert {user for _, user in own[1]} == {"ann", "bob", "cem"}
    # a first lesson holds everything, whenever it comes; a lesson counts the user's own
    chosen = {(user, t): set(row["chosen"]) for t in own for (_, user), row in own[t].items()}
    trained = rows.filter(pl.col("part") == "train")
    for user, first in (("ann", 0), ("cem", 1), ("dee", 2)):
        mine = trained.filter((pl.col("user_id") == user) & (pl.col("period") == first))
        assert chosen[user, first] == set(mine["interaction_id"])
        assert {row["lesson"] for (_, who), row in own[first].items() if who == user} == {0}
    assert {row["lesson"] for (_, user), row in own[3].items() if user == "ann"} == {2}
    # buffers of the absent stay, and cost nothing
    memory = Experiment().params.arms["spring"].memory_id
    held = {t: pl.read_parquet(f"data/consolidate/{t}/buffers.parquet").filter(memory=memory) for t in (1, 2)}
    before, after = (held[t].filter(user_id="cem").drop("seconds") for t in (1, 2))
    assert before.equals(after) and before.height and held[2].filter(user_id="cem")["seconds"].sum() == 0
    metrics = finish(monkeypatch)
    answered = pl.concat(pl.read_parquet(f"data/generate/{t}/generations.parquet") for t in (1, 2, 3))
    assert answered.group_by("period").agg(pl.col("user_id").unique().sort()).sort("period").rows() == [
        (1, ["ann", "cem"]),
        (3, ["ann", "cem", "dee"]),
    ]
    assert metrics["users"] == 3 and metrics["arms"]["spring"]["rouge1"]["periods"]["2"] is None
    # ann and cem have tests in two periods or more, dee in one: no transfer of hers, and of bob none after 0
    measured = pl.read_parquet("data/evaluate/transfer.parquet").filter(arm="spring", metric="logp_per_token")
    assert set(measured.drop_nulls("backward")["user_id"]) == {"ann", "cem"}
    matrix = metrics["transfer"]["spring"]["matrix"]
    assert matrix["0"]["2"] is None and matrix["1"]["0"] is not None


def test_nothing_asked_learns_from_or_sees_what_is_later(folder, monkeypatch, tiny_model_folder):
    """Late texts are learned in the period they came in, under their own date, and are never asked."""
    write_rows(folder / "table.csv", BATCHES)
    by_calendar(folder, tiny_model_folder, arms=ARMS, periods=4)
    learn(monkeypatch, 4)
    rows = pl.concat(pl.read_parquet(f"data/split/{t}.parquet") for t in range(4))
    late = rows.filter(pl.col("timestamp") < pl.col("arrived"))
    assert late.height and set(late["part"]) == {"train"}
    assert (
        late["arrived"] >= START + pl.Series(late["period"] * DAYS).cast(pl.Int64) * timedelta(days=1)
    ).all()
    when = dict(rows.select("interaction_id", "timestamp").iter_rows())
    seen = 0
    for t in (1, 2, 3):
        said = pl.read_parquet(f"data/generate/{t}/generations.parquet")
        for item, contexts in said.select("interaction_id", "contexts").iter_rows():
            seen += len(contexts)
            assert all(when[one] <= when[item] for one in contexts)
        learned = pl.read_parquet(f"data/adapt/{t}/index.parquet").explode("chosen")
        asked = dict(said.group_by("user_id").agg(pl.col("interaction_id").first()).iter_rows())
        for user, one in learned.select("user_id", "chosen").iter_rows():
            assert user not in asked or when[one] <= when[asked[user]]
    assert seen > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_closed_periods_stay_as_they_are_whatever_arrives(folder, monkeypatch, tiny_model_folder, seed):
    """Random batches: every file of closed periods is the same, and running them again adds no cell."""
    random = np.random.default_rng(seed)
    batches = [{"ann": 4, "bob": int(random.integers(1, 4))}]
    for _ in range(3):
        users = random.permutation(["ann", "bob", "cem", "dee"])[: random.integers(0, 4)]
        batches.append({str(user): int(random.integers(1, 6)) for user in users})
    minimum = int(random.integers(1, 3))
    before: dict[str, str] = {}
    for t in range(len(batches)):
        write_rows(folder / "table.csv", batches[: t + 1], seed)
        by_calendar(folder, tiny_model_folder, arms=ARMS, periods=max(2, t + 1), split__min_train=minimum)
        learn(monkeypatch, t + 1, after=t)
        assert closed(folder, t) == before
        before = closed(folder, t + 1)
    known = cells(folder)
    for stage, t in ((stage, t) for t in range(len(batches)) for stage in (adapt, consolidate, generate)):
        run(stage, monkeypatch, t)  # again, though DVC would not
    assert cells(folder) == known and closed(folder, len(batches)) == before


@pytest.mark.long
def test_dvc_runs_no_closed_period_again(tmp_path, monkeypatch, tiny_model_folder, warm_python):
    """A batch more, with late texts, and a period more: no stage of a closed one has anything to do."""
    for name in ("spring", "tasks", "suites", "dvc.yaml", ".dvcignore"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    path = f"{warm_python.folder}{os.pathsep}{os.environ['PATH']}"  # where stages find `python`
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}

    def call(*words: str) -> str:
        done = warm_python.run("-m", "dvc", *words, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("init", "--no-scm", "--quiet")
    ran: list[set[str]] = []
    for periods in (2, 3):
        write_rows(tmp_path / "table.csv", BATCHES[:periods])
        by_calendar(tmp_path, tiny_model_folder, arms=ARMS, periods=periods)
        ran.append(set(re.findall(r"Running stage '(.*?)'", call("--wait-for-lock", "repro"))))
    of_periods = {stage for stage in ran[1] if "@" in stage}
    assert of_periods == {"adapt@2", "consolidate@2", "generate@2"} and "adapt@1" in ran[0]
    assert "split" in ran[1] and "report" in ran[1]


@pytest.mark.slow
def test_two_seeds_are_pooled_and_runs_are_logged(folder, monkeypatch, tiny_model_folder):
    """Of users who are asked in some periods only, and a period in which nobody is."""
    shutil.copytree(ROOT / "suites", folder / "suites")
    write_rows(folder / "table.csv", BATCHES)
    for seed in (0, 1):
        by_calendar(folder, tiny_model_folder, arms=ARMS, periods=4, seed=seed, tracking__mode="offline")
        learn(monkeypatch, 4)
        finish(monkeypatch)
        keep(load_params())
    params = load_params()
    pooled = pool(params, read_kept(params, folder / f"data/seeds/{params.experiment}"))
    assert pooled["users"] == 3 and pooled["seeds"] == [0, 1]
    spring = pooled["arms"]["spring"]["rouge1"]["periods"]
    assert spring["2"] is None and spring["3"] is not None
    assert pooled["paired"]["spring"]["rouge1"]["difference"] is not None
    assert len(list((folder / "wandb").glob("offline-run-*/*.wandb"))) >= len(ARMS)
