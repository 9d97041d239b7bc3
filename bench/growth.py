"""How cost grows with users, adapter slots in memory and length of history: `python -m bench.growth`.

Each point runs in a process of its own, so that its peak memory is its own. Users and slots go through the
same code as the stages (cells, commits, budgets). Written to bench/results/growth.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bench.machine import MEGABYTE, about, write_result
from bench.texts import writers
from spring.store.cells import CellStore
from tasks.params import load_params

USERS = (8, 32, 128, 512)
SLOTS = (1, 4, 16, 32)
HISTORY = (50, 200, 800, 3200)
LEARNED = 1  # text that a user learns, once; one more is the query
NEW_TOKENS = 8


def users_of(count: int) -> list[list[dict[str, Any]]]:
    """`count` users of two changelog entries each, cut from the entries of real maintainers."""
    size = LEARNED + 1
    found = [
        [
            {"task": task, "query": query, "response": response, "interaction_id": f"{start}"}
            for task, query, response in own[start : start + size]
        ]
        for own in writers("changelogs", 64)
        for start in range(0, len(own) - size + 1, size)
    ]
    assert len(found) >= count, f"the changelogs of this machine give {len(found)} users, not {count}"
    step = len(found) // count
    return found[::step][:count]


def measure_users(count: int, slots: int) -> dict[str, float]:
    """Seconds per user of training and of two-path generation, and the peak memory."""
    from tasks.cells import training
    from tasks.cells.decoding import GenerateJob, Request, generate
    from tasks.steps.experiment import Experiment

    training.SLOTS = slots
    with tempfile.TemporaryDirectory() as folder:
        bench = Experiment(store=CellStore(Path(folder)))
        arm = bench.params.arms["spring"]
        assert arm.train is not None
        recipe = arm.train.model_copy(update={"epochs": 1})
        decode = arm.decode.decoding.model_copy(update={"max_new_tokens": NEW_TOKENS})
        people = users_of(count)
        load = bench.base.device, bench.prompter.end  # what is not per user
        assert load
        began = perf_counter()
        jobs = [training.TrainJob(recipe, own[:-1], [], None, seed=i) for i, own in enumerate(people)]
        keys = training.train(bench, jobs, f"train {count} users")
        trained = perf_counter()
        asked = [
            GenerateJob(
                "spring",
                str(i),
                [Request(own[-1], own[:-1], 0.5, LEARNED, None)],
                decode,
                bench.adapter(key, recipe.lora),
            )
            for i, (own, key) in enumerate(zip(people, keys, strict=True))
        ]
        generate(bench, asked, f"generate for {count} users")
        ended = perf_counter()
    return {
        "train_seconds_per_user": (trained - began) / count,
        "generate_seconds_per_user": (ended - trained) / count,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE,
    }


def measure_history(count: int) -> dict[str, float]:
    """Milliseconds to index a memory of `count` items, and to search it."""
    from spring.method.retrieval import Retriever

    documents = [response for own in writers("changelogs", 64) for _, _, response in own]
    documents = (documents * (count // len(documents) + 1))[:count]
    built, searched = [], []
    for number in range(5):
        began = perf_counter()
        index = Retriever(documents, by="bm25", times=list(range(count)), embeddings=None)
        built.append(perf_counter() - began)
        began = perf_counter()
        index.top(documents[number], 2, None)
        searched.append(perf_counter() - began)
    return {"index_ms": 1e3 * median(built), "search_ms": 1e3 * median(searched)}


def point(*arguments: str) -> dict[str, float]:
    """One point, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.growth", *arguments]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    print(*arguments, result, flush=True)
    return result


def main() -> None:
    """All points, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--history", type=int)
    options = parser.parse_args()
    if options.users:
        print(json.dumps(measure_users(options.users, options.slots)))
        return
    if options.history:
        print(json.dumps(measure_history(options.history)))
        return
    write_result(
        "growth",
        about(load_params().model),
        users={n: point("--users", str(n)) for n in USERS},
        slots={n: point("--users", "32", "--slots", str(n)) for n in SLOTS},
        history={n: point("--history", str(n)) for n in HISTORY},
    )


if __name__ == "__main__":
    main()
