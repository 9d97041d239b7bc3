"""What users cost on the disk and in overhead: `python -m bench.storage [--users 100 1000] [--hollow]`.

Personas with 12 texts each, 3 periods, two arms that learn, on a model of two layers: little but overhead is
left; with --hollow nothing but that (bench/hollow.py). Per number of users: files and megabytes of the cell
store, of data/ and of DVC's cache, and of all three, where a file under three names counts once, beside the
adapters' own and the texts'; seconds (of the clock, and of processors) and peak memory of every stage; the
same of `dvc repro` with nothing to do, of `adapt@1` when its cells are all there, and of `make verify`: of
these, and of `split`, the median of three.
Written to bench/results/storage.json, beside the run before: a busy machine's speed changes by the minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import yaml

from bench.machine import RESULTS, about, spent, write_result
from bench.people import PERIODS, parameters
from bench.stages import own_environment, run, summed
from flows.stages import stages_in_order
from tasks.params import PARAMS, load_params

ARMS: dict[str, Any] = {"spring": {}, "current": {"train": {"data": "current"}}}
FILLING = ("score_base", "adapt", "consolidate", "generate")  # the stages that have cells
PLACES = (".cells", "data", ".dvc/cache")
TINY = """
import sys
from pathlib import Path
from bench.texts import writers
from bench.tiny import save_tiny
texts = [text for own in writers("personas", 32) for row in own for text in row]
save_tiny(Path(sys.argv[1]), texts, size=1024)
"""  # in a process of its own: each one counts the memory of that which it was forked from
RESULT = RESULTS / "storage.json"
RUNS = 2  # that are kept, the latest last
SHORT = ("split",)  # stages without cells that take a second or two, most of it their start
TIMES = 3  # that what is short is measured; the median counts
Numbers = dict[str, Any]


def prepare(clone: Path, users: int, *, hollow: bool = False) -> None:
    """An experiment of so many users on a tiny model, in a clone of the last commit; `hollow`: without it."""
    subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
    subprocess.run([sys.executable, "-c", TINY, clone / "tiny"], check=True)
    tree = parameters(users)
    tree["model"] |= {"id": "tiny", "dtype": "float32", "device": "cpu"}
    tree["arm"]["decode"]["max_new_tokens"] = 4
    tree |= {"arms": ARMS, "transfer": None}
    tree["evaluate"]["against"] = "spring"
    (clone / "dvc.lock").unlink()  # it tells of other periods
    (clone / PARAMS).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    if hollow:
        stages = (clone / "dvc.yaml").read_text(encoding="utf-8")
        for stage in FILLING:
            stages = stages.replace(f"python -m tasks.{stage}", f"python -m bench.hollow tasks.{stage}")
        (clone / "dvc.yaml").write_text(stages, encoding="utf-8")


def measure(clone: Path) -> Numbers:
    """All stages from nothing, then what there is to do when all is there; what is short `TIMES` times."""
    stages = {stage: run(stage, clone) for stage in stages_in_order(clone)}
    on_disk = held(clone)  # what is run again has copies beside DVC's cache
    for stage in SHORT:
        stages[stage] = middle([stages[stage], *(run(stage, clone, "--force") for _ in range(1, TIMES))])
    return {
        "stages": stages,
        **on_disk,
        "nothing_to_do": timed(clone, "-m", "dvc", "repro", "--quiet"),
        "laid_out": timed(clone, "-m", "tasks.adapt", "--period", "1"),
        "verify": timed(clone, "-m", "tasks.verify"),
    }


def timed(clone: Path, *words: str) -> dict[str, float]:
    """What a command of this Python's takes in `clone`."""
    return middle([spent([sys.executable, *words], clone, own_environment()) for _ in range(TIMES)])


