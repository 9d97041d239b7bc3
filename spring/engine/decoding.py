"""Greedy decoding of queries with one or two paths, all in flight at once.

A query is a row for every path: with a prompt alone, or with a prompt with and one without context (or
adapter). A `Join` makes one next-token distribution of two (spring/method/mixing.py is SPRInG's); the chosen
token goes on both paths. Every arm goes through this loop, whatever its paths. The repetition penalty enters
once, on the log-probabilities of what came out, for generated tokens only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from spring.engine.budget import Room, out_of_memory, too_large, warn_of_memory
from spring.engine.cache import KeyValueCache
from spring.engine.lora import AdapterBank
from spring.engine.packing import pack_rows
from spring.engine.queries import Answer, Query, Read, Route
from spring.engine.reading import Reader, blocks_of
from spring.engine.scoring import Progress
from spring.engine.settings import Decoding


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
    settings: Decoding,
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
            if not out_of_memory(error):
                raise
            if room.tokens == 0:
                raise too_large("one query by itself", error) from error
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
        settings: Decoding,
        stop: frozenset[int],
        budget: int,
    ) -> None:
        self.queries, self.settings, self.stop = queries, settings, stop
        self.routes = [settings.join.routes(query) for query in queries]
        longest = max((self._longest(number) for number in range(len(queries))), default=0)
        self.reader = Reader(model, bank, settings, budget, longest=longest)
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
            for number in chosen:  # what they had been given until then
                self.answers[number] = Answer()
            waiting.extendleft(reversed(chosen))
            raise

    def _behind(self, number: int) -> int:
        """Tokens that may come behind the prompts of a query."""
        return max(self.settings.max_new_tokens, len(self.queries[number].reference))

    def _longest(self, number: int) -> int:
        """Tokens of the longest prompt of a query and what may come behind it."""
        return max(len(route.prompt) for route in self.routes[number]) + self._behind(number)

    def _tokens(self, number: int, room: Room) -> int:
        """Tokens of the cache that a query may come to need."""
        behind = self._behind(number)
        return sum(len(route.prompt) + behind + room.per_row for route in self.routes[number])

    def _reads(self, number: int) -> list[Read]:
        query = self.queries[number]
        return [((route.slot, query.steer), route.prompt, query.reference) for route in self.routes[number]]

    def _read(self, chosen: Sequence[int]) -> None:
        """Reads what the queries need, each prompt of a slot once, in batches of similar length."""
        began = time.perf_counter()
        reads = list(dict.fromkeys(read for number in chosen for read in self._reads(number)))
        reads.sort(key=lambda read: len(read[1]) + len(read[2]))
        prompts = dict(zip(reads, self.reader.read(reads), strict=True))
        fresh: list[_Flight] = []
        logits: dict[int, Tensor] = {}  # by row
        for number in chosen:
            own = [prompts[read] for read in self._reads(number)]
            weights = [route.weight for route in self.routes[number]]
            self.answers[number].reference = self.reader.reference(
                own, weights, self.queries[number].reference
            )
            rows = [next(self._names) for _ in own]
            for row, one in zip(rows, own, strict=True):
                one.rows.append(row)
                logits[row] = one.logits
            fresh.append(_Flight(number, rows, self.routes[number]))
        self.cache.admit(blocks_of(list(prompts.values())))
        places = {row: i for i, row in enumerate(logits)}
        first = torch.stack(list(logits.values()))
        self._share_out(chosen, time.perf_counter() - began)
        self._choose(fresh, places, first, 0.0)
        self.flights += fresh

    def _share_out(self, chosen: Sequence[int], seconds: float) -> None:
        """Divides the time that reading took by the tokens that each query had read for it."""
        prompts = [sum(len(route.prompt) for route in self.routes[number]) for number in chosen]
        references = [len(self.queries[n].reference) * len(self.routes[n]) for n in chosen]
        pace = seconds / (sum(prompts) + sum(references))
        for number, prompt, reference in zip(chosen, prompts, references, strict=True):
            self.answers[number].seconds += pace * prompt
            self.answers[number].reference_seconds = pace * reference

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
            device=self.reader.device,
            cache=self.cache,
            prompts=[route.prompt for _, route, _ in owned],
            steers=[steer for _, _, steer in owned],
        )
        return self.reader.layer(self.reader.hidden(pack)).float()

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
            weights = torch.tensor(
                [[route.weight for route in flights[i].routes] for i in two], device=logps.device
            )
            scores[two] = self.settings.join.choose(first, second, weights)
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
            self._settle(flight, logps, rows)

    def _penalise(self, flights: Sequence[_Flight], scores: Tensor) -> None:
        """log p -> penalty * log p for tokens already generated (log p <= 0: they become less likely)."""
        penalty = self.settings.repetition_penalty
        if penalty == 1:
            return
        pairs = [(i, t) for i, f in enumerate(flights) for t in set(self.answers[f.number].tokens)]
        if pairs:
            row, column = torch.tensor(pairs, device=scores.device).T
            scores[row, column] *= penalty

    def _settle(self, flight: _Flight, logps: Tensor, rows: Sequence[int]) -> None:
        """Drops the second path once both agreed for long enough; `rows` of `logps` [R, V]."""
        join = self.settings.join
        if join.patience is None or len(flight.rows) == 1:
            return
        flight.agreed = flight.agreed + 1 if join.agree(*logps[rows]) else 0
        if flight.agreed >= join.patience:
            flight.rows, flight.routes = flight.rows[:1], [flight.routes[0]._replace(weight=1.0)]

    def restart(self, waiting: deque[int]) -> None:
        """Sends all queries in flight back to the others that wait; nothing is in the cache then."""
        for flight in self.flights:
            self.answers[flight.number] = Answer()
        waiting.extendleft(flight.number for flight in reversed(self.flights))
        self.flights, self.cache = [], KeyValueCache()
