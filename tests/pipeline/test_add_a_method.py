"""The method that docs/add-a-method.md adds works when one does what the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from kit.pipeline import ROOT, STAGES, write_params, write_table
from kit.warm import Warm

PAGE = (ROOT / "docs/add-a-method.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"`([\w/.-]+)`:\n```(\w+)\n(.*?)```\n", re.S)  # a file's name, then its code
RUN = f"""{STAGES}
import json
import polars as pl
from tasks.params import load_params

index = pl.read_parquet("data/adapt/2/index.parquet")
trained = {{name: arm.recipe for name, arm in load_params().arms.items() if arm.recipe}}
found = {{name: index.filter(pl.col("recipe") == recipe) for name, recipe in trained.items()}}
print(json.dumps({{name: rows["cell", "steps"].to_dict(as_series=False) for name, rows in found.items()}}))
"""


def apply(root: Path) -> None:
    """Writes the new files and makes the changes, where they have not been made."""
    for name, kind, text in BLOCK.findall(PAGE):
        path = root / name
        if kind != "diff":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            continue
        for part in text.split("...\n"):
            lines = part.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            now = path.read_text(encoding="utf-8")
            if after in now:
                continue
            if "\nOnline = Annotated[" in now:
                pytest.skip(f"{name} has another method of `train.online` than the page starts from")
            assert now.count(before) == 1, f"{name} no longer has what the page changes: {before}"
            path.write_text(now.replace(before, after), encoding="utf-8")


def test_the_page_adds_a_method_in_under_60_lines() -> None:
    assert len(PAGE.splitlines()) < 60
    found = BLOCK.findall(PAGE)
    assert [name for name, _, _ in found] == [
        "spring/rivals/easy_first.py",
        "spring/settings/train.py",
        "suites/easy-first.yaml",
        "tests/rivals/test_easy_first.py",
    ]
    added = [
        line
        for _, kind, text in found
        for line in text.splitlines()
        if line.strip() and (kind != "diff" or line.startswith("+"))
    ]
    assert f"{len(added)} lines, for a method" in PAGE


@pytest.mark.slow
def test_the_method_runs(tmp_path: Path, tiny_model_folder: Path, warm_python: Warm) -> None:
    """In a copy of the project: its own test, then all stages. As many steps as in time, other adapters."""
    copied, project = tmp_path / "copy", tmp_path / "project"
    for name in ("spring", "tasks", "suites"):
        shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (copied / "tests", project):
        folder.mkdir()
    apply(copied)
    write_table(project / "table.csv", users=2, items=18)
    write_params(project, tiny_model_folder, suite="easy-first", evaluate__against="in-time")
    environment = {**os.environ, "PYTHONPATH": str(copied)}
    environment.pop("SPRING_CELLS", None)

    def call(*words: str, folder: Path) -> str:
        done = warm_python.run(*words, folder=folder, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    own = call(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/rivals/test_easy_first.py", folder=copied
    )
    assert "1 passed" in own
    found = json.loads(call("-c", RUN, folder=project).splitlines()[-1])
    assert found["easy-first"]["steps"] == found["in-time"]["steps"] == [5 * 2] * 2
    assert not set(found["easy-first"]["cell"]) & set(found["in-time"]["cell"])
    metrics = json.loads((project / "data/metrics.json").read_text())
    assert set(metrics["arms"]) == {"in-time", "easy-first"}
