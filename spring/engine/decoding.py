"""Retrieval-interpolated greedy decoding (Eq. 7, 8), all queries in flight at once.

A query with an open gate is two rows, one without and one with the retrieved context; a query with a closed
gate is one row. Every arm goes through this loop: base model, plain retrieval (lambda 1) and a purely
parametric arm (lambda 0) are single rows of it. The two distributions are mixed as probabilities (as in
kNN-LM, arXiv 1911.00172), or made into one by another `decode.rule` (spring/methods/cope.py, cad.py); the
repetition penalty enters once, on the log-probabilities of what came out, for generated tokens only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spring.arm_params import Decode, Rule
from spring.confidence import CONFIDENCES, heard
from spring.engine.attention import head, hidden_states, logits_of
from spring.engine.budget import Room, halved, out_of_memory, warn_of_memory
from spring.engine.interpolation import interpolate, jensen_shannon, mixture
from spring.engine.lora import AdapterBank
from spring.engine.packing import Block, KeyValueCache, pack_rows
from spring.engine.parallel import each
from spring.engine.queries import Answer, Query, Read, Route, routes
from spring.engine.scoring import CHUNK, Progress, target_logps, token_batches


@dataclass
class _Flight:
    """A query being decoded: its rows' names in the cache, what each goes on from, and the last token."""

    number: int
    rows: list[int]
    routes: list[Route]
    last: int = -1
    agreed: int = 0  # tokens in a row on which both paths agreed


