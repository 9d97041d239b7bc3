"""The key-value cache of rows being decoded, in blocks of similar length."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 64  # tokens by which a block grows, so that copies stay rare
JOINED = 32  # rows of a block that others still join


class Block(Protocol):
    """Rows that are read on in one call."""

    rows: list[int]  # names of the rows

    @property
    def lengths(self) -> list[int]:
        """Tokens that each holds."""
        ...

    def take(self, places: Sequence[int], rows: Sequence[int]) -> Block:
        """The rows at `places` (one may be taken twice) under new names; empties this block."""
        ...

    def extend(self) -> None:
        """Makes room for one more token of every row."""
        ...

    def joins(self, other: Block) -> bool:
        """Whether the rows of both had better be one block."""
        ...

    def join(self, other: Block) -> Block:
        """The rows of both; empties both."""
        ...


@dataclass
class PackedBlock:
    """Rows of similar length and their keys and values, right-padded to one capacity.

    Tokens carry their rotary position already, so rows need no common alignment.
    """

    rows: list[int]  # names of the rows
    lengths: list[int]  # tokens that each holds
    capacity: int  # tokens that each has room for
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # keys, values [n, K, C, d]

    def __post_init__(self) -> None:
        self._masks: dict[int | None, Tensor] = {}
        self._ends: tuple[Tensor, Tensor] | None = None  # each row and where its last token lies

    def take(self, places: Sequence[int], rows: Sequence[int]) -> PackedBlock:
        """See `Block`."""
        taken = PackedBlock(list(rows), [self.lengths[i] for i in places], self.capacity)
        if list(places) == list(range(len(self.rows))):
            taken.layers, self.layers = self.layers, {}
            return taken
        index = torch.tensor(places, device=self._device())
        for layer in list(self.layers):
            k, v = self.layers.pop(layer)
            taken.layers[layer] = k[index], v[index]
        return taken

    def joins(self, other: Block) -> bool:
        """Whether both fit, and the longest is at most a quarter and `STEP` tokens beyond the shortest."""
        lengths = self.lengths + other.lengths
        return len(lengths) <= JOINED and max(lengths) <= 1.25 * min(lengths) + STEP

    def join(self, other: Block) -> PackedBlock:
        """See `Block`."""
        assert isinstance(other, PackedBlock)
        capacity = max(self.capacity, other.capacity)
        joined = PackedBlock(self.rows + other.rows, self.lengths + other.lengths, capacity)
        for layer in list(self.layers):
            pairs = zip(self.layers.pop(layer), other.layers.pop(layer), strict=True)
            k, v = (torch.cat([_widened(x, capacity) for x in pair]) for pair in pairs)
            joined.layers[layer] = k, v
        return joined

    def extend(self) -> None:
        """Makes room for one more token of every row."""
        self.lengths = [length + 1 for length in self.lengths]
        self._masks, self._ends = {}, None
        if max(self.lengths) > self.capacity:
            self.capacity = _rounded(max(self.lengths))
            for layer, (k, v) in self.layers.items():
                self.layers[layer] = _widened(k, self.capacity), _widened(v, self.capacity)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one token per row, keys and values [K, n, d]; gives all of the layer."""
        k, v = self.layers[layer]
        if self._ends is None:
            last = torch.tensor(self.lengths, device=k.device) - 1
            self._ends = torch.arange(len(last), device=k.device), last
        at, last = self._ends
        k[at, :, last] = keys.transpose(0, 1)
        v[at, :, last] = values.transpose(0, 1)
        return k, v

    def mask(self, window: int | None) -> Tensor:
        """What is added to attention scores, [n, 1, 1, C]: -inf where a row has no token."""
        if window not in self._masks:
            column = torch.arange(self.capacity, device=self._device())
            end = torch.tensor(self.lengths, device=self._device())[:, None]
            seen = column < end
            if window is not None:
                seen &= column >= end - window
            bias = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))
            self._masks[window] = bias[:, None, None]
        return self._masks[window]

    def _device(self) -> torch.device:
        return next(iter(self.layers.values()))[0].device


class KeyValueCache:
    """Keys and values of rows being decoded, in blocks of similar length.

    Rows that leave or join touch their own block alone: the others are not copied.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.read = False  # whether the prompts are in; from then on rows grow token by token

    @property
    def rows(self) -> list[int]:
        """Names of all rows, in the order in which a pack of their next tokens must have them."""
        return [row for block in self.blocks for row in block.rows]

    @property
    def lengths(self) -> list[int]:
        """Tokens that each row holds, in the same order."""
        return [length for block in self.blocks for length in block.lengths]

    def extend(self, tokens: Sequence[int]) -> None:
        """Makes room for new tokens of every row: the whole prompts first, then one each."""
        if not self.read:
            self.blocks = [PackedBlock(list(range(len(tokens))), list(tokens), max(tokens))]
            return
        assert set(tokens) == {1}, "after its prompt a row grows by one token at a time"
        for block in self.blocks:
            block.extend()

    def fill(self, layer: int, keys: Tensor, values: Tensor, spans: Sequence[tuple[int, int]]) -> None:
        """Stores whole prompts: keys and values [K, N, d], row i at tokens `spans[i]`."""
        [block] = self.blocks
        assert isinstance(block, PackedBlock)
        k, v = (x.new_zeros(len(spans), len(x), block.capacity, x.shape[2]) for x in (keys, values))
        for i, (start, stop) in enumerate(spans):
            k[i, :, : stop - start] = keys[:, start:stop]
            v[i, :, : stop - start] = values[:, start:stop]
        block.layers[layer] = k, v

    def put(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """The same of keys and values as they stand in a block, [R, K, T, d]."""
        [block] = self.blocks
        assert isinstance(block, PackedBlock) and keys.shape[2] == block.capacity
        block.layers[layer] = keys, values

    def keep(self, rows: Collection[int]) -> None:
        """Lets all other rows go."""
        kept = []
        for block in self.blocks:
            places = [i for i, row in enumerate(block.rows) if row in rows]
            if places:
                kept.append(block.take(places, [block.rows[i] for i in places]))
        self.blocks = kept

    def admit(self, blocks: Sequence[Block]) -> None:
        """Takes rows in; small blocks of similar length become one, since each costs its own products."""
        self.read = True
        waiting, self.blocks = [*self.blocks, *blocks], []
        for block in sorted(waiting, key=lambda block: max(block.lengths)):
            last = self.blocks[-1] if self.blocks else None
            if last and last.joins(block):
                self.blocks[-1] = last.join(block)
            else:
                self.blocks.append(block)


def _widened(x: Tensor, capacity: int) -> Tensor:
    """[n, K, C, d] with room for `capacity` tokens; the new ones are zero."""
    return F.pad(x, (0, 0, 0, capacity - x.shape[2])) if capacity > x.shape[2] else x


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
