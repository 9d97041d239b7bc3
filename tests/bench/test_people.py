"""A short version of `python -m bench.people`: made-up results pass through the real stages."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from bench.people import ARMS, STEPS, TEXTS, measure, table


@pytest.mark.long
def test_what_is_made_up_passes_through_the_stages(tmp_path: Path) -> None:
    """Twenty users, each with a test item in every period."""
    found = measure(20, tmp_path / "run")
    assert list(found) == list(STEPS) and all(row["bytes"] > 0 for row in found.values())
    assert 0 < found["report"]["page_bytes"] < 2_000_000
    metrics = json.loads((tmp_path / "run/data/metrics.json").read_text(encoding="utf-8"))
    assert metrics["users"] == 20 and metrics["interactions"] == 20 * TEXTS
    assert set(metrics["arms"]) == set(ARMS) and metrics["drift"]["spring"] and metrics["transfer"]["spring"]
    items = pl.read_parquet(tmp_path / "run/data/evaluate/items.parquet")
    assert items.height == 20 * 2 * len(ARMS)
    assert len(list((tmp_path / "run/wandb").glob("offline-run-*"))) == len(ARMS) + 1
    assert "20 users" in table({20: found})
