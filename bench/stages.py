"""Time and memory of every stage of the experiment: `python -m bench.stages`.

Runs the last commit's experiment from nothing in a folder of its own, stage by stage as `dvc repro` would,
and prints seconds, the share of them outside the engine (start-up, orchestration, reading and writing) and
the peak memory. Written to bench/results/stages.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.machine import about, spent, write_result
from flows.stages import environment, stages_in_order
from spring.store.cells import CellStore
from tasks.params import load_params

# what the engine leaves in a cell, with its seconds
TIMED = ("scores.json", "curve.json", "generations.json", "logps.json", "profile.json", "pair.json")


def run(stage: str, clone: Path, *options: str) -> dict[str, float]:
    """Seconds, seconds of processors and peak memory (MB) of one stage with everything it starts."""
    repro = ["-m", "dvc", "--wait-for-lock", "repro", "--quiet", "--single-item", *options, stage]
    return spent([sys.executable, *repro], clone, own_environment())


def own_environment() -> dict[str, str]:
    """What a stage is started with, so that it runs the code and fills the store of where it runs."""
    return {k: value for k, value in environment().items() if k not in ("PYTHONPATH", "SPRING_CELLS")}


def engine_seconds(store: CellStore, seen: set[str]) -> float:
    """Seconds that the engine spent on cells not yet `seen`."""
    fresh = set(store) - seen
    seen |= fresh
    total = 0.0
    for key in fresh:
        for name, content in store.read(key).items():
            if name in TIMED:
                found = json.loads(content)
                entries = found if isinstance(found, list) else [found]
                total += sum(entry.get("seconds", 0.0) + entry.get("ref_seconds", 0.0) for entry in entries)
    return total


def measure(clone: Path) -> dict[str, dict[str, float]]:
    """Seconds, seconds in the engine and peak memory of every stage."""
    found: dict[str, dict[str, float]] = {}
    seen: set[str] = set()
    for stage in stages_in_order(clone):
        found[stage] = run(stage, clone)
        found[stage]["engine"] = engine_seconds(CellStore(clone / ".cells"), seen)
    return found


def summed(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The stages of several periods, and all of them, as one: seconds added up, memory the largest."""
    rows: dict[str, dict[str, float]] = {}
    for name in (lambda stage: stage.partition("@")[0], lambda stage: "all"):
        for stage, one in found.items():
            row = rows.setdefault(name(stage), dict.fromkeys(one, 0.0))
            for what, value in one.items():
                row[what] = max(row[what], value) if what == "peak_mb" else row[what] + value
    return rows


def table(found: dict[str, dict[str, float]]) -> str:
    """A Markdown table."""
    lines = ["| stage | seconds | outside the engine | peak MB |", "|---|---:|---:|---:|"]
    for name, row in found.items():
        outside = f"{1 - row['engine'] / row['seconds']:.0%}" if row["engine"] else "–"
        lines.append(f"| `{name}` | {row['seconds']:.0f} | {outside} | {row['peak_mb']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Runs all stages, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--keep", type=Path, help="where to run and leave the results; a folder not yet there"
    )
    keep = parser.parse_args().keep
    params = load_params()
    with tempfile.TemporaryDirectory() as folder:
        clone = keep or Path(folder)
        subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
        found = measure(clone)
    print(table(summed(found)))
    write_result("stages", about(params.model), experiment=params.experiment, stages=found)


if __name__ == "__main__":
    main()
