"""The flow on a toy project: real DVC, a real Prefect server and worker, stages that note that they ran."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import httpx
import pytest
import yaml
from kit.prefect_server import becomes, worker
from kit.toy import ALL, WORKS, ended, ran
from kit.tracking import write_params
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import ChangeFlowRunState
from prefect.flow_engine import run_flow

from flows.asked import AskedError
from flows.experiment import experiment
from flows.prepare import BEGUN, ask_for_life, make_automation, make_automations
from flows.progress import Progress
from flows.stages import StageError

ROOT, PYTHON = Path(__file__).parents[2], sys.executable
Address = str


def last_run() -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def logs_say(text: str, run: FlowRun, patience: float = 60) -> bool:
    """Whether the server learns of a logged line: a thread sends them, even after the run is over."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))

    def said() -> bool:
        with get_client(sync_client=True) as client:
            return text in [line.message for line in client.read_logs(only)]

    return becomes(said, patience)


def shown(key: str) -> str:
    """The latest artifact of this name."""
    artifact = cast("Artifact | None", Artifact.get(key))
    assert artifact is not None
    return str(artifact.data)


@pytest.mark.slow
def test_run_and_rerun(toy: Path, server: Address) -> None:
    text = (toy / "params.yaml").read_text(encoding="utf-8")
    experiment(overrides=["evaluate.resamples=20"])
    assert ran(toy) == ALL
    run = last_run()
    assert run.name.startswith("made-up-main-seed0-20") and run.state_name == "Completed"
    with get_client(sync_client=True) as client:
        tasks = [task.name for task in client.read_task_runs()]
    assert sorted(tasks) == sorted(ALL)
    assert logs_say("something to read", run)
    assert (toy / "params.yaml").read_text(encoding="utf-8") == text and not (toy / "dvc.lock").exists()

    summary, page = shown("summary"), f"/reports/{run.name}/"
    assert summary.startswith(f"[Open the report]({page}report.html)")
    assert "| spring | +0." in summary and f"![cost]({page}plots/cost.svg)" in summary
    assert "base64" not in summary and float(shown("progress")) == 100
    site = server.removesuffix("/api")
    assert httpx.get(f"{site}{page}report.html").text == "<h1>A report</h1>"
    assert httpx.get(f"{site}{page}plots/cost.svg").headers["content-type"] == "image/svg+xml"

    experiment()
    assert ran(toy) == []  # up to date