def generate(
    model: Any,
    bank: AdapterBank | None,
    queries: Sequence[Query],
    settings: Decode,
    *,
    stop: Collection[int],
    room: Room,
    budget: int,
    progress: Progress = lambda _: None,
) -> list[Answer]:
    """Greedy responses in the order of `queries`.

    As many queries are in flight as `room` holds (out of memory, half of it) and `budget` tokens of prompts
    are read at once; finished rows leave the batch and waiting queries take their room. `progress` is told
    of finished queries.
    """
    batch = _Batch(model, bank, queries, settings, frozenset(stop), budget)
    waiting = deque(range(len(queries)))
    while waiting or batch.flights:
        try:
            batch.admit(waiting, room)
            progress(batch.advance())
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or room.tokens == 0:
                raise
        warn_of_memory(
            f"{batch.used} tokens in flight"
        )  # outside the handler, which holds on to the failed attempt
        room = replace(room, tokens=min(room.tokens, batch.used) // 2)
        batch.restart(waiting)
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
        budget: int,
    ) -> None:
        self.model, self.bank, self.queries, self.settings, self.stop = model, bank, queries, settings, stop
        self.routes = [routes(query, settings.rule) for query in queries]
        self.budget = budget
        self.device = next(model.parameters()).device
        self.answers = [Answer() for _ in queries]
        self.flights: list[_Flight] = []
        self.cache = KeyValueCache()
        self.used = 0  # tokens of the cache that queries in flight may come to need
        self._names = count()

    def admit(self, waiting: deque[int], room: Room) -> None:
        """Reads the prompts of as many waiting queries as fit, and decodes their first token."""
        chosen: list[int] = []
        self.used = sum(self._tokens(flight.number, room) for flight in self.flights)
        while waiting:
            more = self._tokens(waiting[0], room)
            if self.used + more > room.tokens and (chosen or self.flights):  # one always goes on
                break
            self.used += more
            chosen.append(waiting.popleft())
        try:
            if chosen:
                self._read(chosen)
        except (RuntimeError, MemoryError):
            waiting.extendleft(reversed(chosen))
            raise

    def _tokens(self, number: int, room: Room) -> int:
        """Tokens of the cache that a query may come to need."""
        longest = max(self.settings.max_new_tokens, len(self.queries[number].reference))
        return sum(len(route.prompt) + longest + room.per_row for route in self.routes[number])

    def _reads(self, number: int) -> list[Read]:
        query = self.queries[number]
        return [((route.slot, query.steer), route.prompt, query.reference) for route in self.routes[number]]

    def _read(self, chosen: Sequence[int]) -> None:
        """Reads what the queries need, each prompt of a slot once, in batches of similar length."""
        began = time.perf_counter()
        reads = list(dict.fromkeys(read for number in chosen for read in self._reads(number)))
        reads.sort(key=lambda read: len(read[1]) + len(read[2]))
        batches = list(
            token_batches([len(prompt) + len(reference) for _, prompt, reference in reads], self.budget)
        )

        def run(batch: list[int]) -> list[_Prompt]:
            return halved(lambda some: self._prefill([reads[i] for i in some]), batch)

        found = [one for batch in each(run, batches, self.device) for one in batch]
        prompts = dict(zip(reads, found, strict=True))
        fresh: list[_Flight] = []
        logits: dict[int, Tensor] = {}  # by row
        for number in chosen:
            own = [prompts[read] for read in self._reads(number)]
            weights = [route.weight for route in self.routes[number]]
            self.answers[number].reference = self._reference(number, own, weights)
            rows = [next(self._names) for _ in own]
            for row, one in zip(rows, own, strict=True):
                one.rows.append(row)
                logits[row] = one.logits
            fresh.append(_Flight(number, rows, self.routes[number]))
        self.cache.admit(_blocks_of(found))
        places = {row: i for i, row in enumerate(logits)}
        first = torch.stack(list(logits.values()))
        self._choose(fresh, places, first, self._share_out(reads, chosen, time.perf_counter() - began))
        self.flights += fresh

    def _reference(self, number: int, prompts: Sequence[_Prompt], weights: list[float]) -> np.ndarray:
        """log p of each token of a query's reference, from its paths."""
        if self.settings.rule is None or len(prompts) == 1:
            return mixture([one.reference for one in prompts], self._heard(prompts, weights))
        return self._judge_pair(self.settings.rule, prompts, self.queries[number].reference)

    @torch.inference_mode()
    def _judge_pair(self, rule: Rule, prompts: Sequence[_Prompt], reference: Sequence[int]) -> np.ndarray:
        """log p of a reference under a rule, which takes both whole distributions at every token."""
        layer = head(self.model)
        targets = torch.tensor(reference, dtype=torch.long, device=self.device)[:, None]
        found = []
        states = [one.hidden.split(CHUNK) for one in prompts]
        for *both, wanted in zip(*states, targets.split(CHUNK), strict=True):
            logps = [torch.log_softmax(logits_of(layer, one), 1, dtype=torch.float32) for one in both]
            found.append(rule.judge(*logps).gather(1, wanted)[:, 0].double())
        return torch.cat(found).cpu().numpy()

    def _heard(self, prompts: Sequence[_Prompt], weights: list[float]) -> list[float | np.ndarray]:
        """The weights of a query's paths; by confidence, at each token of its reference."""
        if self.settings.confidence is None or len(weights) == 1:
            return list(weights)
        sure = torch.from_numpy(np.stack([one.confidence for one in prompts], 1)).double()  # [n, 2]
        return list(heard(torch.tensor(weights, dtype=torch.float64), sure).numpy().T)

    def _share_out(self, reads: Sequence[Read], chosen: Sequence[int], seconds: float) -> float:
        """Divides the time that reading took: gives the prompts' part, the references keep their own."""
        tokens = sum(len(reference) for _, _, reference in reads)
        part = seconds * tokens / (tokens + sum(len(prompt) for _, prompt, _ in reads))
        for number in chosen:
            self.answers[number].reference_seconds = part / len(chosen)
        return seconds - part

    @torch.inference_mode()
    def _prefill(self, reads: Sequence[Read]) -> list[_Prompt]:
        """Reads prompts with their references behind them; the cache keeps the prompts."""
        cache = KeyValueCache()
        rows = [prompt + reference[:-1] for _, prompt, reference in reads]
        pack = pack_rows(
            rows,
            [slot for (slot, _), _, _ in reads],
            device=self.device,
            cache=cache,
            prompts=[prompt for _, prompt, _ in reads],
            steers=[steer for (_, steer), _, _ in reads],
        )
        hidden = self._hidden(pack)
        [block] = cache.blocks
        block.lengths = [len(prompt) for _, prompt, _ in reads]
        starts = [start for start, _ in pack.spans()]
        ends = [start + len(prompt) - 1 for start, (_, prompt, _) in zip(starts, reads, strict=True)]
        layer = head(self.model)
        logits = layer(hidden[ends]).float()
        at = [end + i for end, (_, _, ref) in zip(ends, reads, strict=True) for i in range(len(ref))]
        targets = torch.tensor([token for _, _, ref in reads for token in ref], device=self.device)
        hidden = hidden[at]
        chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True) if at else ()
        judged = [self._judge(logits_of(layer, h), t) for h, t in chunks] or [torch.zeros(2, 0)]
        lengths = [len(ref) for _, _, ref in reads]
        kept = hidden.split(lengths) if self.settings.rule else [hidden[:0]] * len(reads)
        references = torch.cat(judged, 1).split(lengths, 1)
        return [
            _Prompt(block, i, logits[i], ref[0].numpy(), ref[1].numpy(), states)
            for i, (ref, states) in enumerate(zip(references, kept, strict=True))
        ]

    def _judge(self, logits: Tensor, targets: Tensor) -> Tensor:
        """[2, n] on the processor: log p of the targets, and with `confidence` how sure each position is."""
        by = self.settings.confidence
        if by is None:
            found = target_logps(logits, targets)
            return torch.stack([found, torch.ones_like(found)]).cpu()
        logp = torch.log_softmax(logits, 1, dtype=torch.float32)
        return torch.stack([logp.gather(1, targets[:, None])[:, 0], CONFIDENCES[by](logp)]).cpu()

    def advance(self) -> int:
        """Lets finished queries go and decodes one token of every other; gives how many finished."""
        before = len(self.flights)
        self.flights = [flight for flight in self.flights if not self._finished(flight)]
        kept = {row for flight in self.flights for row in flight.rows}
        if len(kept) < len(self.cache.rows):
            self.cache.keep(kept)
        if self.flights:
            began = time.perf_counter()
            places = {row: i for i, row in enumerate(self.cache.rows)}
            self._choose(self.flights, places, self._step(), time.perf_counter() - began)
        return before - len(self.flights)

    def _finished(self, flight: _Flight) -> bool:
        tokens = self.answers[flight.number].tokens
        return flight.last in self.stop or len(tokens) >= self.settings.max_new_tokens

    @torch.inference_mode()
    def _step(self) -> Tensor:
        """Logits [R, V] of the token after the last one of every row, in the cache's order."""
        owners = {
            row: (flight.last, route, self.queries[flight.number].steer)
            for flight in self.flights
            for row, route in zip(flight.rows, flight.routes, strict=True)
        }
        owned = [owners[row] for row in self.cache.rows]
        pack = pack_rows(
            [[last] for last, _, _ in owned],
            [route.slot for _, route, _ in owned],
            device=self.device,
            cache=self.cache,
            prompts=[route.prompt for _, route, _ in owned],
            steers=[steer for _, _, steer in owned],
        )
        return head(self.model)(self._hidden(pack)).float()

    def _hidden(self, pack: Any) -> Tensor:
        if self.bank is None:
            return hidden_states(self.model, pack)
        with self.bank.routed(pack):
            return hidden_states(self.model, pack)

    @torch.inference_mode()
    def _choose(
        self, flights: Sequence[_Flight], places: Mapping[int, int], logits: Tensor, seconds: float
    ) -> None:
        """Appends each query's next token; `logits` [R, V], row i at places[i]; `seconds` spent on them."""
        began = time.perf_counter()
        logps = logits.log_softmax(1)
        at = [[places[row] for row in flight.rows] for flight in flights]
        scores = logps[[rows[0] for rows in at]]
        two = [i for i, flight in enumerate(flights) if len(flight.rows) == 2]
        if two:
            pairs = torch.tensor([at[i] for i in two], device=logps.device)
            first, second = (logps[rows] for rows in pairs.T)
            weights = [[route.weight for route in flights[i].routes] for i in two]
            scores[two] = self._made_one(weights, first, second)
        self._penalise(flights, scores)
        chosen = scores.argmax(1).tolist()
        seconds = (seconds + time.perf_counter() - began) / sum(len(flight.rows) for flight in flights)
        for flight, rows, token in zip(flights, at, chosen, strict=True):
            answer = self.answers[flight.number]
            flight.last = token
            if token not in self.stop:
                answer.tokens.append(token)
            answer.row_steps += len(flight.rows)
            answer.seconds += seconds * len(flight.rows)
            self._settle(flight, logps[rows])

    def _made_one(self, weights: Sequence[Sequence[float]], first: Tensor, second: Tensor) -> Tensor:
        """log p [n, V] of the next token, from the log p [n, V] of two paths."""
        if self.settings.rule is not None:
            return self.settings.rule.choose(first, second)
        heard_at = torch.tensor(weights, device=first.device)
        if self.settings.confidence is not None:
            sure = [CONFIDENCES[self.settings.confidence](logps) for logps in (first, second)]
            heard_at = heard(heard_at, torch.stack(sure, 1))
        return interpolate(first, second, heard_at)

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
        """`adaptive` [ours]: drops the retrieval path once both, `logps` [2, V], agreed for some tokens."""
        adaptive = self.settings.adaptive
        if adaptive is None or len(flight.rows) == 1:
            return
        agreed = jensen_shannon(*logps) < adaptive.threshold
        flight.agreed = flight.agreed + 1 if agreed else 0
        if flight.agreed >= adaptive.patience:
            flight.rows, flight.routes = flight.rows[:1], [flight.routes[0]._replace(weight=1.0)]

    def restart(self, waiting: deque[int]) -> None:
        """Sends all queries in flight back to the others that wait; nothing is in the cache then."""
        for flight in self.flights:
            self.answers[flight.number] = Answer()
        waiting.extendleft(flight.number for flight in reversed(self.flights))
        self.flights, self.cache = [], KeyValueCache()


@dataclass
class _Prompt:
    """A prompt that was read: its place in a block, the next token's logits [V], and of each token of its
    reference log p and how sure the path is there; for a rule also the states [n, D] they come from.
    """

    block: Block
    place: int
    logits: Tensor
    reference: np.ndarray
    confidence: np.ndarray
    hidden: Tensor
    rows: list[int] = field(default_factory=list)  # of the queries that go on from it


def _blocks_of(prompts: Sequence[_Prompt]) -> list[Block]:
    """The blocks of prompts that were read, with one row for every query that goes on from one."""
    found = []
    for block in {id(one.block): one.block for one in prompts}.values():
        pairs = [(one.place, row) for one in prompts if one.block is block for row in one.rows]
        found.append(block.take(*zip(*pairs, strict=True)))
    return found
