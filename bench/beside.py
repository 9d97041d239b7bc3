"""Two stages that do not wait for each other, one after the other and at once: `python -m bench.beside`.

Answers of a period (`generate@1`) and the lessons of the next (`adapt@2`) need nothing of each other. One
after the other each has all threads; at once each has half of them. Both ways begin from the same files and
cells of the last commit; every stage is a process of its own, without DVC. By turns; written to
bench/results/beside.json.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import yaml
from tqdm import tqdm

from bench.builds import PARAMS, environment, find, params_of, worktree
from bench.machine import about, write_result
from tasks.params import load_params

BEFORE = (
    *(("ingest",), ("split",), ("model",), ("score_base",)),
    *((stage, "--period", period) for period in "01" for stage in ("adapt", "consolidate")),
)
PAIR = (("generate", "--period", "1"), ("adapt", "--period", "2"))
MADE = ("data", ".cells")


def start(folder: Path, stage: tuple[str, ...], threads: int) -> subprocess.Popen[bytes]:
    """A stage in a process of its own."""
    name, *words = stage
    return subprocess.Popen(
        [sys.executable, "-m", f"tasks.{name}", *words],
        cwd=folder,
        env=environment(folder) | {"OMP_NUM_THREADS": str(threads)},
        stderr=subprocess.DEVNULL,
    )


def run(folder: Path, stages: tuple[tuple[str, ...], ...], threads: int, *, at_once: bool) -> float:
    """Seconds until all have ended."""
    began, running = perf_counter(), list[subprocess.Popen[bytes]]()
    for stage in stages:
        running.append(start(folder, stage, threads))
        if not at_once:
            running[-1].wait()
    for stage, process in zip(stages, running, strict=True):
        if process.wait():
            sys.exit(f"{' '.join(stage)} failed in {folder}")
    return perf_counter() - began


def lay(source: Path, target: Path) -> None:
    """Puts the files and cells of `source` in place of those of `target`."""
    for name in MADE:
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(source / name, target / name)


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    threads, build = torch.get_num_threads(), find("HEAD")
    tree = params_of(build)
    tree["ingest"]["personas"]["users"] = asked.users
    ways = {"one after the other": (threads, False), "at once": (max(1, threads // 2), True)}
    found: dict[str, list[float]] = {way: [] for way in ways}
    with worktree(build) as folder, tqdm(total=len(BEFORE) + 2 * asked.rounds, unit="step") as bar:
        (folder / PARAMS).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        for stage in BEFORE:
            bar.set_description(" ".join(stage))
            run(folder, (stage,), threads, at_once=False)
            bar.update()
        begun = folder.parent / "begun"
        begun.mkdir()
        lay(folder, begun)
        for number in range(asked.rounds):
            for way, (each, at_once) in list(ways.items())[:: 1 - 2 * (number % 2)]:
                bar.set_description(way)
                lay(begun, folder)
                found[way].append(run(folder, PAIR, each, at_once=at_once))
                bar.update()
    one, two = (median(seconds) for seconds in found.values())
    print(f"one after the other {one:.1f} s, at once {two:.1f} s: {two / one:.2f} of it")
    write_result("beside", about(load_params().model), **vars(asked), seconds=found, ratio=two / one)


if __name__ == "__main__":
    main()
