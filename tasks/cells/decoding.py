"""Cells of generations: one arm's responses to one user's test queries, and the references' likelihood."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spring.engine.settings import Decoding
from spring.store.keys import cell_key
from tasks.cells.fill import Meter, fill
from tasks.cells.scoring import check_length, place
from tasks.cells.workbench import Adapter, Fit, Row, Workbench, fit_of, plain

if TYPE_CHECKING:
    from spring.engine.lora import AdapterBank
    from spring.engine.queries import Answer, Query
    from spring.engine.steering import Steer

COMMIT = 48  # jobs in flight at the same time; they become visible together


@dataclass(frozen=True)
class Request:
    """A test row, the memory rows that passed the gate, the weight of the path that sees them; a steer."""

    row: Row
    context: Sequence[Row]
    lmbda: float
    candidates: int  # memory rows retrieved before the gate
    sigma: float | None
    steer: Steer | None = None


@dataclass(frozen=True)
class GenerateJob:
    """One arm and user."""

    arm: str
    user: str
    requests: Sequence[Request]
    decode: Decoding
    adapter: Adapter | None
    profile: str = ""  # stands before every query, with and without context


def generate(bench: Workbench, jobs: Sequence[GenerateJob], what: str) -> list[list[dict[str, Any]]]:
    """Per job and request what the model gave (see `_compute`); only missing cells are computed."""
    keys = fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: (fit_of(job.adapter), job.decode),
        at_once=COMMIT,
        amount=lambda job: len(job.requests),
        what=what,
        unit="text",
    )
    return [json.loads(bench.store.read(key)["generations.json"]) for key in keys]


def _key(bench: Workbench, job: GenerateJob) -> str:
    return cell_key(
        __name__,
        kind="generate",
        **bench.identity,
        prompts=bench.asked(request.row["task"] for request in job.requests),
        decode=job.decode,
        adapter=job.adapter.key if job.adapter else None,
        **({"profile": job.profile} if job.profile else {}),
        requests=[[plain(r.row), [plain(c) for c in r.context], r.lmbda] for r in job.requests],
        **steering([request.steer for request in job.requests]),
    )


def steering(steers: Sequence[Steer | None]) -> dict[str, Any]:
    """What a cell's key must say of steering; nothing where there is none."""
    if not any(steers):
        return {}
    return {"steers": [steer.digest if steer else None for steer in steers]}


def _compute(
    bench: Workbench, shared: tuple[Fit | None, Decoding], jobs: dict[str, GenerateJob], done: Meter
) -> None:
    from spring.engine.steering import numbered, steered

    fit, decode = shared
    adapters = {job.adapter.key: job.adapter for job in jobs.values() if job.adapter}
    slots = {key: slot for slot, key in enumerate(adapters)}
    steers, numbers = numbered([request.steer for job in jobs.values() for request in job.requests])
    with bench.bank(fit, len(slots)) as bank, steered(bench.base.model, steers):
        for key, slot in slots.items():
            place(bank, slot, adapters[key])
        queries: list[Query] = []
        for job in jobs.values():
            slot = slots[job.adapter.key] if job.adapter else -1
            queries += [_prepare(bench, request, slot, job.profile) for request in job.requests]
        queries = [replace(query, steer=i) for query, i in zip(queries, numbers, strict=True)]
        answers = decode_all(bench, bank, queries, decode, done)
    results = [
        {
            "text": bench.prompter.decode(answer.tokens),
            "tokens": len(answer.tokens),
            "logp": float(answer.reference.sum()),
            "ref_tokens": len(answer.reference),
            "row_steps": answer.row_steps,
            "seconds": answer.seconds,
            "ref_seconds": answer.reference_seconds,
        }
        for answer in answers
    ]
    with bench.store.batch() as batch:
        first = 0
        for key, job in jobs.items():
            mine = results[first : first + len(job.requests)]
            first += len(mine)
            batch[key] = {"generations.json": json.dumps(mine).encode()}


def decode_all(
    bench: Workbench, bank: AdapterBank | None, queries: Sequence[Query], decode: Decoding, done: Meter
) -> list[Answer]:
    """Answers of the base model and the adapters in `bank`, all in flight at once."""
    from spring.engine.budget import decoding_room, scoring_tokens
    from spring.engine.decoding import generate as generate_many

    base, memory_gb = bench.base, bench.settings.memory_gb
    most = decode.max_new_tokens
    longest = (
        len(prompt) + max(most, len(query.reference))
        for query in queries
        for _, prompt, _ in decode.join.routes(query)
    )
    check_length(base.model, max(longest))
    return generate_many(
        base.model,
        bank,
        queries,
        decode,
        stop=_stop_tokens(base) | {bench.prompter.end},
        room=decoding_room(base.model, memory_gb),
        budget=scoring_tokens(base.model, memory_gb),
        progress=done,
    )


def _prepare(bench: Workbench, request: Request, slot: int, profile: str) -> Query:
    """Token ids of a request, without and with its context, and of the reference."""
    from spring.engine.queries import Query

    row = request.row
    context = bench.prompter.shown(request.context)
    asked = row["task"], row["query"], row["response"]
    alone = bench.prompter.text(*asked, profile=profile)
    given = bench.prompter.text(*asked, context=context, profile=profile)
    return Query(
        alone.prompt, given.prompt if context else None, request.lmbda, slot, reference=alone.response
    )


def _stop_tokens(base: Any) -> set[int]:
    """Tokens that end a response: the tokenizer's end of turn and what the model's own config names."""
    ends = base.model.generation_config.eos_token_id
    named = ends if isinstance(ends, list) else [ends]
    return {base.tokenizer.eos_token_id, *(token for token in named if token is not None)}
