"""Rows of different length in one batch without padding, and the key-value cache of rows being decoded.

The tokens of all rows lie behind one another, [1, N], and go through every linear layer as they are;
only attention (spring/engine/attention.py) sees rows. A `Pack` travels with the call as a keyword argument
and says where each row begins and ends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 64  # tokens by which a block grows, so that copies stay rare
WHOLE = 32  # see `whole`
JOINED = 32  # rows of a block that others still join


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
    def stepping(self) -> bool:
        """Whether every row has one new token behind those the cache holds, as in decoding."""
        return self.cache is not None and self.cache.read

    def spans(self) -> list[tuple[int, int]]:
        """First token and token after the last of every row."""
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def beginnings(self) -> list[tuple[int, int]]:
        """First token and token after the last of what each row follows; equal where that is nothing."""
        spans = self.spans()
        return [spans[i] if i >= 0 else (0, 0) for i in self.before or [-1] * len(spans)]

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


def whole(count: int) -> int:
    """`count` rounded up, for the sizes of products on the processor.

    oneDNN compiles kernels for every size of a bfloat16 product that it meets and keeps them, megabytes for
    each: with every length that texts may have, memory would grow for as long as new ones come.
    """
    return -(-count // WHOLE) * WHOLE


def filled(x: Tensor) -> Tensor:
    """[..., T, D] with zeros up to a `whole` T."""
    return F.pad(x, (0, 0, 0, whole(x.shape[-2]) - x.shape[-2]))


@dataclass
class Block:
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

    def take(self, places: Sequence[int], rows: Sequence[int]) -> Block:
        """The rows at `places` (one may be taken twice) under new names; empties this block."""
        taken = Block(list(rows), [self.lengths[i] for i in places], self.capacity)
        if list(places) == list(range(len(self.rows))):
            taken.layers, self.layers = self.layers, {}
            return taken
        index = torch.tensor(places, device=self._device())
        for layer in list(self.layers):
            k, v = self.layers.pop(layer)
            taken.layers[layer] = k[index], v[index]
        return taken

    def join(self, other: Block) -> Block:
        """The rows of both; empties both."""
        capacity = max(self.capacity, other.capacity)
        joined = Block(self.rows + other.rows, self.lengths + other.lengths, capacity)
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
            self.blocks = [Block(list(range(len(tokens))), list(tokens), max(tokens))]
            return
        assert set(tokens) == {1}, "after its prompt a row grows by one token at a time"
        for block in self.blocks:
            block.extend()

    def fill(self, layer: int, keys: Tensor, values: Tensor, spans: Sequence[tuple[int, int]]) -> None:
        """Stores whole prompts: keys and values [K, N, d], row i at tokens `spans[i]`."""
        [block] = self.blocks
        k, v = (x.new_zeros(len(spans), len(x), block.capacity, x.shape[2]) for x in (keys, values))
        for i, (start, stop) in enumerate(spans):
            k[i, :, : stop - start] = keys[:, start:stop]
            v[i, :, : stop - start] = values[:, start:stop]
        block.layers[layer] = k, v

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
            if last and len(last.rows) + len(block.rows) <= JOINED and _similar(last, block):
                self.blocks[-1] = last.join(block)
            else:
                self.blocks.append(block)


def _similar(one: Block, other: Block) -> bool:
    """Whether the longest row has at most a quarter and 64 tokens beyond the shortest."""
    lengths = one.lengths + other.lengths
    return max(lengths) <= 1.25 * min(lengths) + STEP


def _widened(x: Tensor, capacity: int) -> Tensor:
    """[n, K, C, d] with room for `capacity` tokens; the new ones are zero."""
    return F.pad(x, (0, 0, 0, capacity - x.shape[2])) if capacity > x.shape[2] else x


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
