"""The engine against plain loops and against the machine: `python -m bench.engine`.

Both sides do the same jobs with the same model, texts, batches and settings. First they must agree (in
float32, to rounding); then they are timed by turns in the model's own dtype, and the median of the rounds
counts. A plain loop's cost per item does not depend on the other items, so it is timed on every k-th item of
the list sorted by length; the engine does the whole job. Rates are of useful tokens: those of the texts, or
those generated. Written to bench/results/engine.json.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from bench import plain
from bench.jobs import JOBS, TEXTS, USERS, Bench, Job, Weights, every, length
from bench.machine import RESULTS, describe, limits, wait
from bench.texts import SOURCES, texts
from spring.engine.lora import AdapterBank
from spring.engine.peft import save_adapter
from spring.engine.queries import Query
from tasks.files import write_json

# --- both sides agree -------------------------------------------------------------------------------------


def check(device: str, source: str) -> dict[str, float]:
    """Asserts that both sides compute the same, in float32; gives the differences."""
    bench = Bench(device, "float32")
    rows = every(texts(bench.prompter, source, TEXTS), 60, len)
    pairs = zip(bench.score(rows), plain.score(bench.plain, rows), strict=True)
    logp = max(float((torch.from_numpy(a) - b).abs().max()) for a, b in pairs)
    assert logp < 1e-3, f"log-likelihoods differ by {logp} nats"
    lora = bench.recipe.lora.model_copy(update={"dropout": 0.0})  # masks are drawn in different ways
    recipe = bench.recipe.model_copy(update={"lora": lora, "lr": 1e-3})
    lessons = bench.lessons(source)[:2]
    states = bench.train(lessons, recipe)
    weights = max(
        apart(ours, theirs, lesson.start or {})
        for lesson, ours, theirs in zip(
            lessons, states, plain.train(bench.plain, lessons, recipe), strict=True
        )
    )
    assert weights < 0.01, f"trained weights differ by {weights} of the way they went"
    asked = [replace(q, slot=i % 2) for i, q in enumerate(every(bench.queries(source), 16, length))]
    short = bench.decode.model_copy(update={"max_new_tokens": 24})
    answers = [answer.tokens for answer in bench.generate(asked, states, short)]
    assert answers == bench.generate_plainly(asked, states, short), "generated tokens differ"
    assert len({tuple(tokens) for tokens in answers}) == len(answers), "answers must differ, or this is empty"
    return {"logp_nats": logp, "weights_relative": weights}


def apart(one: Weights, other: Weights, start: Weights) -> float:
    """How far two trained adapters are apart, over how far the first went from its start."""
    between = sum(float((one[name] - other[name]).square().sum()) for name in one)
    way = sum(float((one[name] - start[name]).square().sum()) for name in one)
    return math.sqrt(between / way)


# --- timed ------------------------------------------------------------------------------------------------


def timed(job: Job, device: torch.device, rounds: int) -> dict[str, Any]:
    """Both sides by turns."""
    ours, theirs, share, seconds = [], [], [], []
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
    }


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


def main() -> None:
    """Checks, times, prints and writes everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.json")
    options = parser.parse_args()
    agreed = check(options.device, options.sources[0])
    print(f"Both sides agree in float32: {agreed}", flush=True)
    bench = Bench(options.device, "auto")
    device, dtype = bench.base.device, bench.model.dtype
    machine = limits(device, dtype)
    print(f"Limits: {machine.flops / 1e9:.0f} GFLOP/s, {machine.bytes / 1e9:.0f} GB/s", flush=True)
    found = []
    for source in options.sources:
        for name in options.jobs:
            print(f"{name} {source}", flush=True)
            found.append(timed(JOBS[name](bench, source, machine), device, options.rounds))
    switched = switching(bench, options.rounds)
    print(table(found))
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
