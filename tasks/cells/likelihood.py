"""Cells of reference likelihoods: one user's queries read under one adapter, with or without context.

A cell holds one path of the mixture, token by token, and no lambda: arms that differ in it alone, or of which
one has no memory, share their cells. The paths are mixed when they are read. Only weights by confidence and
rules other than the mixture need whole distributions: those arms go through the decode loop, for one token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spring.engine.settings import Decoding
from spring.method.mixing import Mixture, mixture
from spring.store.keys import cell_key
from tasks.cells.decoding import GenerateJob, Request, generate, steering
from tasks.cells.fill import Meter, fill
from tasks.cells.scoring import check_length, place
from tasks.cells.workbench import Adapter, Fit, Row, Workbench, fit_of, plain

if TYPE_CHECKING:
    from spring.engine.steering import Steer

COMMIT = 96  # paths that become visible together


@dataclass(frozen=True)
class Ask:
    """One user's queries, with what passed the gate, put to one adapter (null: the base model)."""

    requests: Sequence[Request]
    adapter: Adapter | None
    decode: Decoding
    profile: str = ""  # stands before every query, with and without context


@dataclass(frozen=True)
class Likelihood:
    """Sum of log p over a reference's tokens under the mixture (Eq. 8) or its rule, and their number."""

    logp: float
    tokens: int
    seconds: float  # of reading it; a text that stands in a cell again is not paid again

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.logp / self.tokens


class Read(NamedTuple):
    """A reference read along one path: log p of each token, and the seconds it took."""

    logps: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Path:
    """Rows, the memory rows that stand in the prompt of each and what steers it, read under one adapter."""

    texts: Sequence[tuple[Row, Sequence[Row], Steer | None]]
    adapter: Adapter | None
    profile: str = ""


def likelihoods(bench: Workbench, asks: Sequence[Ask], what: str) -> list[list[Likelihood]]:
    """Per ask and request: its reference's likelihood, teacher-forced; only missing cells are computed."""
    whole = [_takes_whole(ask) for ask in asks]
    apart = [path for ask, one in zip(asks, whole, strict=True) if not one for path in paths(ask)]
    read = iter(_read_paths(bench, apart, what))
    together = [_one_token(ask) for ask, one in zip(asks, whole, strict=True) if one]
    looped = iter(generate(bench, together, f"{what}, whole distributions"))
    found = []
    for ask, one in zip(asks, whole, strict=True):
        if not one:
            alone, given = iter(next(read)), iter(next(read))
            found.append([_mix(request, alone, given) for request in ask.requests])
        else:
            found.append([of_answer(answer) for answer in next(looped)])
    return found


def of_answer(answer: dict[str, Any]) -> Likelihood:
    """What the decode loop found on its way (tasks/cells/decoding.py); the prompts are in `seconds`."""
    return Likelihood(answer["logp"], answer["ref_tokens"], answer["seconds"] + answer["ref_seconds"])


def _takes_whole(ask: Ask) -> bool:
    """Whether a path's log p of the reference alone is not enough."""
    return ask.decode.join.whole or ask.decode.join.sure is not None


def _one_token(ask: Ask) -> GenerateJob:
    join = ask.decode.join
    if isinstance(join, Mixture):
        join = join.model_copy(update={"adaptive": None})
    decode = Decoding(max_new_tokens=1, repetition_penalty=1.0, join=join)
    return GenerateJob("", "", ask.requests, decode, ask.adapter, ask.profile)


def weights(request: Request) -> tuple[float, float]:
    """Weights of the path without and the path with context (Eq. 8); a path of weight 0 is not read."""
    lmbda = request.lmbda if request.context else 0.0
    return 1 - lmbda, lmbda


def paths(ask: Ask) -> tuple[Path, Path]:
    """What must be read without and with context."""
    alone = [(r.row, (), r.steer) for r in ask.requests if weights(r)[0] > 0]
    given = [(r.row, r.context, r.steer) for r in ask.requests if weights(r)[1] > 0]
    return Path(alone, ask.adapter, ask.profile), Path(given, ask.adapter, ask.profile)


