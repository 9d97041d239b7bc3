"""A project of three users, before and after its stages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kit.pipeline import experiment, write_params, write_table


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    return tmp_path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> Path:
    """The current folder: a table of three users and parameters; nothing has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    write_table(tmp_path / "table.csv", users=3, items=18)
    write_params(tmp_path, tiny_model_folder)
    return tmp_path


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """What all stages make of the project; tests take copies."""
    folder = tmp_path_factory.mktemp("whole-run")
    with experiment(folder, tiny_model_folder):
        return folder


@pytest.fixture
def done(project: Path, whole_run: Path) -> None:
    """All stages have run in `project`, as `run_all` leaves it."""
    shutil.copytree(whole_run, project, dirs_exist_ok=True)
