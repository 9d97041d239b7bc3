"""The flow on a toy project: real DVC, a real Prefect server of its own, stages that note that they ran."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import yaml
from kit.tracking import made_metrics, write_params
from kit.warm import Warm
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.testing.utilities import prefect_test_harness

from flows.experiment import (
    StageError,
    dvc,
    environment,
    experiment,
    lines,
    stages_in_order,
    started,
    why_killed,
)
from spring.settings.params import ParameterError

ROOT, PYTHON = Path(__file__).parents[2], sys.executable
# By name, `above` would come before what it needs.
STAGES: dict[str, dict[str, object]] = {
    "zero": {"cmd": "echo zero >> ran; echo 0 > zero", "params": ["seed"], "outs": ["zero"]},
    "each": {
        "foreach": "${periods}",
        "do": {"cmd": "echo each@${key} >> ran; echo 1 > ${key}", "deps": ["zero"], "outs": ["${key}"]},
    },
    "above": {"cmd": "echo above >> ran; sh ./script", "deps": ["0", "1", "2", "script"], "outs": ["result"]},
    "last": {"cmd": "echo last >> ran", "deps": ["result"]},
}
WORKS = "echo something to read; echo 1 > result"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Warm) -> Path:
    """A DVC project of six stages, the current folder; and a report as if it had been made."""
    write_params(tmp_path)
    (tmp_path / "script").write_text(WORKS, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}), encoding="utf-8")
    (tmp_path / "data/report/plots").mkdir(parents=True)
    (tmp_path / "data/metrics.json").write_text(json.dumps(made_metrics()), encoding="utf-8")
    (tmp_path / "data/report/plots/cost.svg").write_text("<svg/>", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(warm_python.folder / "python"))  # what DVC is started with
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    subprocess.run(dvc("init", "--no-scm", "--quiet"), check=True)
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A Prefect server with an empty database for this module."""
    with prefect_test_harness(server_startup_timeout=90):
        yield


def ran(root: Path) -> list[str]:
    """Which stages ran since this was last asked, in order."""
    notes = root / "ran"
    names = notes.read_text(encoding="utf-8").split() if notes.exists() else []
    notes.write_text("", encoding="utf-8")
    return names


def last_run() -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def logs_say(text: str, run: FlowRun, patience: float = 60) -> bool:
    """Whether the server learns of a logged line: a thread sends them, even after the run is over."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    until = time.monotonic() + patience
    with get_client(sync_client=True) as client:
        while text not in [line.message for line in client.read_logs(only)]:
            if time.monotonic() > until:
                return False
            time.sleep(0.2)
    return True


def shown(key: str) -> str:
    """The latest artifact of this name."""
    artifact = cast("Artifact | None", Artifact.get(key))
    assert artifact is not None
    return str(artifact.data)


# --- without a server -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_order_is_that_of_dvc(toy: Path) -> None:
    needs = stages_in_order()
    each = ["each@0", "each@1", "each@2"]
    assert list(needs) == ["zero", *each, "above", "last"]
    assert needs["zero"] == [] and needs["each@1"] == ["zero"] and sorted(needs["above"]) == each


@pytest.mark.slow
def test_unreadable_stages_are_an_error_in_words(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages: {one: {comand: echo}}", encoding="utf-8")
    with pytest.raises(StageError, match=r"cannot read the stages(.|\n)*comand"):
        stages_in_order()


def test_an_interrupted_stage_leaves_nothing_running(tmp_path: Path) -> None:
    note = tmp_path / "child"
    command = ["sh", "-c", f"sleep 60 & echo $! > {note}; echo ready; wait"]
    with contextlib.suppress(KeyboardInterrupt), started(command) as process:
        assert process.stdout is not None and next(lines(process.stdout)) == "ready"
        raise KeyboardInterrupt
    assert process.poll() is not None
    assert ended(int(note.read_text(encoding="utf-8")))


def ended(process: int) -> bool:
    """Whether a process is gone, or will be in a moment."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_stages_find_this_python() -> None:
    found = subprocess.run(
        ["sh", "-c", "command -v python"], env=environment(), capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).parent == Path(sys.executable).parent


def test_a_killed_stage_is_told_as_such() -> None:
    dvc_says = "ERROR: failed to reproduce 'adapt': failed to run: python -m tasks.adapt, exited with "
    for code, last in [(255, f"{dvc_says}-9"), (255, f"{dvc_says}137"), (-9, ""), (137, "")]:
        assert "killed, most likely for memory: lower model.memory_gb" in why_killed(code, ["a line", last])
    for code, last in [(255, f"{dvc_says}1"), (255, f"{dvc_says}-91"), (-15, ""), (0, "")]:
        assert why_killed(code, [last]) == ""


# --- with a server ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_and_rerun(toy: Path, server: None) -> None:
    experiment()
    assert ran(toy) == ["zero", "each@0", "each@1", "each@2", "above", "last"]
    run = last_run()
    assert run.name.startswith("made-up-seed0-20") and run.state_name == "Completed"
    with get_client(sync_client=True) as client:
        tasks = [task.name for task in client.read_task_runs()]
    assert sorted(tasks) == ["above", "each@0", "each@1", "each@2", "last", "zero"]
    assert logs_say("something to read", run)
    assert "| spring |" in shown("metrics") and "ROUGE-1" in shown("metrics")
    assert shown("plot-cost") == "data:image/svg+xml;base64,PHN2Zy8+"  # <svg/>
    assert str(toy / "data/report/report.html") in shown("report")

    experiment()
    assert ran(toy) == []  # up to date


@pytest.mark.slow
def test_failure_is_retried_and_then_told(toy: Path, server: None) -> None:
    (toy / "script").write_text("echo reason: no such file; exit 3", encoding="utf-8")
    with pytest.raises(StageError, match="reason: no such file") as caught:
        experiment(retries=2, retry_delay=0)
    assert ran(toy) == ["zero", "each@0", "each@1", "each@2", "above", "above", "above"]
    assert "Stage above failed" in str(caught.value)
    assert "dvc repro --single-item above" in str(caught.value)
    run = last_run()
    assert run.state_name == "Failed" and run.state and "reason: no such file" in str(run.state.message)

    (toy / "script").write_text(WORKS, encoding="utf-8")
    experiment()
    assert ran(toy) == ["above", "last"]  # what was finished is kept


@pytest.mark.slow
def test_a_stage_that_the_system_kills(toy: Path, server: None) -> None:
    (toy / "script").write_text("kill -9 $$", encoding="utf-8")
    with pytest.raises(StageError, match=r"killed, most likely for memory: lower model\.memory_gb"):
        experiment(retries=0)


@pytest.mark.slow
def test_stage_that_takes_too_long_is_ended(toy: Path, server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)  # a process that can be ended with its group
    (toy / "script").write_text("echo $$ > pid; exec sleep 60", encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="4"):
        experiment(retries=0, stage_timeout=4)
    assert time.monotonic() - began < 40
    assert ran(toy)[-1] == "above" and ended(int((toy / "pid").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_bad_parameters_stop_it_before_any_stage(toy: Path, server: None) -> None:
    write_params(toy, init_timeout=0)
    with pytest.raises(ParameterError, match="init_timeout is 0"):
        experiment()
    assert ran(toy) == [] and last_run().state_name == "Failed"


@pytest.mark.slow
def test_command_without_a_server(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages: {one: {comand: echo}}", encoding="utf-8")
    (toy / "prefect.toml").write_text((ROOT / "prefect.toml").read_text(encoding="utf-8"), encoding="utf-8")
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
    assert (toy / ".prefect/prefect.db").exists()  # as prefect.toml says
