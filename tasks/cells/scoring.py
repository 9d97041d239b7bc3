"""Cells of log-likelihoods: one user's rows under one adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from spring.store.keys import cell_key
from tasks.cells.fill import Meter, fill
from tasks.cells.workbench import Adapter, Fit, Row, Workbench, fit_of, plain

if TYPE_CHECKING:
    from spring.engine.lora import AdapterBank

SLOTS = 16  # adapters in memory at once; their jobs become visible together


@dataclass(frozen=True)
class ScoreJob:
    """Rows of one user to be scored under one adapter (null: the base model)."""

    rows: Sequence[Row]
    adapter: Adapter | None


@dataclass(frozen=True)
class Scores:
    """Sums of log p over response tokens (nats), and the number of those tokens, both [N]; what it took."""

    logp: np.ndarray
    tokens: np.ndarray
    seconds: float


def score(bench: Workbench, jobs: Sequence[ScoreJob], what: str) -> list[Scores]:
    """Log-likelihoods for every job, in order; only missing cells are computed."""
    keys = fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: fit_of(job.adapter),
        at_once=SLOTS,
        amount=lambda job: len(job.rows),
        what=what,
        unit="text",
    )
    return [_read(bench, key) for key in keys]


def _key(bench: Workbench, job: ScoreJob) -> str:
    rows = [plain(row) for row in job.rows]
    return cell_key(
        __name__,
        kind="score",
        **bench.identity,
        prompts=bench.asked(task for task, *_ in rows),
        adapter=job.adapter.key if job.adapter else None,
        rows=rows,
    )


def _compute(bench: Workbench, fit: Fit | None, jobs: dict[str, ScoreJob], done: Meter) -> None:
    from spring.engine.budget import scoring_tokens
    from spring.engine.scoring import token_logps

    base = bench.base
    with bench.bank(fit, len(jobs)) as bank:
        texts = []
        for slot, job in enumerate(jobs.values()):
            place(bank, slot, job.adapter)
            at = slot if job.adapter else -1
            texts += [bench.prompter.text(r["task"], r["query"], r["response"], slot=at) for r in job.rows]
        budget = scoring_tokens(base.model, bench.settings.memory_gb)
        began = perf_counter()
        found = token_logps(base.model, bank, texts, budget=budget)
        pace = (perf_counter() - began) / sum(map(len, texts)) if texts else 0.0  # seconds per token
    with bench.store.batch() as batch:
        first = 0
        for key, job in jobs.items():
            mine = found[first : first + len(job.rows)]
            cell = {
                "logp": [float(x.sum(dtype=np.float64)) for x in mine],
                "tokens": [len(x) for x in mine],
                "seconds": pace * sum(map(len, texts[first : first + len(mine)])),
            }
            first += len(mine)
            batch[key] = {"scores.json": json.dumps(cell).encode()}
            done(len(mine))


def place(bank: AdapterBank | None, slot: int, adapter: Adapter | None) -> None:
    """Loads an adapter into a slot of the bank."""
    if adapter is not None:
        from spring.engine.peft import read_adapter

        assert bank is not None
        bank.load_state(slot, read_adapter(adapter.read()))


def _read(bench: Workbench, key: str) -> Scores:
    cell = json.loads(bench.store.read(key)["scores.json"])
    logp, tokens = np.array(cell["logp"], dtype=np.float64), np.array(cell["tokens"], dtype=np.int32)
    return Scores(logp, tokens, cell["seconds"])


def check_length(model: Any, tokens: int) -> None:
    """Raises `ValueError` if a prompt and what follows it take more tokens than the model has positions."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most and tokens > most:
        raise ValueError(
            f"a prompt with its context and what follows it takes {tokens} tokens, the model reads "
            f"{most}; lower retrieve.top_k, decode.max_new_tokens, ingest.max_chars, or profile.items and "
            f"profile.item_tokens"
        )
