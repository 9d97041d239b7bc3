"""Projects for flows: a toy, and a pair to forget somebody in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.forgetting import Pair, make_pair
from kit.prefect_server import prefect_server
from kit.toy import make_toy
from kit.warm import Warm


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Warm) -> Path:
    """The toy project, the current folder; DVC starts in no time."""
    make_toy(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(warm_python.folder / "python"))  # what DVC is started with
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return tmp_path


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an empty database of Prefect's lies once a server has made one, for all workers."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "empty-prefect.db"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Iterator[str]:
    """A Prefect server with an empty database for a module; the address of its API."""
    with prefect_server(tmp_path_factory.mktemp("prefect"), empty) as address:
        yield address


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, warm_python: Warm) -> Pair:
    """A live project with somebody to forget, and one that never had them."""
    return make_pair(tmp_path_factory.mktemp("pair"), tiny_model_folder, warm_python.folder / "python")
