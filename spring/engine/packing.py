"""Rows of different length in one batch.

On the packed road the tokens of all rows lie behind one another, [1, N], and go through every linear layer as
they are; only attention (spring/engine/attention.py) sees rows. On the padded road (spring/engine/padded.py)
the same rows are laid out as [R, T]. The `Pack` in hand says where each row begins and ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spring.engine.cache import KeyValueCache

WHOLE = 32  # see `whole`


@dataclass
class Pack:
    """R rows of new tokens, [1, N], and which adapter slot each row uses (-1: the base model).

    With a cache, the new tokens of row i follow the tokens that `cache` holds for row i. Without one, row i
    may follow another row of the pack, `before[i]` (-1: none), and sees it as its own beginning. `steers`
    numbers the vectors that a row is steered by (spring/engine/steering.py; -1: none).

    `prompts` and `users` say of each row which prompt it belongs to and, in a lesson of many, who wrote it;
    only banks that route by them read them.
    """

    input_ids: Tensor  # [1, N], and on the processor a tail of no row up to a multiple of `WHOLE`
    position_ids: Tensor  # the same, from 0 in every row
    lengths: list[int]  # [R] new tokens per row
    slots: list[int]  # [R]
    cache: KeyValueCache | None = None
    before: list[int] | None = None  # [R]
    prompts: Sequence[Sequence[int]] | None = None  # [R][*]
    users: Sequence[int] | None = None  # [R]
    steers: list[int] | None = None  # [R]
    real: Tensor | None = None  # [n] which tokens are of the rows, where padding lies among them

    def __post_init__(self) -> None:
        device = self.input_ids.device
        self.longest = max(self.lengths)
        self.ragged = min(self.lengths) != self.longest
        self.row = torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))
        self.row = self.row.to(device)  # [N] row of each token
        if self.ragged:  # where each token lies in the padded view [R * longest]
            starts = torch.tensor([0, *self.lengths[:-1]], device=device).cumsum(0)
            column = torch.arange(len(self.row), device=device) - starts[self.row]
            self.index = self.row * self.longest + column

    @property
    def tail(self) -> int:
        """Tokens at the end that belong to no row; what is computed of them is never read."""
        return self.input_ids.shape[1] - len(self.row)

    @property
    def laid(self) -> int:
        """Tokens that linear layers are given."""
        return self.input_ids.numel()

    @property
    def stepping(self) -> bool:
        """Whether every row has one new token behind those the cache holds, as in decoding."""
        return self.cache is not None and self.cache.read

    def spans(self) -> list[tuple[int, int]]:
        """First token and token after the last of every row."""
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def ends(self) -> list[int]:
        """Last token of every row."""
        return [stop - 1 for _, stop in self.spans()]

    def beginnings(self) -> list[tuple[int, int]]:
        """First token and token after the last of what each row follows; equal where that is nothing."""
        spans = self.spans()
        return [spans[i] if i >= 0 else (0, 0) for i in self.before or [-1] * len(spans)]

    def part(self, rows: Sequence[int]) -> Pack:
        """Some of the rows as a pack of their own, without a cache; no row may follow another."""
        assert self.before is None, "rows that follow one another are read together"
        tokens, spans = self.input_ids[0].tolist(), self.spans()
        return pack_rows(
            [tokens[slice(*spans[i])] for i in rows],
            [self.slots[i] for i in rows],
            device=self.input_ids.device,
            prompts=_some(self.prompts, rows),
            users=_some(self.users, rows),
            steers=_some(self.steers, rows),
        )

    def pad(self, x: Tensor) -> Tensor:
        """[1, heads, N, d] -> [R, heads, T, d], zeros after the end of each row."""
        heads, width = x.shape[1], x.shape[3]
        flat = x[0].transpose(0, 1)  # [N, heads, d]
        if self.ragged:
            padded = flat.new_zeros(len(self.lengths) * self.longest, heads, width)
            flat = padded.index_copy(0, self.index, flat)
        return flat.reshape(len(self.lengths), self.longest, heads, width).transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        """[R, heads, T, d] -> [1, N, heads, d], the layout transformers expects back."""
        flat = x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])
        return (flat[self.index] if self.ragged else flat)[None]


def pack_rows(
    rows: Sequence[Sequence[int]],
    slots: Sequence[int],
    *,
    device: torch.device,
    cache: KeyValueCache | None = None,
    before: list[int] | None = None,
    prompts: Sequence[Sequence[int]] | None = None,
    users: Sequence[int] | None = None,
    steers: list[int] | None = None,
) -> Pack:
    """Packs token rows [R][*] that begin at position 0, behind another row, or behind what `cache` holds."""
    starts = [len(rows[i]) if i >= 0 else 0 for i in before or [-1] * len(rows)]
    if cache is not None:
        starts = cache.lengths if cache.read else starts
        cache.extend([len(row) for row in rows])
    positions = [start + j for start, row in zip(starts, rows, strict=True) for j in range(len(row))]
    tokens = [token for row in rows for token in row]
    if device.type == "cpu" and not (cache is not None and cache.read):
        tail = whole(len(tokens)) - len(tokens)
        tokens, positions = tokens + [0] * tail, positions + [0] * tail
    return Pack(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        [len(row) for row in rows],
        list(slots),
        cache,
        before,
        prompts,
        users,
        steers,
    )


def _some(of_rows: Sequence[Any] | None, rows: Sequence[int]) -> Any:
    return None if of_rows is None else [of_rows[i] for i in rows]


_here = threading.local()  # batches may run side by side


@contextmanager
def in_hand(pack: Pack) -> Iterator[None]:
    """Inside the block, in this thread, the model reads this pack."""
    before = pack_in_hand()
    _here.pack = pack
    try:
        yield
    finally:
        _here.pack = before


def pack_in_hand() -> Pack | None:
    """What the model reads in this thread, as it is laid out before linear layers."""
    return getattr(_here, "pack", None)


def whole(count: int) -> int:
    """`count` rounded up, for the sizes of products on the processor.

    oneDNN compiles kernels for every size of a bfloat16 product that it meets and keeps them, megabytes for
    each: with every length that texts may have, memory would grow for as long as new ones come.
    """
    return -(-count // WHOLE) * WHOLE


def filled(x: Tensor) -> Tensor:
    """[..., T, D] with zeros up to a `whole` T."""
    return F.pad(x, (0, 0, 0, whole(x.shape[-2]) - x.shape[-2]))
