"""A scorer, a policy, a source and a metric of one's own: what docs/extend.md says each takes is all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from kit.pipeline import ROOT, STAGES, write_params

NEW = {
    "spring/method/shortest.py": '''
"""The shortest responses, in tokens."""

import numpy as np

from spring.method.drift import Batch, Floats


def shortest(batch: Batch) -> Floats:
    return -np.asarray(batch.tokens, dtype=np.float64)
''',
    "spring/method/oldest.py": '''
"""The earliest."""

import numpy as np

from spring.method.replay import Candidates, Indices


def oldest(candidates: Candidates, capacity: int, seed: int) -> Indices:
    return np.argsort(np.asarray(candidates.times), kind="stable").astype(np.int64)
''',
    "spring/data/sources/diary.py": '''
"""A line a day."""

from collections.abc import Iterator

from spring.data.rows import RawRow
from spring.engine.strict import PositiveInt, Strict


class DiarySource(Strict):
    users: PositiveInt
    days: PositiveInt


def read(source: DiarySource) -> Iterator[RawRow]:
    for user in range(source.users):
        for day in range(1, source.days + 1):
            yield RawRow(
                row=user * source.days + day,
                where=f"user {user}, day {day}",
                user_id=f"user {user}",
                interaction_id=f"{user}-{day}",
                timestamp=f"2024-01-{day:02d}",
                task="diary",
                query={"DAY": str(day)},
                response=f"day {day} of user {user} was " + " and ".join(["good"] * (1 + day * 7 % 5)),
            )
''',
    "spring/measures/length.py": '''
"""How near in length an answer is to its reference."""

from collections.abc import Sequence

import numpy as np


def length(pairs: Sequence[tuple[str, str]], synonyms: bool) -> np.ndarray:
    sizes = ((len(reference), len(prediction)) for reference, prediction in pairs)
    return np.array([min(one) / max(one) for one in sizes], float)
''',
}
IMPORTED = "from spring.data.sources import amazon, changelogs, diary, git, inbox, lamp, longlamp, table\n"
# file -> (a line there, what takes its place)
LINES = {
    "spring/method/scorers.py": [
        ("from spring.method.registry import", "from spring.method.shortest import shortest\n{}"),
        ('    "bottom": ', '{}    "shortest": Scorer(shortest),\n'),
    ],
    "spring/method/policies.py": [
        ("from spring.method.registry import", "from spring.method.oldest import oldest\n{}"),
        ('    "reservoir": ', '{}    "oldest": Policy(oldest),\n'),
    ],
    "spring/data/sources/registry.py": [
        (
            "from spring.data.sources import",
            IMPORTED,
        ),
        ('    "table": ', '{}    "diary": Source(diary.DiarySource, "diary", diary.read),\n'),
    ],
    "spring/measures/metrics.py": [
        ("from spring.measures.meteor import", "from spring.measures.length import length\n{}"),
        ('    "meteor": ', '{}    "length": TextMetric("Length", length),\n'),
    ],
}
RUN = f"""{STAGES}
run("report")
"""


def apply(root: Path) -> int:
    """Writes the new files and their lines; how many lines of other files were touched."""
    touched = 0
    for name, text in NEW.items():
        (root / name).write_text(text.lstrip())
    for name, changes in LINES.items():
        lines = (root / name).read_text().splitlines(keepends=True)
        for start, text in changes:
            (place,) = (i for i, line in enumerate(lines) if line.startswith(start))
            lines[place] = text.format(lines[place])
            touched += 1
        (root / name).write_text("".join(lines))
    return touched


@pytest.mark.long
def test_each_addition_is_a_file_an_import_and_a_line(tmp_path: Path, tiny_model_folder: Path) -> None:
    """In a copy of the project, all stages: what each decides is read off the state, and counts itself."""
    copied, project = tmp_path / "copy", tmp_path / "project"
    for name in ("spring", "tasks", "suites"):
        shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    project.mkdir()
    assert apply(copied) == 2 * 4
    arm = {"train": {"select": {"scorer": "shortest"}}, "memory": {"policy": "oldest", "capacity": 1}}
    write_params(
        project,
        tiny_model_folder,
        ingest__source="diary",
        ingest__diary={"users": 2, "days": 18},
        prompts__diary={"system": "You keep a diary.", "user": "Write down day {DAY}."},
        arms={"base": {"train": None, "memory": None}, "own": arm},
        transfer="generation",
    )
    environment = {**os.environ, "PYTHONPATH": str(copied)}
    environment.pop("SPRING_CELLS", None)
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = project / "data"
    assert json.loads((data / "ingest.json").read_text())["rows_kept"] == 2 * 18
    scores = pl.read_parquet(data / "adapt/1/scores.parquet")
    for _, mine in scores.group_by("user_id"):
        chosen, left = (mine.filter(pl.col("selected") == which)["tokens"] for which in (True, False))
        assert chosen.max() <= left.min()
    held = pl.read_parquet(data / "consolidate/2/buffers.parquet")
    offered = scores.filter("selected").join(
        pl.read_parquet(data / "split/1.parquet").select("interaction_id", "timestamp"), on="interaction_id"
    )
    first = offered.sort("timestamp").group_by("user_id").agg(pl.col("interaction_id").first())
    assert held.select("user_id", "interaction_id").sort("user_id").equals(first.sort("user_id"))
    metrics = json.loads((data / "metrics.json").read_text())
    assert metrics["arms"]["own"]["seconds_score"] == 0  # neither reads a likelihood
    assert 0 < metrics["arms"]["own"]["length"]["mean"] <= 1
    assert set(metrics["paired"]["own"]) == {"rouge1", "rougeL", "meteor", "length", "chrf", "logp_per_token"}
    assert "length" in metrics["transfer"]["own"]["generated"]
    assert "| Length |" in (data / "report/tables/arms.md").read_text()
    assert "Over periods: Length" in (data / "report/report.html").read_text()
