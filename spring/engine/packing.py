"""Rows of different length in one batch without padding, and the key-value cache of rows being decoded.

The tokens of all rows lie behind one another, [1, N], and go through every linear layer as they are;
only attention (spring/engine/attention.py) sees rows. A `Pack` travels with the call as a keyword argument
and says where each row begins and ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 64  # tokens by which a cache grows, so that copies stay rare


@dataclass
class Pack:
    """R rows of new tokens, [1, N], and which adapter slot each row uses (-1: the base model).

    With a cache, the new tokens of row i follow the tokens that `cache` holds for row i.
    """

    input_ids: Tensor  # [1, N]
    position_ids: Tensor  # [1, N], from 0 in every row
    lengths: list[int]  # [R] new tokens per row
    slots: list[int]  # [R]
    cache: KeyValueCache | None = None

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
    def stepping(self) -> bool:
        """Whether every row has one new token behind those the cache holds, as in decoding."""
        return self.cache is not None and self.cache.read

    def spans(self) -> list[tuple[int, int]]:
        """First token and token after the last of every row."""
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

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
) -> Pack:
    """Packs token rows [R][*] that begin at position 0, or one token each behind what `cache` holds."""
    starts = [0] * len(rows)
    if cache is not None:
        starts = list(cache.lengths) if cache.read else starts
        cache.extend([len(row) for row in rows])
    positions = [start + j for start, row in zip(starts, rows, strict=True) for j in range(len(row))]
    tokens = [token for row in rows for token in row]
    return Pack(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        [len(row) for row in rows],
        list(slots),
        cache,
    )


@dataclass
class Block:
    """Neighbouring rows of similar length, and the tokens each has room for."""

    first: int
    stop: int  # row after the last
    capacity: int


class KeyValueCache:
    """Keys and values of R rows, row i of `lengths[i]` tokens, right-padded inside blocks of similar length.

    Tokens carry their rotary position already, so rows need no common alignment. Keys lie transposed, as
    the product with a query reads them.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.blocks: list[Block] = []
        self.layers: dict[int, list[tuple[Tensor, Tensor]]] = {}  # per block: [n, K, d, C] and [n, K, C, d]
        self.read = False  # whether the prompts are in; from then on rows grow token by token
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        """Makes room for new tokens of every row: the whole prompts first, then one each."""
        self._masks = {}
        if not self.read:
            self.lengths = list(tokens)
            self.blocks = [Block(0, len(tokens), max(tokens))]
            return
        assert set(tokens) == {1}, "after its prompt a row grows by one token at a time"
        self.lengths = [length + 1 for length in self.lengths]
        for i, block in enumerate(self.blocks):
            more = _rounded(max(self.lengths[block.first : block.stop])) - block.capacity
            if more > 0:
                block.capacity += more
                for pairs in self.layers.values():
                    k, v = pairs[i]
                    pairs[i] = F.pad(k, (0, more)), F.pad(v, (0, 0, 0, more))

    def fill(self, layer: int, keys: Tensor, values: Tensor, spans: Sequence[tuple[int, int]]) -> None:
        """Stores whole prompts: keys and values [K, N, d], row i at tokens `spans[i]`."""
        heads, _, width = keys.shape
        [block] = self.blocks
        k = keys.new_zeros(len(spans), heads, width, block.capacity)
        v = values.new_zeros(len(spans), heads, block.capacity, values.shape[2])
        for i, (start, stop) in enumerate(spans):
            k[i, :, :, : stop - start] = keys[:, start:stop].transpose(1, 2)
            v[i, :, : stop - start] = values[:, start:stop]
        self.layers[layer] = [(k, v)]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Stores one token per row, keys and values [K, R, d]; gives all of the layer, block by block."""
        last = torch.tensor(self.lengths, device=keys.device) - 1
        for block, (k, v) in zip(self.blocks, self.layers[layer], strict=True):
            rows = slice(block.first, block.stop)
            at = torch.arange(block.stop - block.first, device=k.device)
            k[at, :, :, last[rows]] = keys[:, rows].transpose(0, 1)
            v[at, :, last[rows]] = values[:, rows].transpose(0, 1)
        return self.layers[layer]

    def mask(self, block: Block, window: int | None) -> Tensor:
        """What is added to the scores of a block, [n, 1, 1, capacity]: -inf where a row has no token."""
        key = (block.first, window)
        if key not in self._masks:
            device = next(iter(self.layers.values()))[0][0].device
            column = torch.arange(block.capacity, device=device)
            end = torch.tensor(self.lengths[block.first : block.stop], device=device)[:, None]
            seen = column < end
            if window is not None:
                seen &= column >= end - window
            bias = torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))
            self._masks[key] = bias[:, None, None]
        return self._masks[key]


def gather(sources: Sequence[KeyValueCache], rows: Sequence[tuple[int, int]]) -> KeyValueCache:
    """A cache of chosen rows (source, row), in this order; a row may be taken twice. Empties the sources.

    Rows of similar length should be neighbours: the fewer blocks, the fewer products.
    """
    found = KeyValueCache()
    found.read = True
    found.lengths = [sources[s].lengths[row] for s, row in rows]
    found.blocks = _blocks(found.lengths)
    for layer in next((list(source.layers) for source in sources if source.layers), []):
        pairs = {
            (s, i): (block, pair)
            for s, source in enumerate(sources)
            for i, (block, pair) in enumerate(zip(source.blocks, source.layers.pop(layer, ()), strict=False))
        }
        found.layers[layer] = [_take(target, rows, pairs) for target in found.blocks]
    return found


def _take(
    target: Block,
    rows: Sequence[tuple[int, int]],
    pairs: dict[tuple[int, int], tuple[Block, tuple[Tensor, Tensor]]],
) -> tuple[Tensor, Tensor]:
    """Keys and values of one block from the blocks of the sources."""
    k0, v0 = next(iter(pairs.values()))[1]
    n, heads = target.stop - target.first, k0.shape[1]
    k = k0.new_zeros(n, heads, k0.shape[2], target.capacity)
    v = v0.new_zeros(n, heads, target.capacity, v0.shape[3])
    for (source, _), (block, (old_k, old_v)) in pairs.items():
        wanted = [
            (i, row - block.first)
            for i, (s, row) in enumerate(rows[target.first : target.stop])
            if s == source and block.first <= row < block.stop
        ]
        if wanted:
            at, index = torch.tensor(wanted, device=k.device).T
            used = min(block.capacity, target.capacity)
            k[at, :, :, :used] = old_k[index, :, :, :used]
            v[at, :, :used] = old_v[index, :, :used]
    return k, v


def _blocks(lengths: Sequence[int]) -> list[Block]:
    """Cuts rows where the longest would have more than a quarter and 64 tokens beyond the shortest."""
    found: list[Block] = []
    first = 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or max(lengths[first : i + 1]) > 1.25 * min(lengths[first : i + 1]) + STEP:
            found.append(Block(first, i, _rounded(max(lengths[first:i]))))
            first = i
    return found


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
