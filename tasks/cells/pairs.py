"""Cells of steering vectors: one past item's contrast pair, and what it gives (spring/rivals/fints.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load, save

from spring.method.retrieval import document_text
from spring.rivals.fints import Fints, contrast_rouge
from spring.store.keys import cell_key
from tasks.cells.fill import Meter, fill
from tasks.cells.workbench import Row, Workbench, plain

if TYPE_CHECKING:
    from spring.engine.steering import Pair

VECTORS = "vectors.safetensors"
PAIRS = 64  # pairs read at the same time; they become visible together


@dataclass(frozen=True)
class PairJob:
    """A past item, items of other users, and what the model answered with these in its prompt."""

    user: str
    row: Row
    others: Sequence[Row]
    rejected: str
    fints: Fints


def extract(bench: Workbench, jobs: Sequence[PairJob], what: str) -> list[str]:
    """Keys of the cells of all jobs; a cell without `VECTORS` is a pair that was not kept."""
    return fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: job.fints,
        at_once=PAIRS,
        amount=lambda job: 1,
        what=what,
        unit="pair",
    )


def _key(bench: Workbench, job: PairJob) -> str:
    return cell_key(
        __name__,
        kind="steer",
        **bench.identity,
        embedding=bench.embedding,
        prompts=bench.asked(row["task"] for row in (job.row, *job.others)),
        settings=job.fints.extraction,
        row=plain(job.row),
        others=[plain(item) for item in job.others],
        rejected=job.rejected,
    )


def _compute(bench: Workbench, fints: Fints, jobs: dict[str, PairJob], done: Meter) -> None:
    from spring.engine.budget import scoring_tokens
    from spring.engine.steering import contrast

    rouges = {key: contrast_rouge(job.row["response"], job.rejected) for key, job in jobs.items()}
    kept = {key: job for key, job in jobs.items() if rouges[key] < fints.rouge_below}
    tensors: dict[str, dict[str, np.ndarray]] = {}
    seconds = 0.0  # per pair
    if kept:
        model, pairs = bench.base.model, [_pair(bench, job) for job in kept.values()]
        budget = scoring_tokens(model, bench.settings.memory_gb)
        began = perf_counter()
        vectors = contrast(model, fints.layer, pairs, read=fints.read, budget=budget)
        seconds = (perf_counter() - began) / len(kept)
        for (key, job), pair in zip(kept.items(), vectors, strict=True):
            document = document_text(job.row["query"], job.row["response"])
            [embedding] = bench.embedder.embed([document])  # by itself: last bits depend on the company
            tensors[key] = {"attn": pair[0], "mlp": pair[1], "embedding": embedding}
    with bench.store.batch() as batch:
        for key in jobs:
            cell = {"rouge": rouges[key], "seconds": seconds if key in kept else 0.0}
            found = {VECTORS: save(tensors[key])} if key in tensors else {}
            batch[key] = {"pair.json": json.dumps(cell).encode(), **found}
            done(1)


def _pair(bench: Workbench, job: PairJob) -> Pair:
    """Both answers as tokens, without the end of turn, and the prompt that they are read behind."""
    from spring.engine.steering import Pair

    behind = job.others if job.fints.behind == "others" else ()
    texts = [
        bench.prompter.text(job.row["task"], job.row["query"], answer, context=bench.prompter.shown(behind))
        for answer in (job.row["response"], job.rejected)
    ]
    end = bench.prompter.chat.closing
    chosen, rejected = (
        t.response[: -len(end)] if t.response[-len(end) :] == end else t.response for t in texts
    )
    return Pair(texts[0].prompt, chosen, rejected)


@dataclass(frozen=True)
class Made:
    """What a pair gave: ROUGE-L of both answers, the seconds it took, and vectors unless it was not kept."""

    rouge: float
    seconds: float
    vectors: Mapping[str, np.ndarray] | None


def read_pair(bench: Workbench, key: str) -> Made:
    """What the cell of a pair holds."""
    cell = bench.store.read(key)
    return Made(**json.loads(cell["pair.json"]), vectors=load(cell[VECTORS]) if VECTORS in cell else None)
