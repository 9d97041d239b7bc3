"""Files of DVC that were cut while they were written: told apart from whole ones, and put right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.before import LOCK, RUNNING, are_as_before, is_torn, mend
from tasks.quick_yaml import write_yaml
from tasks.stage import BEGAN

ROOT = Path(__file__).parents[2]
WHOLE = (ROOT / "dvc.lock").read_text(encoding="utf-8")
NOTE = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  size: 12\n  nfiles: 3\n  path: parts\n"


def put(path: Path, text: str, *, ago: float = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    then = path.stat().st_mtime - ago
    os.utime(path, (then, then))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that has a lock and a note."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / LOCK, WHOLE)
    put(tmp_path / "live/parts.dvc", NOTE)
    who = ("-c", "user.name=me", "-c", "user.email=me@here")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "all")):
        subprocess.run(["git", *words], check=True)
    return tmp_path


def test_whole_files_are_whole() -> None:
    assert not is_torn(LOCK, WHOLE) and not is_torn(Path("parts.dvc"), NOTE)
    assert not is_torn(LOCK, "schema: '2.0'\nstages: {}\n") and not is_torn(RUNNING, "{}")


@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_lock_is_torn_or_dvc_takes_it(cut: int) -> None:
    """DVC's own schema decides: what it would refuse is found, and nothing that it takes."""
    import yaml
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    text = WHOLE[:cut]
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))
        refused = False
    except (Invalid, yaml.YAMLError):
        refused = True
    assert is_torn(LOCK, text) == refused


@pytest.mark.parametrize("text", ["", "outs:\n- md5: 01", NOTE[: NOTE.index("  path")], "- a", "- a: ["])
def test_a_cut_note_is_torn(text: str) -> None:
    assert is_torn(Path("parts.dvc"), text)


def test_what_is_torn_is_that_of_the_last_commit(project: Path) -> None:
    put(project / LOCK, WHOLE[: WHOLE.index("cmd:") + 2])
    put(project / "live/parts.dvc", "outs:\n- md5: 01")
    put(project / RUNNING, '{"a": [')
    said: list[str] = []
    mend(said.append, [Path("live/parts.dvc"), Path("live/none.dvc")])
    assert (project / LOCK).read_text() == WHOLE and (project / "live/parts.dvc").read_text() == NOTE
    assert not (project / RUNNING).exists()
    assert said == [
        "dvc.lock was half-written by a run that was ended, and is that of the last commit again",
        ".dvc/tmp/rwlock was half-written by a run that was ended, and was removed",
        "live/parts.dvc was half-written by a run that was ended, and is that of the last commit again",
    ]
    mend(said.append)
    assert len(said) == 3


def test_what_is_whole_stays_whatever_the_commit_has(project: Path) -> None:
    other = "schema: '2.0'\nstages: {}\n"
    put(project / LOCK, other)
    mend(pytest.fail)
    assert (project / LOCK).read_text() == other


def test_without_a_commit_it_goes(tmp_path: Path) -> None:
    put(tmp_path / LOCK, "stages:\n  a")
    said: list[str] = []
    mend(said.append, root=tmp_path)
    assert said == ["dvc.lock was half-written by a run that was ended, and was removed"]
    assert not (tmp_path / LOCK).exists()


def test_who_writes_at_the_moment_is_waited_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run beside this one may be at it."""
    put(project / LOCK, "stages:\n  a", ago=0)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        put(project / LOCK, WHOLE)

    monkeypatch.setattr("time.sleep", sleep)
    mend(pytest.fail)
    assert len(waited) == 1 and 0 < waited[0] <= 5


def test_a_clock_that_was_set_back_is_not_waited_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(project / LOCK, "stages:\n  a", ago=-3600)
    monkeypatch.setattr("time.sleep", pytest.fail)
    mend(lambda _: None)
    assert (project / LOCK).read_text() == WHOLE


def test_the_check_before_a_run_mends(project: Path) -> None:
    for name in ("params.yaml", "suites"):
        (project / name).symlink_to(ROOT / name)
    put(project / LOCK, WHOLE[: WHOLE.index("cmd:") + 2])
    command = [sys.executable, "-m", "flows.before"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert "dvc.lock was half-written" in done.stderr and (project / LOCK).read_text() == WHOLE


def test_parameters_are_checked_unless_the_run_before_began_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another value, another suite, no run before, or what is no YAML: looked at."""
    monkeypatch.chdir(tmp_path)
    Path("suites").mkdir()
    Path("suites/own.yaml").write_text("arms: {}\n", encoding="utf-8")
    Path("params.yaml").write_text("seed: 1\nsuite: own\n", encoding="utf-8")
    assert not are_as_before()
    BEGAN.parent.mkdir(parents=True)
    text = write_yaml({"params": {"seed": 1, "suite": "own"}, "suite": "arms: {}\n"})
    BEGAN.write_text(text, encoding="utf-8")
    assert are_as_before()
    for name, other in {"params.yaml": "seed: 2\nsuite: own\n", "suites/own.yaml": "arms: {a: {}}\n"}.items():
        before = Path(name).read_text(encoding="utf-8")
        for wrong in (other, "seed: [\n", "\n"):
            Path(name).write_text(wrong, encoding="utf-8")
            assert not are_as_before()
        Path(name).write_text(before, encoding="utf-8")
    BEGAN.write_text(text[: len(text) // 2], encoding="utf-8")
    assert not are_as_before()
