"""Stages followed while they compute: real stages of a small run, a real process that logs, real records."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.pipeline import run, write_params, write_table
from kit.tracking import Run

from tasks import adapt, consolidate, ingest, live, model, score_base, split
from tasks.live import Teller, teller
from tasks.params import load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A small experiment whose period 0 is done."""
    folder = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_table(folder / "table.csv", users=3, items=18)
        write_params(folder, tiny_model_folder, tracking__mode="offline", tracking__tags=["a tag"])
        for stage in (ingest, split, model, score_base):
            run(stage, patch)
        run(adapt, patch, 0)
        run(consolidate, patch, 0)
    return folder


@pytest.fixture
def project(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same in a folder of its own, as DVC would start adapt@1 there."""
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True, symlinks=True)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(live.STAGE, "adapt@1")
    monkeypatch.setattr(live, "PATIENCE", 0.0)
    monkeypatch.setattr(live, "EVERY", 0.0)
    opened: list[Teller] = []
    monkeypatch.setattr(live, "_open", opened)
    yield tmp_path
    for one in opened:
        end(one)


def end(one: Teller) -> None:
    """As when the stage's process ends."""
    assert one.process is not None and one.process.stdin is not None
    one.process.stdin.close()
    assert one.process.wait(60) == 0, (Path("wandb/live.log")).read_text(encoding="utf-8")


def records(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_progress_and_loss_reach_a_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(adapt, monkeypatch, 1)
    [one] = live._open
    live.finished()
    end(one)
    found = Run(records(project)[0])
    assert (found.about["display_name"], found.about["job_type"], found.exit) == ("adapt@1/0", "stage", 0)
    assert (found.about["run_group"], found.about["tags"]) == ("main", ["a tag"])
    assert (found.config["stage"], found.config["seed"]) == ("adapt@1", 0)
    losses = [row["train/loss"] for row in found.history if "train/loss" in row]
    shares = [row["train/share"] for row in found.history if "train/share" in row]
    assert losses and all(loss > 0 for loss in losses)
    assert shares == sorted(shares) and shares[-1] == 1
    assert any("drift/share" in row for row in found.history)
    assert not (project / "wandb/live.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_stage_that_is_killed_leaves_a_failed_run_and_the_next_replaces_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = teller(load_params())
    assert one is not None
    one({"what": "adapt@1 train", "unit": "tok", "done": 5, "of": 10, "loss": 2.0})
    end(one)  # without `finished`
    [first] = records(project)
    killed = Run(first)
    assert killed.exit == 1 and killed.history[0]["train/tok"] == 5
    monkeypatch.setattr(live, "_open", [])
    run(adapt, monkeypatch, 1)
    [again] = live._open
    live.finished()
    end(again)
    [second] = records(project)
    found = Run(second)
    assert second != first and (found.exit, found.about["run_id"]) == (0, killed.about["run_id"])


def test_found_cells_and_short_stages_start_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE", 60.0)
    run(adapt, monkeypatch, 1)
    assert not live._open and not records(project)
    monkeypatch.setattr(live, "PATIENCE", 0.0)
    run(adapt, monkeypatch, 1)  # all cells are there
    assert not live._open and not records(project)


@pytest.mark.parametrize("setting", ["mode", "stage"])
def test_nobody_is_told_where_that_is_not_wanted(
    project: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params()
    assert teller(params) is not None
    if setting == "stage":  # started by hand
        monkeypatch.delenv(live.STAGE)
    else:
        off = params.tracking.model_copy(update={"mode": "disabled"})
        params = params.model_copy(update={"tracking": off})
    assert teller(params) is None


def test_who_does_not_listen_holds_nothing_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that reads nothing: the pipe is full after some hundred messages."""
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleeping, stdin=subprocess.PIPE) as deaf:
        monkeypatch.setattr(live, "start", lambda: deaf)
        one = teller(load_params())
        assert one is not None
        began = time.monotonic()
        for done in range(3000):
            one({"what": "adapt@1 train", "unit": "tok", "done": done, "of": 3000, "loss": 1.0})
        deaf.kill()
        deaf.wait()
        one({"what": "adapt@1 train", "unit": "tok", "done": 3000, "of": 3000})  # into a broken pipe
        assert one.pipe is None and time.monotonic() - began < 5
    live._open.clear()


@pytest.mark.slow
def test_the_run_is_there_while_the_stage_computes(project: Path) -> None:
    """A stage that goes on for long: its record grows; after kill -9 of the stage the run ends by itself."""
    code = (
        "import time; from tasks import live; from tasks.params import load_params\n"
        "live.PATIENCE = live.EVERY = 0; one = live.teller(load_params())\n"
        "for n in range(10**6):\n"
        "    one({'what': 'adapt@1 train', 'unit': 'tok', 'done': n, 'of': 10**6, 'loss': 1.0})\n"
        "    time.sleep(0.05)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    stage = subprocess.Popen([sys.executable, "-c", code], cwd=project, env=environment)

    def wait_for(seen: int) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            sizes = [file.stat().st_size for folder in records(project) for file in folder.glob("*.wandb")]
            if sum(sizes) > seen:
                return sum(sizes)
            time.sleep(0.1)
        raise AssertionError("nothing is recorded")

    wait_for(wait_for(0))
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    until = time.monotonic() + 60
    while Run(records(project)[0]).exit is None:
        assert time.monotonic() < until
    assert Run(records(project)[0]).exit == 1
