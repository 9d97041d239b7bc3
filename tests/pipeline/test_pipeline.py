"""The whole experiment on a tiny model: what is computed again, what survives kill -9, what may leak."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from kit.pipeline import ROOT, adapter_bytes, cells, run, run_all, write_params, write_table
from kit.warm import Warm
from safetensors.torch import load, load_file, save_file

from spring.data.forgotten import Forgotten
from spring.data.sources.registry import SOURCES
from spring.engine.device import ModelError
from spring.store.cells import CellStore
from tasks import adapt, consolidate, generate, ingest, model, report, score_base, split, transfer
from tasks.code import MADE
from tasks.steps.experiment import Experiment


def test_from_table_to_report(project, done, monkeypatch):
    run(report, monkeypatch)  # with drawings
    metrics = yaml.safe_load((project / "data/metrics.json").read_text())
    assert set(metrics["arms"]) == {"base", "rag-accum", "oppu-each", "spring", "spring-parametric"}
    assert metrics["users"] == 3 and metrics["periods"] == [1, 2]
    page = (project / "data/report/report.html").read_text()
    assert len(page) > 900_000  # with the library that draws
    assert "learned, 2 in the buffer, 1 asked" in page  # a user's period 1 under spring
    machine = yaml.safe_load((project / "data/generate/2/machine.json").read_text())
    assert machine["device"] == "cpu" and machine["cores"] > 0 and machine["processor"] in page
    # in period 0 everything is learned from scratch by both recipes: the same adapters, trained once
    first = pl.read_parquet(project / "data/adapt/0/index.parquet")
    assert first["recipe"].n_unique() == 2 and first["cell"].n_unique() == 3
    # 6 items a period, 5 of them train: the drift set is ceil(0.3 * 5) = 2
    later = pl.read_parquet(project / "data/adapt/1/scores.parquet")
    assert later.group_by("user_id").agg(pl.col("selected").sum())["selected"].to_list() == [2, 2, 2]
    # deciding what to learn takes time where there is something to decide; what is kept, where scores decide
    decided = pl.concat(pl.read_parquet(project / f"data/adapt/{t}/index.parquet") for t in range(3))
    decides = pl.col("recipe").is_in(later["recipe"].implode()) & (pl.col("period") > 0)
    assert decided.select(((pl.col("seconds_score") > 0) == decides).all()).item()
    assert all(arm["seconds_score"] > 0 for name, arm in metrics["arms"].items() if name.startswith("spring"))
    assert metrics["arms"]["spring"]["seconds_score"] > metrics["arms"]["spring-parametric"]["seconds_score"]
    assert metrics["arms"]["oppu-each"]["seconds_score"] == metrics["arms"]["base"]["seconds_score"] == 0


def test_the_base_arm_reports_the_base_model_and_lambda_0_the_adapter(project, done, monkeypatch):
    """Reference log-likelihoods of `base` are those of score_base; a closed gate equals lambda 0."""
    said = pl.read_parquet(project / "data/generate/1/generations.parquet")
    base = pl.read_parquet(project / "data/score_base/1.parquet")
    joined = said.filter(pl.col("arm") == "base").join(base, on="interaction_id")
    assert joined.height == 3
    assert (joined["logp"] - joined["logp_right"]).abs().max() < 1e-3
    closed = said.filter((pl.col("arm") == "spring") & (pl.col("contexts").list.len() == 0))
    alone = said.filter(pl.col("arm") == "spring-parametric")
    same = closed.join(alone, on="interaction_id")
    assert same["text"].to_list() == same["text_right"].to_list()
    rag = said.filter(pl.col("arm") == "rag-accum")
    assert rag["contexts"].list.len().to_list() == [4, 4, 4]


def test_nothing_retrieved_or_learned_is_later_than_the_query(project, done, monkeypatch):
    when = dict(
        pl.read_parquet(project / "data/ingest/interactions.parquet")
        .select("interaction_id", "timestamp")
        .iter_rows()
    )
    seen = 0
    for t in (1, 2):
        said = pl.read_parquet(project / f"data/generate/{t}/generations.parquet")
        for item, contexts in said.select("interaction_id", "contexts").iter_rows():
            seen += len(contexts)
            assert all(when[c] < when[item] for c in contexts)
        learned = pl.read_parquet(project / f"data/adapt/{t}/index.parquet")
        tests = pl.read_parquet(project / f"data/split/{t}.parquet").filter(pl.col("part") == "test")
        first_test = dict(tests.group_by("user_id").agg(pl.col("timestamp").min()).iter_rows())
        for user, chosen in learned.select("user_id", "chosen").iter_rows():
            assert all(when[c] < first_test[user] for c in chosen)
    assert seen > 0


def test_a_second_run_computes_nothing(project, done, monkeypatch):
    before = cells(project)
    monkeypatch.setattr(
        "tasks.cells.workbench.Workbench.base", property(lambda self: pytest.fail("model loaded"))
    )
    for t in range(3):
        for stage in (adapt, consolidate, generate):
            run(stage, monkeypatch, t)
    run(transfer, monkeypatch)
    assert cells(project) == before


def test_editing_one_user_computes_that_user_alone_and_leaves_the_others_bitwise(project, done, monkeypatch):
    before, adapters = cells(project), adapter_bytes(project, 2)
    base_scores = pl.read_parquet(project / "data/score_base/2.parquet")
    write_table(project / "table.csv", users=3, items=18, edited="user 1")
    run_all(monkeypatch)
    new = cells(project) - before
    again = adapter_bytes(project, 2)
    assert new and again.keys() == adapters.keys()
    changed = {name for name in again if again[name] != adapters[name]}
    assert len(changed) == 2 and all("/user-1-" in name for name in changed)  # two recipes of one user
    others = pl.col("user_id") != "user 1"
    assert (
        pl.read_parquet(project / "data/score_base/2.parquet")
        .filter(others)
        .equals(base_scores.filter(others))
    )
    # every user has as many cells: the edited one costs a third of a run at most; another's tests are read
    # with the edited one's adapters, of two recipes, in three periods, with and without context
    assert len(new) <= len(before) / 3 + 2 * 3 * 2


@pytest.mark.slow
def test_a_user_leaving_changes_nobody_else(project, done, monkeypatch):
    """Trained anew in other company: equal up to the order of float32 sums."""
    with_all = {name: load(content) for name, content in adapter_bytes(project, 2).items()}
    table = pl.read_csv(project / "table.csv")
    table.filter(pl.col("who") != "user 0").write_csv(project / "table.csv")
    shutil.rmtree(project / ".cells")
    run_all(monkeypatch)
    left = {name: load(content) for name, content in adapter_bytes(project, 2).items()}
    assert {name.split("/")[2][:6] for name in left} == {"user-1", "user-2"}
    for name, tensors in left.items():
        for key, tensor in tensors.items():
            assert (tensor - with_all[name][key]).abs().max() < 2e-5, (name, key)
            assert tensor.abs().max() > 1e-3


def test_one_more_arm_that_decodes_otherwise_trains_nothing(project, done, monkeypatch, tiny_model_folder):
    before = cells(project, "generations.json")
    write_params(
        project, tiny_model_folder, arms__eager={"retrieve": {"gate": None}, "decode": {"lmbda": 0.1}}
    )
    monkeypatch.setattr("spring.engine.training.train", lambda *_, **__: pytest.fail("trained"))
    run_all(monkeypatch)
    assert len(cells(project, "generations.json") - before) == 2 * 3  # 2 periods, 3 users


@pytest.mark.slow
def test_one_more_period_leaves_older_cells_alone(project, done, monkeypatch, tiny_model_folder):
    before = cells(project)
    older = {t: adapter_bytes(project, t) for t in range(3)}
    write_table(project / "table.csv", users=3, items=24)
    write_params(project, tiny_model_folder, periods=4)
    run_all(monkeypatch, periods=4)
    assert {t: adapter_bytes(project, t) for t in range(3)} == older
    # period 3 of 3 users: base scores 3, drift 3, adapters 2 x 3, buffer 3, generations 5 x 3
    new = cells(project) - before
    assert len(new - cells(project, "logps.json")) <= 30


def test_weights_that_were_overwritten_are_not_taken_for_those_of_before(
    tmp_path, monkeypatch, tiny_model_folder
):
    own = tmp_path / "own"
    shutil.copytree(tiny_model_folder, own)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    write_table(Path("table.csv"), users=3, items=18)
    write_params(Path(), own)
    for stage in (ingest, split, model):
        run(stage, monkeypatch)
    assert Experiment().base.digest
    weights = load_file(own / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1}, own / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.id: .*own has changed.*dvc repro --force model"):
        run(score_base, monkeypatch)


@pytest.mark.slow
def test_replayed_items_take_part_in_training(project, monkeypatch, tiny_model_folder):
    """Buffer items beside the drift set: in period 2 a quarter of each batch comes from the buffer."""
    arms = {"base": {"train": None, "memory": None}, "replayed": {"train": {"replay_share": 0.25}}}
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    kept = pl.read_parquet(project / "data/consolidate/1/buffers.parquet")
    assert kept.group_by("user_id").len()["len"].to_list() == [2, 2, 2]
    learned = pl.read_parquet(project / "data/adapt/2/index.parquet")
    assert learned["items"].to_list() == [2, 2, 2]  # the drift set alone counts as learned
    with_replay = learned["tokens"].to_list()
    arms["replayed"] = {}
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    without = pl.read_parquet(project / "data/adapt/2/index.parquet")["tokens"].to_list()
    assert all(a > b for a, b in zip(with_replay, without, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["okapi", "dense", "hybrid"])
def test_other_retrieval_memory_and_gate(project, monkeypatch, tiny_model_folder, by):
    """A soft gate scales lambda; the memory of one period holds its train items only."""
    arm = {"memory": {"scope": "period"}, "retrieve": {"by": by, "gate": "soft", "sigma": 0.2}}
    arms = {"base": {"train": None, "memory": None}, "softly": arm}
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    said = pl.read_parquet(project / "data/generate/2/generations.parquet").filter(pl.col("arm") == "softly")
    assert said["lmbda"].is_between(0, 0.5, closed="none").all()
    period = set(pl.read_parquet(project / "data/split/2.parquet")["interaction_id"])
    assert {item for items in said["contexts"].to_list() for item in items} <= period


@pytest.mark.slow
def test_without_training_nothing_breaks(project, monkeypatch, tiny_model_folder):
    arms = {"base": {"train": None, "memory": None}, "remembering": {"train": None}}
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    assert pl.read_parquet(project / "data/consolidate/2/buffers.parquet").height == 3 * 10


@pytest.mark.long
def test_kill_9_in_adapt_loses_the_batch_in_flight_and_nothing_else(
    tmp_path, monkeypatch, tiny_model_folder, warm_python
):
    """The finished cells are not computed again; the result is bit-identical to an undisturbed run."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.csv", users=40, items=12)
    write_params(tmp_path, tiny_model_folder, periods=2, arm__train__epochs=4)
    for stage in (ingest, split, model, score_base):
        run(stage, monkeypatch)
    command = ["-m", "tasks.adapt", "--period", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    scored = cells(tmp_path)
    process = warm_python.start(*command, environment=environment)
    deadline = time.monotonic() + 120
    while not cells(tmp_path) - scored:
        assert process.poll() is None and time.monotonic() < deadline, "adapt ended before it was killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "data/adapt/0").exists()
    survived = {name: stamp(tmp_path, name) for name in cells(tmp_path) - scored}
    assert 0 < len(survived) < 40
    assert warm_python.run(*command, environment=environment).returncode == 0
    assert {name: stamp(tmp_path, name) for name in survived} == survived
    resumed = adapter_bytes(tmp_path, 0)
    undisturbed = {**environment, "SPRING_CELLS": str(tmp_path / "other-cells")}
    assert warm_python.run(*command, environment=undisturbed).returncode == 0
    assert len(resumed) == 80  # two recipes
    assert adapter_bytes(tmp_path, 0) == resumed


def stamp(folder: Path, name: str) -> tuple[bytes, bytes]:
    """What tells that a lesson was not learned again: its weights, and how long they took."""
    cell = CellStore(folder / ".cells").read(name)
    return cell["curve.json"], cell["adapter_model.safetensors"]


@pytest.mark.slow
def test_made_sources_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Warm
) -> None:
    """Personas are made once, and again when somebody was forgotten; a table that was touched comes back."""
    for name in ("spring", "tasks", "suites", "dvc.yaml", "params.yaml", ".dvcignore"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    environment = {
        **os.environ,
        "PATH": f"{warm_python.folder}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }

    def ran(*words: str) -> list[str]:
        done = warm_python.run("-m", "dvc", *words, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"Running stage '(.*?)'", done.stdout)

    ran("init", "--no-scm", "--quiet")
    assert ran("repro", "ingest") == ["code", "ingest"]
    rows = pl.read_parquet("data/ingest/interactions.parquet")
    assert ran("repro", "ingest") == ["code"]
    rows.head(1).write_parquet("data/ingest/interactions.parquet")
    ran("repro", "ingest")
    assert rows.equals(pl.read_parquet("data/ingest/interactions.parquet"))
    gone = rows["user_id"][0]
    Path("live").mkdir()
    Path("live/forgotten.json").write_text(Forgotten().with_user(gone).text(), encoding="utf-8")
    assert ran("repro", "ingest") == ["code", "ingest"] and ran("repro", "ingest") == ["code"]
    assert gone not in pl.read_parquet("data/ingest/interactions.parquet")["user_id"]
    assert {name for name, source in SOURCES.items() if source.make is not None} == set(MADE)


@pytest.mark.slow
def test_dvc_runs_the_whole_map_and_then_nothing(tmp_path, monkeypatch, tiny_model_folder, warm_python):
    """`dvc repro` on a copy of the project; the second run finds nothing to do."""
    for name in ("spring", "tasks", "suites", "dvc.yaml", ".dvcignore"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.csv", users=2, items=12)
    write_params(tmp_path, tiny_model_folder, periods=2)
    environment = {
        **os.environ,
        "PATH": f"{warm_python.folder}{os.pathsep}{os.environ['PATH']}",  # where stages find `python`
        "DVC_NO_ANALYTICS": "1",
    }

    def call(*words: str) -> str:
        done = warm_python.run("-m", "dvc", *words, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("init", "--no-scm", "--quiet")
    call("--wait-for-lock", "repro")
    assert (tmp_path / "data/report/report.html").exists()
    assert "base" in call("metrics", "show", "--json")
    again = call("--wait-for-lock", "repro")
    assert re.findall(r"Running stage '(.*?)'", again) == ["code", "ingest"]  # which look what has changed
    write_table(tmp_path / "table.csv", users=2, items=12, edited="user 1")  # new rows are noticed
    assert "Running stage 'adapt@1'" in call("--wait-for-lock", "repro", "adapt")
    call("--wait-for-lock", "repro")
    remote = tmp_path / "remote"
    call("remote", "add", "--default", "local", str(remote))
    call("push")
    shutil.rmtree(tmp_path / "data/report")
    shutil.rmtree(tmp_path / ".dvc/cache")
    call("pull", "report")
    assert (tmp_path / "data/report/report.html").exists()
