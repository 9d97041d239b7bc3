"""Cells of gains: by how much a memory in the prompt raises the likelihood of a past reference [ours].

The labels of the learned gate (spring/learned_gate.py). A pair is a train query of period t and an item of
the memory after period t-1, under the adapter of period t-1: what would have happened, had the query been
served before it was learned from. So no adapter has seen the reference that it is judged on. An arm's profile
stands before the query in both prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from spring.store import cell_key, code_digest
from tasks.cells.banks import Fit
from tasks.cells.scoring import CODE, SLOTS, check_length, place
from tasks.cells.workbench import Adapter, Done, Row, Workbench, fill, fit_of, plain

if TYPE_CHECKING:
    from spring.engine.scoring import Text


@dataclass(frozen=True)
class GainJob:
    """Pairs (query, item) of one user, to be judged under one adapter (null: the base model)."""

    pairs: Sequence[tuple[Row, Row]]
    adapter: Adapter | None
    profile: str = ""


@dataclass(frozen=True)
class Gains:
    """Of the pairs of a job, in order: log p with the item minus log p without, nats per response token."""

    values: list[float]
    seconds: float  # of reading the texts


def gains(bench: Workbench, jobs: Sequence[GainJob], what: str) -> list[Gains]:
    """The gains of every job's pairs."""
    keys = fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: fit_of(job.adapter),
        at_once=SLOTS,
        amount=lambda job: len(job.pairs),
        what=what,
        unit="pair",
    )
    return [Gains(**json.loads((bench.store.path(key) / "gains.json").read_text())) for key in keys]


def _key(bench: Workbench, job: GainJob) -> str:
    return cell_key(
        kind="gain",
        code=code_digest(*CODE, "tasks/cells/gains"),
        **bench.identity,
        prompts=bench.asked([row for pair in job.pairs for row in pair]),
        adapter=job.adapter.key if job.adapter else None,
        **({"profile": job.profile} if job.profile else {}),
        pairs=[[plain(query), plain(item)] for query, item in job.pairs],
    )


def _compute(bench: Workbench, fit: Fit | None, jobs: dict[str, GainJob], done: Done) -> None:
    from spring.engine.budget import scoring_tokens
    from spring.engine.scoring import token_logps

    base = bench.base
    texts: dict[Text, None] = {}  # in order; a query of several pairs is read alone once
    read: dict[str, list[tuple[Text, Text]]] = {}
    with bench.bank(fit, len(jobs)) as bank:
        for slot, (key, job) in enumerate(jobs.items()):
            place(bank, slot, job.adapter)
            at = slot if job.adapter else -1
            read[key] = [_texts(bench, pair, at, job.profile) for pair in job.pairs]
            texts |= dict.fromkeys(text for both in read[key] for text in both)
        check_length(base.model, max(map(len, texts)))
        budget = scoring_tokens(base.model, bench.params.model.memory_gb)
        began = perf_counter()
        found = token_logps(base.model, bank, list(texts), budget=budget)
        pace = (perf_counter() - began) / sum(map(len, texts))  # seconds per token
    mean = {text: float(logps.mean(dtype=float)) for text, logps in zip(texts, found, strict=True)}
    with bench.store.batch() as batch:
        for key, pairs in read.items():
            own = {text for both in pairs for text in both}
            values = [mean[given] - mean[alone] for alone, given in pairs]
            cell = {"values": values, "seconds": pace * sum(map(len, own))}
            (batch.cell(key) / "gains.json").write_text(json.dumps(cell))
            done(len(values))


def _texts(bench: Workbench, pair: tuple[Row, Row], slot: int, profile: str) -> tuple[Text, Text]:
    """The reference after its query alone, and after the query with the item."""
    row, item = pair
    asked = row["task"], row["query"], row["response"]
    return (
        bench.prompter.text(*asked, profile=profile, slot=slot),
        bench.prompter.text(*asked, context=bench.prompter.shown([item]), profile=profile, slot=slot),
    )
