"""Builds compared: whose parameters, when it is refused, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from bench import against
from bench.builds import BuildError, Run

ROOT = Path(__file__).parents[2]
OLDER = {
    "periods": {"0": "base", "1": 0},
    "ingest": {"users": 5, "gone": 1, "kinds": ["a"]},
    "train": None,
    "arms": {"base": {"lr": 1}, "old": {}},
}
NEWER = {
    "periods": {"0": "base", "1": 0, "2": 1},
    "ingest": {"users": 8, "fresh": 2, "kinds": ["a", "b"]},
    "train": {"lr": 2},
    "arms": {"base": {"lr": 1}, "new": {}},
}


def test_the_later_build_takes_the_values_of_keys_that_both_have() -> None:
    old, new, said = against.prepare(OLDER, NEWER, {})
    assert old == OLDER
    assert new["periods"] == {"0": "base", "1": 0}
    assert new["ingest"] == {"users": 5, "fresh": 2, "kinds": ["a"]}
    assert new["train"] is None and new["arms"].keys() == {"base", "new"}
    assert said[-2:] == [
        "only the earlier build has (and pays for) the arms old",
        "only the later build has (and pays for) the arms new",
    ]
    assert NEWER["ingest"]["users"] == 8, "what was given must stay as it was"


def test_what_is_asked_for_goes_where_the_key_exists() -> None:
    old, new, said = against.prepare(OLDER, NEWER, {"ingest.users": 2, "ingest.fresh": 7})
    assert old["ingest"]["users"] == new["ingest"]["users"] == 2
    assert "fresh" not in old["ingest"] and new["ingest"]["fresh"] == 7
    assert "ingest.users: 2" in said
    assert "ingest.fresh: 7, in the later build: the other has no such key" in said
    with pytest.raises(BuildError, match=r"--set ingest\.user: neither"):
        against.prepare(OLDER, NEWER, {"ingest.user": 2})


def metrics(**base: object) -> dict:
    return {"arms": {"base": {"rouge1": 0.5, "logp": -4.0, "periods": {"1": 0.25}} | base}}


def test_differences_name_arm_metric_and_how_much() -> None:
    """A tolerance of 0.01: of 1 for the small, of the value for the large; costs do not count."""
    one = metrics(seconds_train=10.0, adapter_bytes=5, tokens=1000, pass_rate=None)
    near = metrics(seconds_train=20.0, adapter_bytes=9, tokens=1009, rouge1=0.509, fresh=3.0)
    assert against.differences(one, near, 0.01) == []
    far = metrics(tokens=1011, periods={"1": 0.3})
    assert against.differences(one, far, 0.01) == [
        "arm base, periods.1: 0.25 and 0.3, 0.05 apart",
        "arm base, tokens: 1000 and 1011, 11 apart",
    ]
    assert against.differences(metrics(), metrics(rouge1=float("nan")), 0.01)
    for other in ({"arms": {"other": {}}}, {"arms": {"base": {"seconds_train": 1}}}):
        with pytest.raises(BuildError, match="in common"):
            against.differences(metrics(), other, 0.01)


def test_periods_of_a_stage_are_added_and_rounds_give_the_median() -> None:
    def run(dvc: float, adapt: float, **more: float) -> Run:
        return Run({"dvc": dvc, "adapt@0": adapt, "adapt@1": 1.0, **more}, dvc + adapt + 1, 100, {})

    older = [run(1, 3), run(1, 4), run(1, 9)]
    newer = [run(1, 1, code=2), run(1, 1, code=3), run(1, 1, code=9)]
    found = against.summary(older, newer)
    assert list(found) == ["dvc", "adapt", "code", "all"]
    assert found["adapt"] == {"older": 5, "newer": 2, "ratio": 0.4, "lowest": 0.2, "highest": 0.5}
    assert found["code"] == {"older": None, "newer": 3, "ratio": None, "lowest": None, "highest": None}
    lines = against.table(found, "abc", "HEAD").splitlines()
    assert lines[3] == "| `adapt` | 5.0 | 2.0 | 0.40 (0.20 to 0.50) |"
    assert lines[4] == "| `code` | – | 3.0 | – |"


# --- with git and DVC -------------------------------------------------------------------------------------

STAGES = {
    "each": {"foreach": "${periods}", "do": {"cmd": "python -m tasks.each ${key}", "outs": ["data/${key}"]}},
    "evaluate": {
        "cmd": "python -m tasks.evaluate",
        "deps": ["data/0", "data/1"],
        "outs": ["data/metrics.json"],
    },
}
EACH = """
import pathlib, sys, spring
assert pathlib.Path(spring.__file__).is_relative_to(pathlib.Path.cwd()), spring.__file__
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path("data", sys.argv[1]).write_text("done")
"""
EVALUATE = """
import json, pathlib, time
time.sleep({wait})
pathlib.Path("data/metrics.json").write_text(json.dumps({{"arms": {{"base": {{"rouge1": {value}}}}}}}))
"""


def git(*words: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three commits of a project of three stages: its metric is 1, then 1.0001, then 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.machine.RESULTS", tmp_path / "results")
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["periods"] = {"0": "base", "1": 0}
    files = {"params.yaml": yaml.safe_dump(tree), "dvc.yaml": yaml.safe_dump({"stages": STAGES})}
    files |= {"tasks/__init__.py": "", "spring/__init__.py": "", "tasks/each.py": EACH}
    files |= {".gitignore": "data\nresults\n"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    git("init")
    subprocess.run([sys.executable, "-m", "dvc", "--quiet", "init"], check=True)
    shutil.copyfile(ROOT / ".dvc/config", tmp_path / ".dvc/config")  # no look for updates
    for value, wait in ((1, 0), (1.0001, 0), (2, 0), (1, 600)):
        (tmp_path / "tasks/evaluate.py").write_text(EVALUATE.format(value=value, wait=wait))
        git("add", "--all")
        git("commit", "--message", f"{value}")
    return tmp_path


@pytest.mark.long
def test_builds_that_agree_are_compared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    against.main(["HEAD~3", "--to", "HEAD~2", "--rounds", "2", "--users", "3"])
    assert "| `each` |" in capsys.readouterr().out
    found = json.loads((project / "results/against.json").read_text())
    assert found["stages"].keys() == {"dvc", "each", "evaluate", "all"}
    assert [list(one) for one in found["runs"]["newer"]] == [["dvc", "each@0", "each@1", "evaluate"]] * 2
    assert "ingest.personas.users: 3" in found["changed"]
    assert len(git("worktree", "list").splitlines()) == 1


@pytest.mark.slow
def test_builds_that_differ_are_refused(project: Path) -> None:
    with pytest.raises(SystemExit, match=r"arm base, rouge1: 1 and 2, 1 apart") as refused:
        against.main(["HEAD~3", "--to", "HEAD~1", "--rounds", "1"])
    assert isinstance(refused.value.code, str), "the exit status must not be 0"
    assert not (project / "results").exists()
    assert len(git("worktree", "list").splitlines()) == 1


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_end_in_the_middle_leaves_nothing(project: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Asked to end while a stage runs: no worktree, no folder, no process of it."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "results")}
    (tmp_path / "results").mkdir()
    command = [sys.executable, "-m", "bench.against", "HEAD~3", "--to", "HEAD", "--rounds", "2"]
    with subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "HEAD, evaluate" not in said.replace("HEAD~3", ""):
            said += process.stderr.read(1)
        process.send_signal(how)
        assert process.wait(60) != 0
    assert list((tmp_path / "results").iterdir()) == []
    assert len(git("worktree", "list").splitlines()) == 1
    for _ in range(50):
        if not running(str(tmp_path / "results")):
            break
        time.sleep(0.1)
    assert not running(str(tmp_path / "results"))


def running(folder: str) -> list[str]:
    """Processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
        except OSError:
            continue
        if where.is_relative_to(folder):
            found.append(process.name)
    return found
