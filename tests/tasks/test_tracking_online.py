"""What reaches a server: W&B's own client against a stand-in for its server, online and by `wandb sync`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml
from kit.tracking import change
from kit.wandb_server import KEY, Server, serving

ROOT = Path(__file__).parents[2]
ARMS = ("base", "spring", "spring-parametric")  # as many as it takes
pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def project(copy: Path) -> Path:
    """The experiment with fewer arms, and nothing logged."""
    shutil.rmtree(copy / "wandb")
    arms = yaml.safe_load((copy / "params.yaml").read_text(encoding="utf-8"))["arms"]
    change(copy, arms={arm: arms[arm] for arm in ARMS})
    return copy


def python(folder: Path, server: Server | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python program in `folder`; without a server there is an address where nothing listens."""
    url = server.url if server else "http://127.0.0.1:9"
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(url), capture_output=True, text=True, timeout=180
    )


def environment(url: str) -> dict[str, str]:
    """Where the client sends to; twice a second what it would keep for fifteen."""
    hasty = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.5"}
    return {**os.environ, **hasty, "PYTHONPATH": str(ROOT), "WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}


def log(folder: Path, server: Server | None) -> subprocess.CompletedProcess[str]:
    """The end of the stage report, without its drawings."""
    code = "from tasks import report; report.build = lambda *_: None; report.main()"
    return python(folder, server, "-c", code)


def steps(folder: Path, arm: str) -> int:
    """How many lines of history a run of an arm has: periods, optimizer steps, and the table of users."""
    from tasks.evaluate import median_curves
    from tasks.params import load_params

    curves = median_curves(load_params()).filter(pl.col("arms").str.split(" + ").list.contains(arm))
    return 2 + curves.height + 1


def check_all_is_there_once(folder: Path, server: Server) -> None:
    named = {sent["displayName"]: id for id, sent in server.runs.items() if "displayName" in sent}
    assert set(named) == {f"{arm}/0" for arm in ARMS} | {"comparison/0"} and len(server.runs) == len(ARMS) + 1
    assert set(server.ended.values()) == {0} and set(server.ended) == set(server.runs)
    for arm in ARMS:
        id = named[f"{arm}/0"]
        assert len(server.history[id]) == steps(folder, arm)
        assert server.runs[id]["groupName"] == "main" and server.runs[id]["jobType"] == "personas"
        assert json.loads(server.runs[id]["config"])["arm"]["value"] == arm
    [(_, name, data)] = [one for one in server.artifacts if one[0] == "dataset"]
    assert name == "personas-data-seed0"
    assert {run for run, digest in server.used if digest == data} == set(server.runs)
    [adapters] = {digest for run, kind, digest in server.made if run == named["spring/0"] and kind == "lora"}
    assert (named["spring-parametric/0"], adapters) in server.used
    assert {kind for run, kind, _ in server.made if run == named["comparison/0"]} >= {"metrics", "report"}


def test_offline_runs_of_two_reports_are_sent_once(project: Path, server: Server) -> None:
    for title in ("A title", "Another title"):
        change(project, report__title=title)
        assert log(project, None).returncode == 0
    sent = python(project, server, "-m", "wandb", "sync", "--yes")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    check_all_is_there_once(project, server)
    assert log(project, None).returncode == 0  # after they were sent, again
    assert python(project, server, "-m", "wandb", "sync", "--yes").returncode == 0
    check_all_is_there_once(project, server)


@pytest.mark.long
def test_online_runs_of_two_reports_are_there_once(project: Path, server: Server) -> None:
    change(project, tracking__mode="online")
    for _ in range(2):
        ended = log(project, server)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        check_all_is_there_once(project, server)


@pytest.mark.long
def test_a_run_that_was_deleted_comes_back_under_another_id(project: Path, server: Server) -> None:
    """W&B's client asks again for as long as it may before it gives up."""
    change(project, tracking__mode="online", tracking__init_timeout=3)
    assert log(project, server).returncode == 0
    before = dict(server.runs)
    server.deleted = {id for id, sent in before.items() if sent["displayName"] == "spring/0"}
    [deleted] = server.deleted
    assert log(project, server).returncode == 0
    assert set(server.runs) - set(before) == {f"{deleted}-2"}


def test_unreachable_server_is_an_error_in_words_and_no_hang(project: Path) -> None:
    change(project, tracking__mode="online", tracking__init_timeout=1)
    ended = log(project, None)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) <= 5
    assert (
        "run base/0" in ended.stderr
        and "tracking.mode: online" in ended.stderr
        and "wandb sync" in ended.stderr
    )


def test_the_workspace_is_saved_by_one_command(project: Path, server: Server) -> None:
    ended = python(project, server, "-m", "tasks.tracking.workspace")
    assert ended.returncode == 0 and server.url in ended.stdout, ended.stderr
    [view] = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == (
        "me",
        "spring",
        "personas, suite main",
    )


@pytest.mark.long
def test_a_stage_is_followed_online_while_it_computes(project: Path, server: Server) -> None:
    """The first numbers are there before the stage ends; a second attempt goes on with the same run."""
    change(project, tracking__mode="online")
    for _ in range(2):
        code = (
            "import sys, time; from tasks import live; from tasks.params import load_params\n"
            "live.PATIENCE = live.EVERY = 0; one = live.teller(load_params())\n"
            "for n in range(1, 5):\n"
            "    one({'what': 'adapt@1 train', 'unit': 'tok', 'done': n, 'of': 4, 'loss': 1 / n})\n"
            "sys.stdin.read(); live.finished()"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_BASE_URL": server.url}
        environment |= {"WANDB_API_KEY": KEY, "DVC_STAGE": "adapt@1"}
        stage = subprocess.Popen(
            [sys.executable, "-c", code], cwd=project, env=environment, stdin=subprocess.PIPE
        )
        wait(lambda: any(len(lines) >= 4 for lines in server.history.values()))
        assert not server.ended and stage.poll() is None
        stage.communicate(timeout=60)
        wait(lambda: set(server.ended.values()) == {0})
        server.ended.clear()
    [(id, sent)] = server.runs.items()
    assert (sent["displayName"], sent["jobType"]) == ("adapt@1/0", "stage")
    assert server.history[id][3]["train/loss"] == 0.25


def wait(until: object) -> None:
    import time

    for _ in range(600):
        if until():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise AssertionError("it never came")
