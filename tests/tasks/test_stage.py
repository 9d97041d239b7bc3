"""Stages under DVC: of one state, the only one, and gone with DVC. Made-up stages, and real DVC."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tasks import stage
from tasks.files import write_text
from tasks.stage import BEGAN, STAGE, ancestors, run

ROOT = Path(__file__).parents[2]
DVC = {
    "stages": {
        "split": {
            "cmd": "python -m tasks.split",
            "deps": ["input", "folder", "suites/${suite}.yaml"],
            "params": ["seed", "model.id"],
            "outs": ["output"],
        }
    }
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stage `split` with a file, a folder and a suite, as DVC starts it after the stage `code`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(DVC), encoding="utf-8")
    set_params(seed=0, suite="main", model={"id": "a", "dtype": "x"}, report={"title": "t"})
    for name in ("suites/main.yaml", "input", "folder/inner/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before", encoding="utf-8")
    began()
    monkeypatch.setenv(STAGE, "split")
    return tmp_path


def set_params(**values: object) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def change(key: str, value: object) -> None:
    params = stage.read_params()
    set_params(**{**params, key: value})


def began() -> None:
    """What the stage `code` leaves."""
    BEGAN.parent.mkdir(parents=True, exist_ok=True)
    suite = Path("suites/main.yaml").read_text(encoding="utf-8")
    BEGAN.write_text(yaml.safe_dump({"params": stage.read_params(), "suite": suite}), encoding="utf-8")
    (BEGAN.parent / "split").write_text(stage.Code().digest("tasks.split") + "\n", encoding="utf-8")


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "a parameter": (lambda: change("seed", 1), "params.yaml: seed"),
    "a parameter inside": (lambda: change("model", {"id": "b", "dtype": "x"}), "params.yaml: model.id"),
    "the suite": (lambda: Path("suites/main.yaml").write_text("after"), "suites/main.yaml"),
    "a file": (lambda: Path("input").write_text("another"), "input"),
    "a file in a folder": (lambda: Path("folder/inner/file").write_text("another"), "folder"),
    "a new file": (lambda: Path("folder/new").write_text("x"), "folder"),
    "a file that goes": (lambda: Path("input").unlink(), "input"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_under_a_stage_fails_it(what: str, project: Path) -> None:
    act, named = CHANGES[what]
    with pytest.raises(SystemExit) as caught:
        run(lambda: act() and None)
    assert f"{named} changed while split ran" in str(caught.value)


@pytest.mark.parametrize("what", ["a parameter", "a parameter inside", "the suite"])
def test_what_changed_since_the_run_began_is_refused(what: str, project: Path) -> None:
    act, named = CHANGES[what]
    act()
    done: list[int] = []
    with pytest.raises(SystemExit) as caught:
        run(lambda: done.append(1))
    assert f"{named} changed since this run began" in str(caught.value) and not done


def test_what_the_stage_does_not_read_may_change(project: Path) -> None:
    done: list[int] = []

    def main() -> None:
        change("report", {"title": "another"})
        change("model", {"id": "a", "dtype": "y"})
        Path("elsewhere").write_text("x")
        done.append(1)

    run(main)
    assert done


def test_changed_code_is_noticed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the stage, and under it."""
    digests = iter(["one", "two"])
    monkeypatch.setattr(stage.Code, "digest", lambda *_: next(digests))
    (BEGAN.parent / "split").write_text("one\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="code changed while split ran"):
        run(lambda: None)
    monkeypatch.setattr(stage.Code, "digest", lambda *_: "three")
    with pytest.raises(SystemExit, match="code changed since this run began"):
        run(lambda: pytest.fail("ran"))


def test_without_dvc_nothing_is_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STAGE)
    run(lambda: change("seed", 1))


@pytest.mark.parametrize(("number", "said"), [(errno.EROFS, "read-only disk"), (errno.ENOSPC, "full disk")])
def test_a_disk_that_takes_nothing_is_named(number: int, said: str, project: Path) -> None:
    def main() -> None:
        raise OSError(number, os.strerror(number), "data/x")

    with pytest.raises(SystemExit, match=f"error: a {said}: .*data/x"):
        run(main)

    def in_rust() -> None:
        raise RuntimeError(f"writing data/x: {os.strerror(number)} (os error {number})")

    with pytest.raises(SystemExit, match=f"error: a {said}: .*data/x"):
        run(in_rust)

    def other() -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file", "y")

    with pytest.raises(FileNotFoundError):
        run(other)


