"""A short version of `python -m bench.faults`: nothing silent, and every end that of the undisturbed run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


KINDS = {"kill": 1, "flip": 1, "full": 1, "edit": 1, "dvc": 1, "tables": 40, "parquet": 4}  # tries of one


@pytest.mark.long
def test_a_little_bad_luck() -> None:
    """Of updates: tests/flows/test_live_project.py."""
    command = [sys.executable, "-m", "bench.faults", "--tries", "1", "--seed", "3", "--kinds", *KINDS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    for kind, tries in KINDS.items():
        assert f"| {kind} | {tries} |" in done.stdout
