"""A person is forgotten: what is left is, to the last bit, a project that never had them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kit.live import LiveProject, after
from kit.warm import Warm

from bench.live import rest, state, told, version_bytes, write_batch

pytestmark = pytest.mark.slow
WEEKS = (  # bob's id is in another's; dee comes when bob is away
    {"ann": 4, "bob": 5, "bobby": 3},
    {"ann": 3, "cem": 4},
    {"bob": 2, "bobby": 2, "cem": 3},
)


def drop(project: LiveProject, week: int, *, without: str = "") -> None:
    """Puts the texts of a week into the inbox."""
    file = project.folder / f"inbox/week-{week}.jsonl"
    write_batch(file, week, WEEKS[week])
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    rest(file, "".join(line for line in lines if json.loads(line)["who"] != without))


@pytest.fixture(scope="module")
def begun(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, warm_python: Warm
) -> LiveProject:
    """Three weeks, an update each, all pushed to a remote; nobody changes it."""
    folder = tmp_path_factory.mktemp("forgetting") / "project"
    made = LiveProject(folder, tiny_model_folder, warm_python.folder / "python")
    made.dvc("remote", "add", "--local", "--default", "store", "../../store")
    for week in range(3):
        drop(made, week)
        made.update(after(week + 1))
    return made
