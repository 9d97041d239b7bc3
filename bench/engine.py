"""The engine against plain loops, the strongest baselines and the machine: `python -m bench.engine`.

All sides do the same jobs with the same model, texts, batches and settings. First they must agree (in
float32, to rounding); then they are timed by turns in the model's own dtype, and the median of the rounds
counts. A plain loop's cost per item does not depend on the other items, so it is timed on every k-th item of
the list sorted by length; the engine and the baselines (bench/baselines) do the whole job. Rates are of
useful tokens: those of the texts, or those generated. Written to bench/results/engine.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from bench import plain
from bench.agreement import check
from bench.baselines import Baseline
from bench.jobs import JOBS, Job
from bench.machine import RESULTS, describe, limits, wait
from bench.sides import USERS, Bench
from bench.texts import SOURCES
from spring.engine.lora import AdapterBank
from spring.engine.peft import save_adapter
from spring.engine.queries import Query
from tasks.files import write_json

# --- timed ------------------------------------------------------------------------------------------------


def timed(job: Job, device: torch.device, rounds: int, *, baselines: bool) -> dict[str, Any]:
    """All sides by turns."""
    ours, theirs, share, seconds = [], [], [], []
    others: dict[str, list[float]] = {one.name: [] for one in job.baselines if baselines}
    for number in range(rounds):
        began = perf_counter()
        useful = job.plain()
        wait(device)
        theirs.append(useful / (perf_counter() - began))
        began = perf_counter()
        useful, least = job.engine()
        wait(device)
        seconds.append(perf_counter() - began)
        ours.append(useful / seconds[-1])
        share.append(least / seconds[-1])
        print(
            f"  round {number + 1}: engine {ours[-1]:.0f} tok/s, plain {theirs[-1]:.0f} tok/s, "
            f"{share[-1]:.0%} of the limit",
            flush=True,
        )
        for one in job.baselines if baselines else ():
            others[one.name].append(rate(one, job, device))
            print(f"    {one.name}: {others[one.name][-1]:.0f} tok/s", flush=True)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "job": job.name,
        "source": job.source,
        "size": job.size,
        "seconds": median(seconds),
        "tokens_per_second": median(ours),
        "plain_tokens_per_second": median(theirs),
        "ratio": median(ratios),
        "ratios": ratios,
        "of_limit": median(share),
        "of_limits": share,
        "baselines": {name: compared(ours, rates) for name, rates in others.items()},
    }


def rate(baseline: Baseline, job: Job, device: torch.device) -> float:
    """Useful tokens per second of a baseline; what it prepares does not count."""
    with baseline.ready() as work:
        began = perf_counter()
        found = work()
        wait(device)
        seconds = perf_counter() - began
    return job.useful(found) / seconds


def compared(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """A baseline's median rate, and how many times faster the engine was in each round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"tokens_per_second": median(theirs), "ratio": median(ratios), "ratios": ratios}


def switching(bench: Bench, rounds: int) -> dict[str, float]:
    """What the next user's adapter costs: PEFT's set_adapter and load_adapter; here, more slots in a batch.

    Milliseconds. `row_step_...`: one row's part of a decoding step of 32 rows, prompts included.
    """
    states = bench.train(bench.lessons("personas"), bench.recipe)
    named = {str(slot): state for slot, state in enumerate(states)}
    wrapped = plain.with_adapters(bench.plain, bench.recipe.lora, named)
    began = perf_counter()
    for name in named:
        wrapped.set_adapter(name)
    chosen = (perf_counter() - began) / USERS
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(states[0], bench.recipe.lora, Path(folder), base_model="")
        began = perf_counter()
        for i in range(8):
            wrapped.load_adapter(folder, adapter_name=f"more-{i}")
        loaded = (perf_counter() - began) / 8
    wrapped.unload()
    bank = AdapterBank(bench.model, bench.recipe.lora, slots=USERS)
    began = perf_counter()
    for slot, state in enumerate(states):
        bank.load_state(slot, state)
    ours = (perf_counter() - began) / USERS
    bank.detach(bench.model)
    prompts = [query.prompt for query in bench.queries("personas")[:USERS]]
    short = bench.decode.model_copy(update={"max_new_tokens": 24})

    def step(slots: Sequence[int]) -> float:
        asked = [Query(prompt, None, 0.0, slot) for prompt, slot in zip(prompts, slots, strict=True)]
        began = perf_counter()
        answers = bench.generate(asked, states, short)
        return (perf_counter() - began) / sum(answer.row_steps for answer in answers)

    trios = [(step(range(USERS)), step([0] * USERS), step([-1] * USERS)) for _ in range(rounds + 2)]
    many, one, none = (median(side) for side in zip(*trios, strict=True))
    return {
        "peft_set_adapter": 1e3 * chosen,
        "peft_load_adapter": 1e3 * loaded,
        "load_into_slot": 1e3 * ours,
        "row_step_many_slots": 1e3 * many,
        "row_step_one_slot": 1e3 * one,
        "row_step_base_model": 1e3 * none,
    }


# --- all of it --------------------------------------------------------------------------------------------


def table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the jobs."""
    lines = [
        "| job | texts | plain, tok/s | engine, tok/s | times faster | of the limit | at the limit |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        spread = f"{min(row['ratios']):.1f} to {max(row['ratios']):.1f}"
        lines.append(
            f"| {row['job']}, {row['size']} | {row['source']} | {row['plain_tokens_per_second']:.0f} "
            f"| {row['tokens_per_second']:.0f} | {row['ratio']:.1f} ({spread}) | {row['of_limit']:.0%} "
            f"| {row['ratio'] / row['of_limit']:.1f} |"
        )
    return "\n".join(lines)


def strongest(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the baselines."""
    lines = [
        "| job | texts | baseline | baseline, tok/s | engine, tok/s | times faster |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in found:
        for name, one in row["baselines"].items():
            spread = f"{min(one['ratios']):.1f} to {max(one['ratios']):.1f}"
            lines.append(
                f"| {row['job']} | {row['source']} | {name} | {one['tokens_per_second']:.0f} "
                f"| {row['tokens_per_second']:.0f} | {one['ratio']:.1f} ({spread}) |"
            )
    return "\n".join(lines)


def main() -> None:
    """Checks, times, prints and writes everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--baselines", default=True, action=argparse.BooleanOptionalAction)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.json")
    options = parser.parse_args()
    agreed = check(options.device, options.sources[0], baselines=options.baselines)
    print(f"All sides agree in float32: {agreed}", flush=True)
    bench = Bench(options.device, "auto")
    device, dtype = bench.base.device, bench.model.dtype
    machine = limits(device, dtype)
    print(f"Limits: {machine.flops / 1e9:.0f} GFLOP/s, {machine.bytes / 1e9:.0f} GB/s", flush=True)
    found = []
    for source in options.sources:
        for name in options.jobs:
            print(f"{name} {source}", flush=True)
            job = JOBS[name](bench, source, machine)
            found.append(timed(job, device, options.rounds, baselines=options.baselines))
    switched = switching(bench, options.rounds)
    print(table(found))
    if options.baselines:
        print(strongest(found))
    print("Switching, milliseconds:", {key: round(value, 3) for key, value in switched.items()})
    result = {
        "about": {**describe(device, dtype), "limits": vars(machine), "rounds": options.rounds},
        "agreement_float32": agreed,
        "jobs": found,
        "switching_ms": switched,
    }
    write_json(result, options.out)


if __name__ == "__main__":
    main()
