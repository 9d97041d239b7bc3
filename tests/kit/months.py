"""Periods of the calendar on a tiny model: batches of texts, stages as DVC runs them, closed periods."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from kit.pipeline import WORDS, run, write_params
from tasks import adapt, consolidate, evaluate, generate, ingest, model, report, score_base, split, transfer
from tasks.reporting import page, summary

START, DAYS = datetime(2024, 1, 1, tzinfo=UTC), 10  # of a period
PLACES = [("split", ".parquet"), ("score_base", ".parquet")]
PLACES += [(room, "/**/*") for room in ("adapt", "consolidate", "generate")]


def write_rows(path: Path, batches: list[dict[str, int]], seed: int = 0) -> None:
    """Batch t: how many texts of each user arrive in period t; every third after the first comes late."""
    random, rows = np.random.default_rng(seed), []
    for t, batch in enumerate(batches):
        for user, count in batch.items():
            for n in range(count):
                arrived = START + timedelta(days=DAYS * t + (n + 0.5) * DAYS / count)
                late = timedelta(days=DAYS + 3 if t > 0 and n % 3 == 2 else 0)
                words = random.choice(WORDS, 5 + n % 3)
                rows.append(
                    {
                        "who": user,
                        "when": (arrived - late).isoformat(),
                        "came": arrived.isoformat(),
                        "subject": f"{words[0]} {words[1]} {t} {n}",
                        "body": " ".join(words),
                    }
                )
    pl.DataFrame(rows).write_csv(path)


def by_calendar(folder: Path, model_folder: Path, *, periods: int, **changes: object) -> None:
    """params.yaml for `write_rows`."""
    dated: dict[str, object] = {
        "split__by": "calendar",
        "split__every": f"{DAYS}d",
        "split__start": "2024-01-01",
    }
    plain = {"ingest__table__arrived": "came", "ingest__min_interactions": 1}
    write_params(folder, model_folder, periods=periods, **(dated | plain | changes))


def learn(patch: pytest.MonkeyPatch, periods: int, *, after: int = 0) -> None:
    """The stages as DVC runs them: those of periods before `after` have nothing to do."""
    for stage in (ingest, split, *(() if after else (model,)), score_base):
        run(stage, patch)
    for t in range(after, periods):
        for stage in (adapt, consolidate, generate):
            run(stage, patch, t)


def finish(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What comes behind the periods; the numbers."""
    for stage in (transfer, evaluate):
        run(stage, patch)
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(summary, "sheet", lambda *_, **__: "<svg></svg>")
        inner.setattr(page, "library", lambda: "")
        run(report, patch)
    found: dict[str, Any] = json.loads(Path("data/metrics.json").read_text())
    return found


def closed(folder: Path, periods: int) -> dict[str, str]:
    """Every file of the periods, by digest."""
    names = [f"{room}/{t}{end}" for t in range(periods) for room, end in PLACES]
    files = [file for name in names for file in sorted((folder / "data").glob(name)) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
