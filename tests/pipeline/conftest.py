"""A project of three users, before and after its stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.pipeline import write_params, write_table


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> Path:
    """The current folder: a table of three users and parameters; nothing has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    write_table(tmp_path / "table.csv", users=3, items=18)
    write_params(tmp_path, tiny_model_folder)
    return tmp_path