def _mix(request: Request, alone: Iterator[Read], given: Iterator[Read]) -> Likelihood:
    parts = [
        (weight, next(path))
        for weight, path in zip(weights(request), (alone, given), strict=True)
        if weight > 0
    ]
    logps = mixture([read.logps for _, read in parts], [weight for weight, _ in parts])
    return Likelihood(float(logps.sum()), len(logps), sum(read.seconds for _, read in parts))


def _read_paths(bench: Workbench, wanted: Sequence[Path], what: str) -> list[list[Read]]:
    places = [i for i, path in enumerate(wanted) if path.texts]
    first: dict[str, int] = {}  # adapter -> when it was first asked
    for i in places:
        first.setdefault(_adapter_key(wanted[i]), i)
    # few adapters in memory at once, in an order that does not hang on hashes of the code, as their keys do
    places.sort(key=lambda i: first[_adapter_key(wanted[i])])
    keys = fill(
        bench,
        [wanted[i] for i in places],
        key=_key,
        compute=_compute,
        group=lambda path: fit_of(path.adapter),
        at_once=COMMIT,
        amount=lambda path: len(path.texts),
        what=what,
        unit="text",
    )
    found = dict(zip(places, keys, strict=True))
    return [_read(bench, found[i]) if i in found else [] for i in range(len(wanted))]


def _adapter_key(path: Path) -> str:
    return path.adapter.key if path.adapter else ""


def _key(bench: Workbench, path: Path) -> str:
    return cell_key(
        __name__,
        kind="likelihood",
        **bench.identity,
        prompts=bench.asked(row["task"] for row, _, _ in path.texts),
        adapter=_adapter_key(path),
        **({"profile": path.profile} if path.profile else {}),
        texts=[[plain(row), [plain(item) for item in context]] for row, context, _ in path.texts],
        **steering([steer for _, _, steer in path.texts]),
    )


def _compute(bench: Workbench, fit: Fit | None, chosen: dict[str, Path], done: Meter) -> None:
    from spring.engine.budget import scoring_tokens
    from spring.engine.scoring import token_logps
    from spring.engine.steering import numbered, steered

    base = bench.base
    adapters = {path.adapter.key: path.adapter for path in chosen.values() if path.adapter}
    slots = {key: slot for slot, key in enumerate(adapters)}
    steers, numbers = numbered([steer for path in chosen.values() for _, _, steer in path.texts])
    with bench.bank(fit, len(slots)) as bank, steered(base.model, steers):
        for key, slot in slots.items():
            place(bank, slot, adapters[key])
        texts = [
            bench.prompter.text(
                row["task"],
                row["query"],
                row["response"],
                context=bench.prompter.shown(context),
                profile=path.profile,
                slot=slots.get(_adapter_key(path), -1),
            )
            for path in chosen.values()
            for row, context, _ in path.texts
        ]
        texts = [replace(text, steer=i) for text, i in zip(texts, numbers, strict=True)]
        check_length(base.model, max(map(len, texts)))
        once = list(dict.fromkeys(texts))
        budget = scoring_tokens(base.model, bench.settings.memory_gb)
        began = perf_counter()
        read = token_logps(base.model, bank, once, budget=budget)
        pace = (perf_counter() - began) / sum(map(len, once))  # seconds per token
    found, left = dict(zip(once, read, strict=True)), iter(texts)
    with bench.store.batch() as batch:
        for key, path in chosen.items():
            mine = list(islice(left, len(path.texts)))
            new = [text not in mine[:i] for i, text in enumerate(mine)]
            cell = {
                "logps": [found[text].tolist() for text in mine],
                "seconds": [pace * len(text) * first for text, first in zip(mine, new, strict=True)],
            }
            batch[key] = {"logps.json": json.dumps(cell).encode()}
            done(len(mine))


def _read(bench: Workbench, key: str) -> list[Read]:
    cell = json.loads(bench.store.read(key)["logps.json"])
    every = zip(cell["logps"], cell["seconds"], strict=True)
    return [Read(np.array(logps, dtype=np.float64), seconds) for logps, seconds in every]