@pytest.mark.slow
def test_progress_moves_with_stages_and_their_bars(server: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.progress.EVERY", 0)
    progress = Progress(4)
    progress.begin("split")
    progress.end()
    progress.begin("adapt@1")
    progress.hear("adapt@1 train:  50%|#####     | 1.2k/2.4k [00:35<00:35, 34.2tok/s]")
    artifact = cast("Artifact", Artifact.get("progress"))
    assert float(str(artifact.data)) == 100 * 1.5 / 4
    assert artifact.description == "adapt@1 (2 of 4): adapt@1 train 1.2k/2.4k"


@pytest.mark.slow
def test_seeds_are_run_kept_and_pooled(toy: Path, server: Address) -> None:
    experiment(suite="lambda", seeds=[3, 1])
    assert ran(toy) == ALL + ALL[:1]  # of the second, `zero` alone reads the seed, and writes what was there
    run = last_run()
    assert run.name.startswith("made-up-lambda-seed3-1-20")
    summary = shown("summary")
    for seed in (1, 3):
        page = f"/reports/{run.name}/seed-{seed}/report.html"
        assert f"[seed {seed}]({page})" in summary
        assert httpx.get(f"{server.removesuffix('/api')}{page}").text == "<h1>A report</h1>"


@pytest.mark.slow
def test_failures_are_told_and_what_was_finished_is_kept(
    toy: Path, server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that fails is tried again; then one that the system kills, and one that takes too long."""
    (toy / "script").write_text("echo reason: no such file; exit 3", encoding="utf-8")
    with pytest.raises(StageError, match="reason: no such file") as caught:
        experiment(retries=2, retry_delay=0)
    assert ran(toy) == [*ALL[:5], "above", "above"]
    assert "Stage above failed" in str(caught.value)
    assert "dvc repro --single-item above" in str(caught.value)
    run = last_run()
    assert run.state_name == "Failed" and run.state and "reason: no such file" in str(run.state.message)

    (toy / "script").write_text("kill -9 $$", encoding="utf-8")
    with pytest.raises(StageError, match=r"killed, most likely for memory: lower model\.memory_gb"):
        experiment(retries=0)
    assert ran(toy) == ["above"]

    (toy / "script").write_text(f"echo $$ > {toy}/pid; exec sleep 60", encoding="utf-8")
    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", PYTHON)  # a process that can be ended with its group
        with pytest.raises(TimeoutError, match="6"):
            experiment(retries=0, stage_timeout=6)
    assert time.monotonic() - began < 60
    assert ran(toy) == ["above"] and ended(int((toy / "pid").read_text(encoding="utf-8")))

    (toy / "script").write_text(WORKS, encoding="utf-8")
    experiment()
    assert ran(toy) == ["above", "last"]


@pytest.mark.slow
def test_bad_parameters_stop_it_before_any_stage(toy: Path, server: Address) -> None:
    write_params(toy, init_timeout=0)
    with pytest.raises(AskedError, match="init_timeout is 0"):
        experiment()
    run = last_run()
    assert ran(toy) == [] and run.state_name == "Failed" and run.name.startswith("unusable-parameters")
    assert run.state and "init_timeout is 0" in str(run.state.message)


@pytest.mark.long
def test_killed_with_worker_and_stage_it_ends_and_lets_others_run(toy: Path, server: Address) -> None:
    """Also: a run that is cancelled then; and of runs that fell due meanwhile, one is enough."""
    shutil.copytree(ROOT / "flows", toy / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    tree["deployments"][0]["schedules"] = [{"cron": "* * * * *", "active": False}]
    (toy / "prefect.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    prepare = [PYTHON, "-m", "flows.prepare"]
    done = subprocess.run(prepare, cwd=toy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Deployments: nightly, live, ablation, compare" in done.stdout, (
        done.stderr
    )
    (toy / "script").write_text(f"echo $$ > {toy}/pid; exec sleep 600", encoding="utf-8")
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("experiment/nightly")
        first, second = (client.create_flow_run_from_deployment(deployment.id).id for _ in range(2))

    def state_of(run: object) -> str | None:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run).state_name  # type: ignore[arg-type]

    with worker(toy, environment) as kill:
        assert becomes(lambda: (toy / "pid").exists(), 60)
        assert state_of(first) == "Running" and state_of(second) in ("Scheduled", "Late")
        kill()
        assert ended(int((toy / "pid").read_text(encoding="utf-8")))
        assert state_of(first) == "Running"
        with get_client(sync_client=True) as client:
            crash = ChangeFlowRunState(name=None, state=StateType.CRASHED, message="silent", force=False)
            make_automation(client, "end silent runs", BEGUN, ("*",), 10, crash)  # not after 120
            ask_for_life(client)
            assert becomes(lambda: state_of(first) == "Crashed", 100)
            make_automations(client)
    (toy / "script").write_text(WORKS, encoding="utf-8")
    with worker(toy, environment):
        assert becomes(lambda: state_of(second) == "Completed", 90)


@pytest.mark.slow
def test_of_scheduled_runs_that_wait_the_last_runs(toy: Path, server: Address) -> None:
    with get_client(sync_client=True) as client:
        deployment = experiment.to_deployment("often", cron="*/2 * * * *")
        identity = deployment.apply()
        now = datetime.now(UTC)
        times = {"start_time": str(now - timedelta(minutes=4)), "end_time": str(now)}
        client._client.post(f"/deployments/{identity}/schedule", json=times).raise_for_status()
        runs = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_ASC)
        waiting = [run for run in runs if run.deployment_id == identity and run.expected_start_time <= now]
    assert len(waiting) == 2
    states = [run_flow(experiment, flow_run=run, return_type="state") for run in waiting]
    assert [state.name for state in states] == ["Skipped", "Completed"]
    assert ran(toy) == ALL


@pytest.mark.slow
def test_command_without_a_server(toy: Path, empty: Path) -> None:
    """On a database of its own, where prefect.toml says."""
    (toy / ".prefect").mkdir()
    if empty.exists():  # else Prefect makes one, which takes a while
        shutil.copyfile(empty, toy / ".prefect/prefect.db")
    (toy / "dvc.yaml").write_text("stages: {one: {comand: echo}}", encoding="utf-8")
    shutil.copyfile(ROOT / "prefect.toml", toy / "prefect.toml")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ended = subprocess.run(
        [PYTHON, "-m", "flows.experiment"],
        env={**clean, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 1, ended.stderr
    assert "error: DVC cannot read the stages" in ended.stderr and "comand" in ended.stderr
    with closing(sqlite3.connect(toy / ".prefect/prefect.db")) as kept:
        assert kept.execute("SELECT state_type FROM flow_run").fetchall() == [("FAILED",)]