def middle(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of several measurements of one thing the median, number by number."""
    return {name: median(one[name] for one in found) for name in found[0]}


def held(clone: Path) -> Numbers:
    """Files and megabytes in every place; all bytes, and those of the adapters."""
    found: Numbers = {"files": {}, "mb": {}}
    every: dict[int, int] = {}
    for place in PLACES:
        states = [file.stat() for file in (clone / place).rglob("*") if file.is_file()]
        found["files"][place] = len(states)
        found["mb"][place] = sum(state.st_size for state in states) / 1e6
        every |= {state.st_ino: state.st_size for state in states}
    rows = pl.concat(pl.read_parquet(clone / f"data/adapt/{t}/index.parquet") for t in range(PERIODS))
    found["mb"]["index"] = sum(f.stat().st_size for f in clone.glob("data/adapt/*/index.parquet")) / 1e6
    found["adapters"] = rows.height
    rows = rows.unique("cell")
    found["adapters_mb"] = int(rows["bytes"].sum()) / 1e6
    texts = pl.read_parquet(clone / "data/ingest/interactions.parquet", columns=["query", "response"])
    found["texts_mb"] = sum(int(texts[name].str.len_bytes().sum()) for name in texts.columns) / 1e6
    found["mb"]["all"] = sum(every.values()) / 1e6
    found["mb"]["segments of adapters"] = segments(clone) / 1e6
    return found


def segments(clone: Path) -> int:
    """Bytes of the files that hold adapters."""
    files = {file.stat().st_ino: file.stat().st_size for file in clone.glob("data/adapt/*/adapters/*")}
    return sum(files.values())


def table(found: dict[str, Numbers]) -> str:
    """Markdown: a column for every number of users."""
    lines = ["| | " + " | ".join(f"{int(users):,} users" for users in found) + " |"]
    lines.append("|---" * (len(found) + 1) + "|")
    rows = {
        "files: cells, data/, cache": lambda n: " / ".join(f"{n['files'][p]:,}" for p in PLACES),
        "MB: cells, data/, cache": lambda n: " / ".join(f"{n['mb'][p]:.1f}" for p in PLACES),
        "MB: all three, each file once": lambda n: f"{n['mb']['all']:.1f}",
        "MB: adapters; the segments that hold them; texts": lambda n: (
            f"{n['adapters_mb']:.1f}; {n['mb']['segments of adapters']:.1f}; {n['texts_mb']:.1f}"
        ),
        "`dvc repro` with nothing to do": lambda n: took(n["nothing_to_do"]),
        "`adapt@1`, all cells there": lambda n: took(n["laid_out"]),
        "`make verify`": lambda n: took(n["verify"]),
    }
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(row(numbers) for numbers in found.values()) + " |")
    for stage in summed(next(iter(found.values()))["stages"]):
        cells = [
            f"{1000 * one['cpu_seconds'] / int(users):.1f} ms, {one['peak_mb']:.0f} MB"
            for users, one in ((users, summed(numbers["stages"])[stage]) for users, numbers in found.items())
        ]
        lines.append(f"| `{stage}`: of a processor per user; peak | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def took(one: dict[str, float]) -> str:
    """What a command took, in words."""
    return f"{one['seconds']:.1f} s ({one['cpu_seconds']:.1f} of processors), {one['peak_mb']:.0f} MB"


def main() -> None:
    """Measures, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[100, 1000])
    parser.add_argument(
        "--keep", type=Path, help="where to run and leave the projects; a folder not yet there"
    )
    parser.add_argument("--hollow", action="store_true", help="cells are made up")
    asked = parser.parse_args()
    name, found = "hollow" if asked.hollow else "storage", dict[str, Numbers]()
    with tempfile.TemporaryDirectory() as folder:
        for users in asked.users:
            clone = (asked.keep or Path(folder)) / str(users)
            prepare(clone, users, hollow=asked.hollow)
            found[str(users)] = measure(clone)
            print(table(found))
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    before.pop("about", None)
    runs = [*before.pop(name, [])[1 - RUNS :], found]
    write_result(RESULT.stem, about(load_params().model), **before, **{name: runs})


if __name__ == "__main__":
    main()
