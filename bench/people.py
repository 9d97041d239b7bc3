"""What many users cost the stages without a model: `python -m bench.people`.

Of 100, 1,000, 3,000 and 10,000 personas with 12 texts each, in 3 periods and under 2 arms: seconds, seconds
of processor time, peak memory and bytes written of ingest, split, evaluate and report (with W&B offline).
What a model would have given is made up (bench/invented.py). Written to bench/results/people.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench.machine import about, spent, write_result
from tasks.params import load_params

ROOT = Path(__file__).parents[1]
USERS = (100, 1_000, 3_000, 10_000)
TEXTS, PERIODS, ARMS = 12, 3, ("base", "spring")
STEPS = {  # what is run, and where it writes
    "ingest": ("data/ingest",),
    "split": ("data/split",),
    "evaluate": ("data/evaluate", "data/metrics.json"),
    "report": ("data/report", "wandb"),
}
PAGE = Path("data/report/report.html")
Row = dict[str, float]


def parameters(users: int) -> dict[str, Any]:
    """The project's parameters, for so many users and few periods."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["periods"] = {str(t): t - 1 if t else "base" for t in range(PERIODS)}
    tree["ingest"] |= {"min_interactions": TEXTS}
    tree["ingest"]["personas"] |= {"users": users, "interactions": TEXTS}
    return tree


def write_params(folder: Path, users: int) -> None:
    """The same with few arms, for `measure`."""
    tree = parameters(users)
    tree["arms"] = {arm: tree["arms"][arm] for arm in ARMS}
    tree["tracking"] |= {"mode": "offline", "adapters": None}  # which are made up
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def run(module: str, folder: Path) -> Row:
    """What `python -m module` takes in `folder`."""
    return spent([sys.executable, "-m", module], folder, {**os.environ, "PYTHONPATH": str(ROOT)})


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def measure(users: int, folder: Path) -> dict[str, Row]:
    """Every stage, in processes of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    write_params(folder, users)
    (folder / "suites").symlink_to(ROOT / "suites")
    found: dict[str, Row] = {}
    for step, paths in STEPS.items():
        if step == "evaluate":
            run("bench.invented", folder)
        found[step] = run(f"tasks.{step}", folder)
        found[step]["bytes"] = sum(size(folder / path) for path in paths)
        print(f"{users:,} users, {step}: {row_text(found[step])}", flush=True)
    found["report"]["page_bytes"] = size(folder / PAGE)
    return found


def row_text(row: Row) -> str:
    """One measurement in words."""
    spent = f"{row['seconds']:.1f} s ({row['cpu_seconds']:.1f} of a processor)"
    return f"{spent}, {row['peak_mb']:.0f} MB, writes {row['bytes'] / 1e6:.1f} MB"


def table(found: dict[int, dict[str, Row]]) -> str:
    """A Markdown table: seconds, peak memory and bytes written, a column for every number of users."""
    lines = [f"| stage | {' | '.join(f'{users:,} users' for users in found)} |"]
    lines.append(f"|---|{'---:|' * len(found)}")
    for step in STEPS:
        lines.append(f"| {step} | {' | '.join(row_text(rows[step]) for rows in found.values())} |")
    pages = (f"{rows['report']['page_bytes'] / 1e6:.2f} MB" for rows in found.values())
    return "\n".join([*lines, f"| report.html | {' | '.join(pages)} |"])


def main() -> None:
    """Measures, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=USERS)
    parser.add_argument("--keep", type=Path, help="where to leave the runs; a folder not yet there")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for users in options.users:
            found[users] = measure(users, (options.keep or Path(temporary)).resolve() / str(users))
    print(table(found))
    if tuple(options.users) == USERS:
        stages = {str(users): rows for users, rows in found.items()}
        write_result("people", about(load_params().model), texts=TEXTS, periods=PERIODS, users=stages)


if __name__ == "__main__":
    main()
