"""Workers on Ray against one process: `python -m bench.cluster [--workers 2] [--users 96]`.

The same lessons and answers of real maintainers' changelogs, by turns: in one process with as many threads as
there are workers, and by workers of one thread each on a cluster of this machine; 96 users are six chunks of
lessons and two of answers. Then so many tasks in which nothing is computed but an empty cell is written: what
handing out, claiming, writing and looking cost. Both sides have the model by then. Needs the extra `cluster`
and the stage `model`. Written to bench/results/cluster.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from bench.growth import users_of
from bench.machine import about, write_result
from spring.settings.execution import Execution
from spring.store.cells import CellStore
from spring.store.keys import cell_key
from tasks.cells.decoding import GenerateJob, Request, generate
from tasks.cells.fill import progress
from tasks.cells.training import TrainJob, train
from tasks.cells.workbench import Chunk, Workbench
from tasks.params import load_params
from tasks.steps.experiment import Experiment

Seconds = dict[str, list[float]]


def bench_of(store: Path, execution: Execution) -> Experiment:
    """The workbench of params.yaml, elsewhere and computed otherwise."""
    return Experiment(load_params().model_copy(update={"execution": execution}), CellStore(store))


def measure(
    bench: Experiment, people: list[list[dict[str, Any]]], seed: int, *, tokens: int
) -> tuple[float, float]:
    """Seconds of one lesson of every user, and of an answer of so many tokens from two paths."""
    arm = bench.params.arms["spring"]
    assert arm.train is not None
    how = arm.train.learning
    decode = arm.decode.decoding.model_copy(update={"max_new_tokens": tokens})
    began = perf_counter()
    keys = train(bench, [TrainJob(how, own[:-1], [], None, seed=seed) for own in people], "train")
    trained = perf_counter()
    asked = [
        GenerateJob(
            "spring", "", [Request(own[-1], own[:-1], 0.5, 1, None)], decode, bench.adapter(key, how.lora)
        )
        for own, key in zip(people, keys, strict=True)
    ]
    generate(bench, asked, "generate")
    return trained - began, perf_counter() - trained


def write_nothing(bench: Workbench, _: None, jobs: dict[str, None], done: Any) -> None:
    """A task without work."""
    with bench.store.batch() as batch:
        for key in jobs:
            batch[key] = {"nothing": b""}
    done(len(jobs))


def overhead(bench: Experiment, tasks: int) -> float:
    """Seconds of so many tasks without work, all workers together."""
    keys = [cell_key("spring.store.keys", number=number, of=tasks) for number in range(tasks)]
    chunks = [Chunk(write_nothing, None, {key: None}, {key: 1}) for key in keys]
    assert bench.crew is not None
    began = perf_counter()
    with progress(tasks, "nothing", "task") as meter:
        bench.crew.compute(chunks, meter, "nothing")
    return perf_counter() - began


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="0: tasks without work alone")
    parser.add_argument("--tasks", type=int, nargs="+", default=[250, 1000])
    asked = parser.parse_args()
    torch.set_num_threads(asked.workers)
    people = users_of(asked.users) if asked.rounds else []
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "process": bench_of(Path(folder) / "process", Execution()),
            "workers": bench_of(Path(folder) / "workers", Execution(engine="ray", workers=asked.workers)),
        }
        found: dict[str, Seconds] = {name: {"train": [], "generate": []} for name in sides}
        for turn in range(asked.rounds + 1 if asked.rounds else 0):
            for name, bench in sides.items():
                # the first loads the model, of every worker
                some = people if turn else people[:: max(1, len(people) // 32)]
                took = measure(bench, some, turn, tokens=asked.tokens)
                if turn:
                    for what, seconds in zip(found[name], took, strict=True):
                        found[name][what].append(seconds)
        overhead(sides["workers"], 2)  # without rounds workers are hired only now
        empty = {tasks: overhead(sides["workers"], tasks) for tasks in asked.tasks}
    middle = {name: {what: median(s) for what, s in side.items() if s} for name, side in found.items()}
    speed = {what: one / middle["workers"][what] for what, one in middle["process"].items()}
    for what, times in speed.items():
        print(f"{what}: {asked.workers} workers at {times:.2f} x of one process with {asked.workers} threads")
    for tasks, seconds in empty.items():
        print(f"{tasks} tasks without work: {seconds:.1f} s, {1e3 * seconds / tasks:.1f} ms each")
    write_result(
        "cluster", about(load_params().model), **vars(asked), seconds=found, speed=speed, empty_seconds=empty
    )


if __name__ == "__main__":
    main()