@pytest.mark.parametrize("what", ["file", "link"])
@pytest.mark.parametrize("address", ["split", "code", None])
def test_what_stands_in_the_way_of_data_is_named(
    what: str, address: str | None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk is not there that `data` is a link to."""
    shutil.rmtree("data")
    if address is None:
        monkeypatch.delenv(STAGE)
    else:
        monkeypatch.setenv(STAGE, address)
    if what == "file":
        Path("data").touch()
    else:
        Path("data").symlink_to("elsewhere/data")
    with pytest.raises(SystemExit) as caught:
        run(lambda: write_text("x", stage.DATA / "split/0"))
    is_what = "a file, and" if what == "file" else "a link to elsewhere/data, which is not there"
    assert str(caught.value).startswith(f"error: data is {is_what}") and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["data", "cells"])
def test_folders_that_cannot_be_written_are_told_in_a_line(what: str, project: Path) -> None:
    """Read-only as a disk is where root, whom modes do not stop, may mount one; else by their modes."""
    (project / "cells").mkdir()
    place = "Path('data/split/0')" if what == "data" else "CellStore(Path('cells')).root"
    code = (
        "from pathlib import Path\nfrom spring.store.cells import CellStore\nfrom tasks import stage\n"
        f"from tasks.files import write_text\nstage.run(lambda: write_text('x', {place}))\n"
    )
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0:
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 77; exec "$@"'
        command = ["unshare", "-m", "sh", "-c", mount, str(project / what), *command]
        told = "error: a read-only disk: "
    else:
        (project / what).chmod(0o555)
        told = "error: no rights: "
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    finally:
        (project / what).chmod(0o755)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("nothing may be mounted here")
    [line] = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(told) and line.endswith("start again")


# --- processes --------------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
from pathlib import Path
from tasks import stage

def main():
    with Path("log").open("a") as log:
        print("begin", file=log, flush=True)
        time.sleep(float(sys.argv[1]))
        print("end", file=log, flush=True)

stage.run(main)
"""


def start(project: Path, seconds: float, *, behind: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    (project / "child.py").write_text(CHILD, encoding="utf-8")
    command = [*behind, sys.executable, "child.py", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=project, env=environment, text=True, stderr=subprocess.PIPE)


def wait_for(project: Path, text: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not (project / "log").exists() or text not in (project / "log").read_text():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_process_waits_for_the_first(project: Path) -> None:
    first = start(project, 1.5)
    wait_for(project, "begin")
    second = start(project, 0)
    _, said = second.communicate(timeout=60)
    assert first.wait(60) == second.returncode == 0
    assert (project / "log").read_text().split() == ["begin", "end", "begin", "end"]
    assert "split is still running in another process" in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_stage_ends_when_dvc_is_gone(project: Path) -> None:
    """Killed like DVC, which leaves the command that it started; behind a shell, too."""
    starter = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    for shell in ((), ("sh", "-c", '"$@"; exit $?', "sh")):
        (project / "log").unlink(missing_ok=True)
        dvc = start(project, 40, behind=(sys.executable, "-c", starter, *shell))
        wait_for(project, "begin")
        dvc.send_signal(signal.SIGKILL)
        again = start(project, 0)
        assert again.wait(60) == 0
        assert (project / "log").read_text().split() == ["begin", "begin", "end"]
        assert dvc.stderr is not None and "DVC is gone" in dvc.stderr.read()


def test_who_started_dvc_may_go(project: Path) -> None:
    """The parent is no shell: it is DVC, and whose child that is does not matter."""
    assert ancestors()[0] == os.getppid()
    code = "from tasks.stage import ancestors; import os; assert ancestors() == [os.getppid()], ancestors()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_real_dvc_records_no_mixture(tmp_path: Path) -> None:
    """A parameter is edited while a stage runs: DVC records nothing; the next run is of the new one alone."""
    stages = {
        "code": {"cmd": "python code.py", "always_changed": True, "outs": [{"data/code": {"cache": False}}]},
        "split": {
            "cmd": "python child.py 3",
            "params": ["seed"],
            "deps": ["data/code/split"],
            "outs": ["out"],
        },
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    (tmp_path / "params.yaml").write_text("seed: 0\n", encoding="utf-8")
    text = "from spring.code import Code\nfrom tasks import code\n"
    text += "code.digests = lambda _: {'split': Code().digest('tasks.split')}\ncode.main()\n"
    (tmp_path / "code.py").write_text(text, encoding="utf-8")
    write = 'Path("out").write_text(Path("params.yaml").read_text())\n    with Path'
    (tmp_path / "child.py").write_text(CHILD.replace("with Path", write, 1), encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}

    def dvc(*words: str) -> list[str]:
        return [sys.executable, "-m", "dvc", *words]

    subprocess.run(dvc("init", "--no-scm", "-q"), cwd=tmp_path, check=True, env=environment)
    running = subprocess.Popen(dvc("repro"), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path, "begin")
    (tmp_path / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    _, said = running.communicate(timeout=120)
    assert running.returncode != 0 and "params.yaml: seed changed while split ran" in said
    lock = tmp_path / "dvc.lock"
    assert not lock.exists() or "split" not in yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    subprocess.run(dvc("repro", "-q"), cwd=tmp_path, check=True, env=environment)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "seed: 1\n"
