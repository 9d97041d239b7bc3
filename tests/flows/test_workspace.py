"""The folder that runs work in: the project as it stood when they began, which gets nothing of theirs."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.workspace import FOLDER, WorkspaceError, workspace


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one commit and edits that are not committed; the current folder."""
    monkeypatch.setattr("flows.workspace.cache_of", lambda project: str(project / ".dvc/cache"))
    files = {"params.yaml": "seed: 0", "code/a.py": "a", "code/b.py": "b", "dvc.lock": "old"}
    files |= {"data/README.md": "", "data/metrics.json": "1", ".dvc/config": ""}
    files |= {".gitignore": "/.prefect/\n/data/*.csv\n/.cells/\n/wandb/\n/.dvc/config.local"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "start")
    (tmp_path / "params.yaml").write_text("seed: 1", encoding="utf-8")
    (tmp_path / "code/new.py").write_text("new", encoding="utf-8")
    (tmp_path / "data/mine.csv").write_text("who,what", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_run_has_the_project_as_it_stands(project: Path) -> None:
    with workspace(print) as place:
        assert place == project / FOLDER
        assert text(place / "params.yaml") == "seed: 1" and text(place / "code/new.py") == "new"
        assert text(place / "data/mine.csv") == "who,what"
        assert git(place, "rev-parse", "HEAD") == git(project, "rev-parse", "HEAD")
        assert git(place, "status", "--porcelain") == git(project, "status", "--porcelain") != ""
        (place / ".cells/one").write_text("cell", encoding="utf-8")
    assert text(project / ".cells/one") == "cell"


def test_what_a_run_writes_stays_there_and_what_was_edited_comes(project: Path) -> None:
    with workspace(print) as place:
        (place / "params.yaml").write_text("seed: 5", encoding="utf-8")
        (place / "dvc.lock").write_text("of the run", encoding="utf-8")
        (place / "data/metrics.json").write_text("2", encoding="utf-8")
        (place / "made").write_text("by a stage", encoding="utf-8")
        (project / "code/a.py").write_text("edited", encoding="utf-8")  # while it runs
        assert text(place / "code/a.py") == "a"
    assert text(project / "params.yaml") == "seed: 1" and text(project / "dvc.lock") == "old"
    assert text(project / "data/metrics.json") == "1"

    (project / "code/b.py").unlink()
    with workspace(print) as place:
        assert text(place / "params.yaml") == "seed: 1" and text(place / "code/a.py") == "edited"
        assert not (place / "code/b.py").exists()
        assert text(place / "dvc.lock") == "of the run" and text(place / "data/metrics.json") == "2"
        assert text(place / "made") == "by a stage"


def test_another_run_waits(project: Path) -> None:
    said: list[str] = []
    went = threading.Event()

    def second() -> None:
        with workspace(said.append):
            went.set()

    with workspace(print):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not went.wait(0.5)
        assert said == [f"Another run works in {FOLDER}; waiting for it to end."]
    assert went.wait(10)
    waiting.join()


def test_without_a_commit_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match="needs the project in Git, with a commit"), workspace(print):
        pass


@pytest.mark.slow
def test_dvc_shares_the_cache(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(project)
    (project / ".dvc/config").unlink()
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--force", "--quiet"], check=True)
    subprocess.run([*dvc, "config", "--local", "core.hardlink_lock", "true"], check=True)
    with workspace(print) as place:
        shown = subprocess.run(
            [*dvc, "config", "--list"], cwd=place, check=True, capture_output=True, text=True
        )
    assert f"cache.dir={project / '.dvc/cache'}" in shown.stdout and "core.hardlink_lock=true" in shown.stdout
