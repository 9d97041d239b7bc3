"""Retrieval-interpolated greedy decoding (Eq. 7, 8), all queries in flight at once.

A query with an open gate is two rows, one without and one with the retrieved context; a query with a closed
gate is one row. Every arm goes through this loop: base model, plain retrieval (lambda 1) and a purely
parametric arm (lambda 0) are single rows of it. The two distributions are mixed as probabilities (as in
kNN-LM, arXiv 1911.00172); the repetition penalty enters once, on the mixture's log-probabilities, for
generated tokens only.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spring.engine.lora import AdapterBank
from spring.engine.packing import KeyValueCache, head, hidden_states, pack_rows
from spring.engine.scoring import Progress
from spring.params import Decode


@dataclass(frozen=True)
class Query:
    """What one response is generated from, as token ids.

    `prompt` is the query alone, `context_prompt` the query with its retrieved context (null: the gate is
    closed). `lmbda` is the weight of the second.
    """

    prompt: tuple[int, ...]
    context_prompt: tuple[int, ...] | None
    lmbda: float
    slot: int = -1

    @property
    def paths(self) -> list[tuple[tuple[int, ...], float]]:
        """Prompts that are decoded, with their weights: one or two."""
        if self.context_prompt is None or self.lmbda == 0:
            return [(self.prompt, 1.0)]
        if self.lmbda == 1:
            return [(self.context_prompt, 1.0)]
        return [(self.prompt, 1 - self.lmbda), (self.context_prompt, self.lmbda)]


@dataclass
class Answer:
    """Generated token ids without the stop token, and what they cost."""

    tokens: list[int] = field(default_factory=list)
    row_steps: int = 0  # rows decoded over all steps: 2 per token with an open gate, else 1
    seconds: float = 0.0  # its share of the wall time of the batches it was in


@dataclass
class _Flight:
    """A query being decoded: its rows in the cache, their weights, and the last token."""

    number: int
    rows: list[int]
    weights: list[float]
    slot: int
    last: int = -1
    agreed: int = 0  # tokens in a row on which both paths agreed


def generate(
    model: Any,
    bank: AdapterBank | None,
    queries: Sequence[Query],
    settings: Decode,
    *,
    stop: Collection[int],
    max_rows: int,
    budget: int,
    progress: Progress = lambda _: None,
) -> list[Answer]:
    """Greedy responses in the order of `queries`.

    At most `max_rows` rows are in flight and `budget` prompt tokens are read at once; finished rows leave
    the batch and waiting queries take their room. `progress` is told of finished queries.
    """
    batch = _Batch(model, bank, queries, settings, frozenset(stop))
    waiting = deque(range(len(queries)))
    while waiting or batch.flights:
        batch.admit(waiting, max_rows=max_rows, budget=budget)
        progress(batch.advance())
    return batch.answers


class _Batch:
    """The queries in flight and their key-value cache."""

    def __init__(
        self,
        model: Any,
        bank: AdapterBank | None,
        queries: Sequence[Query],
        settings: Decode,
        stop: frozenset[int],
    ) -> None:
        self.model, self.bank, self.queries, self.settings, self.stop = model, bank, queries, settings, stop
        self.device = next(model.parameters()).device
        self.answers = [Answer() for _ in queries]
        self.flights: list[_Flight] = []
        self.cache = KeyValueCache(0)

    def admit(self, waiting: deque[int], *, max_rows: int, budget: int) -> None:
        """Reads the prompts of as many waiting queries as fit, and decodes their first token."""
        while waiting:
            room = max_rows - len(self.cache.lengths)
            chosen: list[int] = []
            rows = tokens = 0
            while waiting:
                paths = self.queries[waiting[0]].paths
                size = sum(len(prompt) for prompt, _ in paths)
                alone = not chosen and not self.flights  # whatever its size, one query always goes on
                if not alone and (rows + len(paths) > room or (chosen and tokens + size > budget)):
                    break
                chosen.append(waiting.popleft())
                rows, tokens = rows + len(paths), tokens + size
            if not chosen:
                return
            self._read(chosen)

    def _read(self, chosen: Sequence[int]) -> None:
        began = time.perf_counter()
        prompts: list[tuple[int, ...]] = []
        flights: list[_Flight] = []
        first = len(self.cache.lengths)
        for number in chosen:
            paths = self.queries[number].paths
            flights.append(
                _Flight(
                    number,
                    [first + len(prompts) + i for i in range(len(paths))],
                    [weight for _, weight in paths],
                    self.queries[number].slot,
                )
            )
            prompts += [prompt for prompt, _ in paths]
        fresh = KeyValueCache(len(prompts))
        slots = [flight.slot for flight in flights for _ in flight.rows]
        pack = pack_rows(prompts, slots, device=self.device, cache=fresh)
        ends = torch.tensor(pack.lengths, device=self.device).cumsum(0) - 1
        logits = self._logits(pack, ends)
        self.cache.join(fresh)
        self._choose(flights, logits, began)
        self.flights += flights
        self._compact()

    def advance(self) -> int:
        """Lets finished queries go and decodes one token of every other; gives how many finished."""
        finished = [flight for flight in self.flights if self._finished(flight)]
        if finished:
            self.flights = [flight for flight in self.flights if not self._finished(flight)]
            self._compact()
        if self.flights:
            began = time.perf_counter()
            last = [[flight.last] for flight in self.flights for _ in flight.rows]
            slots = [flight.slot for flight in self.flights for _ in flight.rows]
            pack = pack_rows(last, slots, device=self.device, cache=self.cache)
            self._choose(self.flights, self._logits(pack, None), began)
            self._compact()
        return len(finished)

    def _finished(self, flight: _Flight) -> bool:
        tokens = self.answers[flight.number].tokens
        return flight.last in self.stop or len(tokens) >= self.settings.max_new_tokens

    def _compact(self) -> None:
        """Keeps only the rows of queries in flight, in their order."""
        kept = [row for flight in self.flights for row in flight.rows]
        if len(kept) == len(self.cache.lengths):
            return
        self.cache.keep(kept)
        position = {row: i for i, row in enumerate(kept)}
        for flight in self.flights:
            flight.rows = [position[row] for row in flight.rows]

    @torch.inference_mode()
    def _logits(self, pack: Any, at: Tensor | None) -> Tensor:
        """Logits [R, V] of the last token of every row."""
        if self.bank is None:
            hidden = hidden_states(self.model, pack)
        else:
            with self.bank.routed(pack):
                hidden = hidden_states(self.model, pack)
        return head(self.model)(hidden if at is None else hidden[at]).float()

    @torch.inference_mode()
    def _choose(self, flights: Sequence[_Flight], logits: Tensor, began: float) -> None:
        """Appends each query's next token; `logits` [R, V] hold the rows of `flights` in order."""
        logps = logits.log_softmax(1)
        mixed, first = [], 0
        for flight in flights:
            paths = logps[first : first + len(flight.rows)]
            mixed.append(interpolate(paths, flight.weights))
            first += len(flight.rows)
        scores = torch.stack(mixed)
        self._penalise(flights, scores)
        chosen = scores.argmax(1).tolist()
        seconds = (time.perf_counter() - began) / len(logits)
        first = 0
        for flight, token in zip(flights, chosen, strict=True):
            answer, rows = self.answers[flight.number], len(flight.rows)
            flight.last = token
            if token not in self.stop:
                answer.tokens.append(token)
            answer.row_steps += rows
            answer.seconds += seconds * rows
            self._settle(flight, logps[first : first + rows])
            first += rows

    def _penalise(self, flights: Sequence[_Flight], scores: Tensor) -> None:
        """log p -> penalty * log p for tokens already generated (log p <= 0: they become less likely)."""
        penalty = self.settings.repetition_penalty
        if penalty == 1:
            return
        pairs = [(i, t) for i, f in enumerate(flights) for t in set(self.answers[f.number].tokens)]
        if pairs:
            row, column = torch.tensor(pairs, device=scores.device).T
            scores[row, column] *= penalty

    def _settle(self, flight: _Flight, logps: Tensor) -> None:
        """`adaptive`: drops the retrieval path once both paths agreed for some tokens in a row [ours]."""
        adaptive = self.settings.adaptive
        if adaptive is None or len(flight.rows) == 1:
            return
        agreed = jensen_shannon(logps[0], logps[1]) < adaptive.threshold
        flight.agreed = flight.agreed + 1 if agreed else 0
        if flight.agreed >= adaptive.patience:
            flight.rows, flight.weights = flight.rows[:1], [1.0]


def interpolate(logps: Tensor, weights: Sequence[float]) -> Tensor:
    """log of the mixture sum_k w_k p_k from log-probabilities [k, ...] -> [...] (Eq. 8)."""
    if len(weights) == 1:
        return logps[0].clone()
    return torch.logaddexp(logps[0] + math.log(weights[0]), logps[1] + math.log(weights[1]))


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> float:
    """Jensen-Shannon divergence of two distributions [V], in nats."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    p, q = log_p.exp(), log_q.exp()
    return 0.5 * float((p * (log_p - log_m)).sum() + (q * (log_q - log_m)).sum())
