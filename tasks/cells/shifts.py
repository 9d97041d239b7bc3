"""Cells of collateral drift: how far one adapter's outputs on neutral texts lie from another's.

The divergence is over the whole vocabulary, teacher-forced on the same answers, and no user's text is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spring.live.neutral import SYSTEM, TEXTS
from spring.method.prompts import Prompt, Prompter
from spring.store.keys import cell_key
from tasks.cells.fill import Meter, fill
from tasks.cells.scoring import place
from tasks.cells.workbench import Adapter, Fit, Workbench, fit_of

if TYPE_CHECKING:
    from torch import Tensor

    from spring.engine.texts import Text

AT_ONCE = 8  # jobs whose states are in memory together
PROMPTS = {"neutral": Prompt(system=SYSTEM, user="{QUESTION}")}


@dataclass(frozen=True)
class ShiftJob:
    """An adapter, and what its outputs are compared with (null: the base model's)."""

    adapter: Adapter
    against: Adapter | None


def shifts(bench: Workbench, jobs: Sequence[ShiftJob], what: str) -> list[float]:
    """Mean divergence per job (nats per token), in order; only missing cells are computed."""
    keys = fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: None,
        at_once=AT_ONCE,
        amount=lambda job: len(TEXTS),
        what=what,
        unit="text",
    )
    return [float(json.loads(bench.store.read(key)["shift.json"])["mean"]) for key in keys]


def _key(bench: Workbench, job: ShiftJob) -> str:
    return cell_key(
        __name__,
        kind="shift",
        **bench.identity,
        adapter=job.adapter.key,
        against=job.against.key if job.against else None,
    )


def _compute(bench: Workbench, group: None, jobs: dict[str, ShiftJob], done: Meter) -> None:
    from spring.engine.divergence import divergences

    base = bench.base
    prompter = Prompter(base.tokenizer, PROMPTS, bench.settings.max_length, base.template)
    texts = [prompter.text("neutral", json.dumps({"QUESTION": q}), answer) for q, answer in TEXTS]
    adapters = [one for job in jobs.values() for one in (job.adapter, job.against)]
    states = _states(bench, adapters, texts)
    with bench.store.batch() as batch:
        for key, job in jobs.items():
            other = job.against.key if job.against else None
            found = divergences(base.model, states[job.adapter.key], states[other])
            batch[key] = {"shift.json": json.dumps({"mean": float(found.mean(dtype="float64"))}).encode()}
            done(len(TEXTS))


def _states(
    bench: Workbench, adapters: Sequence[Adapter | None], texts: Sequence[Text]
) -> dict[str | None, Tensor]:
    """What every adapter predicts the answers from, by its key (null: the base model)."""
    from spring.engine.budget import scoring_tokens
    from spring.engine.divergence import response_states

    budget = scoring_tokens(bench.base.model, bench.settings.memory_gb)
    groups: dict[Fit | None, dict[str | None, Adapter | None]] = {}
    for one in adapters:
        groups.setdefault(fit_of(one), {})[one.key if one else None] = one
    found: dict[str | None, Tensor] = {}
    for fit, members in groups.items():
        with bench.bank(fit, len(members)) as bank:
            for slot, one in enumerate(members.values()):
                place(bank, slot, one)
            slots = [slot if one else -1 for slot, one in enumerate(members.values())]
            read = response_states(bench.base.model, bank, texts, slots, budget=budget)
        found.update((key, read[slot]) for key, slot in zip(members, slots, strict=True))
    return found
