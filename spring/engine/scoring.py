"""Log-likelihoods of responses, for many rows and adapters in one pass.

Logits exist only at response positions and only for a chunk at a time: no tensor of the vocabulary's
width over prompt tokens is ever made. The beginning that the prompts of a task have in common is read once
for all rows of a slot in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, takewhile
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spring.engine.budget import halved
from spring.engine.forward import hidden_states
from spring.engine.lora import AdapterBank
from spring.engine.packing import Pack, pack_rows
from spring.engine.parallel import each
from spring.engine.passes import target_logps
from spring.engine.roads import head, road_of
from spring.engine.texts import Text

CHUNK = 256  # response positions whose logits exist at the same time
SHARED = 8  # tokens at least of a beginning that is read once for several rows

Progress = Callable[[int], object]  # told how many tokens were done
T = TypeVar("T")


def token_batches(
    sizes: Sequence[int], budget: int, *, padded: bool = False, rows: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Consecutive indices whose sizes add up to at most `budget`; an oversized one stands alone.

    padded: each counts as much as the largest of its batch. rows: how many of that size each stands for.
    """
    batch: list[int] = []
    total = largest = count = 0
    for index, (size, more) in enumerate(zip(sizes, rows or [1] * len(sizes), strict=True)):
        grown = max(largest, size) * (count + more) if padded else total + size * more
        if batch and grown > budget:
            yield batch
            batch, largest, count, grown = [], 0, 0, size * more
        batch.append(index)
        total, largest, count = grown, max(largest, size), count + more
    if batch:
        yield batch


def token_logps(
    model: Any,
    bank: AdapterBank | None,
    texts: Sequence[Text],
    *,
    budget: int,
) -> list[np.ndarray]:
    """log p of every response token of every text (nats, float32), in the order given."""
    return in_batches(model, texts, partial(_score_batch, model, bank), budget=budget)


def in_batches(
    model: Any, rows: Sequence[Text], read: Callable[[list[Text]], list[T]], *, budget: int
) -> list[T]:
    """What `read` gives for every row, in the order given.

    Rows of one slot and of similar length share a batch of at most `budget` tokens.
    """
    padded = road_of(model).padded
    order = sorted(range(len(rows)), key=lambda i: (0 if padded else rows[i].slot, -len(rows[i])))
    found: dict[int, T] = {}

    def take(batch: list[int]) -> None:
        results = halved(lambda some: read([rows[order[i]] for i in some]), batch)
        found.update(zip((order[i] for i in batch), results, strict=True))

    batches = token_batches([len(rows[i]) for i in order], budget, padded=padded)
    each(take, batches, model.device, one=padded)
    assert len(found) == len(rows), "a row was lost while sorting by length"
    return [found[i] for i in range(len(rows))]


@torch.inference_mode()
def _score_batch(model: Any, bank: AdapterBank | None, rows: Sequence[Text]) -> list[np.ndarray]:
    device = next(model.parameters()).device
    share = road_of(model).plain and not (bank is not None and bank.by_prompt)
    pack, ends = _pack(rows, device, share=share)
    hidden = hidden_states(model, pack, bank)
    at = [end + i for end, row in zip(ends, rows, strict=True) for i in range(len(row.response))]
    hidden = hidden[torch.tensor(at, device=device)]
    targets = torch.tensor([token for row in rows for token in row.response], device=device)
    logits = head(model)
    logps = torch.cat(
        [target_logps(logits(h), t) for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)]
    )
    return [x.numpy() for x in logps.cpu().split([len(row.response) for row in rows])]


def _pack(rows: Sequence[Text], device: torch.device, *, share: bool) -> tuple[Pack, list[int]]:
    """The rows, with `share` common beginnings once, and where each row's prompt ends.

    A row's last token is left out: it predicts nothing that is scored.
    """
    shared = shared_beginnings(rows) if share and device.type == "cpu" else [0] * len(rows)
    tokens: list[tuple[int, ...]] = []
    slots, steers, before, ends = [], [], [], []
    taken = beginning = 0
    for i, (row, length) in enumerate(zip(rows, shared, strict=True)):
        if length and (i == 0 or row.reader != rows[i - 1].reader):
            beginning = len(tokens)
            tokens.append(row.prompt[:length])
            slots.append(row.slot)
            steers.append(row.steer)
            before.append(-1)
            taken += length
        tokens.append((row.prompt + row.response)[length:-1])
        slots.append(row.slot)
        steers.append(row.steer)
        before.append(beginning if length else -1)
        ends.append(taken + len(row.prompt) - length - 1)
        taken += len(tokens[-1])
    if any(shared):
        return pack_rows(tokens, slots, device=device, before=before, steers=steers), ends
    prompts = [row.prompt for row in rows]
    return pack_rows(tokens, slots, device=device, prompts=prompts, steers=steers), ends


def shared_beginnings(rows: Sequence[Text]) -> list[int]:
    """Per row, how many first tokens all neighbouring rows of its reader have in common: they are read once.

    The last token of a prompt is never among them. Short ones are not worth a row of their own: 0.
    """
    found: list[int] = []
    for _, group in groupby(rows, key=lambda row: row.reader):
        prompts = [row.prompt[:-1] for row in group]
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
        length = sum(1 for _ in alike)
        found += [length if len(prompts) > 1 and length >= SHARED else 0] * len(prompts)
    return found


def response_positions(rows: Iterable[Text]) -> Tensor:
    """Where in the pack of `rows` (each without its last token) the response tokens are predicted."""
    positions: list[int] = []
    start = 0
    for row in rows:
        first = start + len(row.prompt) - 1
        positions.extend(range(first, first + len(row.response)))
        start += len(row) - 1
    return torch.tensor(positions)
