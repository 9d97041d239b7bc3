"""The low-rank updates of a whole batch in two products: for GPUs, which would wait for a kernel a run.

Tokens are sorted by slot into a padded [S, m]. What dropout keeps is not drawn from one generator a row but
counted out: SplitMix64 (Steele, Lea and Flood, 2014) of the row's seed, the layer, the token and its numbers,
so that a row's mask depends on nobody else in the batch here either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spring.engine.passes import least

GOLDEN, FIRST, SECOND = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class Spread:
    """Where the n tokens of a pack that have an adapter stand among those of its slots."""

    slots: list[int]  # that the rows have, S of them
    most: int  # m: tokens of the slot that has most
    tokens: Tensor  # [n] which of the pack they are
    places: Tensor  # [n] where they stand in [S * m]
    seeds: Tensor | None  # [n] of the dropout of their rows; null: there is none
    at: Tensor  # [n] which token of their rows they are


def spread_out(
    lengths: Sequence[int], slots: Sequence[int], seeds: Sequence[int] | None, device: torch.device
) -> Spread:
    """The tokens of rows with these lengths, slots (-1: none) and seeds."""
    own = [slot for slot in dict.fromkeys(slots) if slot >= 0]
    taken = dict.fromkeys(own, 0)
    tokens, places, of_row, at = [], [], [], []
    start = 0
    for length, slot, seed in zip(lengths, slots, seeds or [0] * len(lengths), strict=True):
        if slot >= 0:
            tokens.append(torch.arange(start, start + length))
            places.append(torch.arange(taken[slot], taken[slot] + length))
            of_row.append(torch.full((length,), seed))
            at.append(torch.arange(length))
            taken[slot] += length
        start += length
    most = max(taken.values())
    row_of = {slot: i for i, slot in enumerate(own)}
    offsets = [row_of[slot] * most for slot in slots if slot >= 0]
    where = [place + offset for place, offset in zip(places, offsets, strict=True)]
    found = [torch.cat(parts).to(device) for parts in (tokens, where, of_row, at)]
    return Spread(own, most, found[0], found[1], None if seeds is None else found[2], found[3])


def update(
    x: Tensor, y: Tensor, spread: Spread, a: Tensor, b: Tensor, *, number: int, p: float, scaling: float
) -> Tensor:
    """y + B(A(dropout(x))) * scaling: x [N, D], y [N, D'], A [S, r, D], B [S, D', r], layer `number`.

    In float32, rounded once.
    """
    inputs = x[spread.tokens].float()
    if spread.seeds is not None:
        kept = keep(spread.seeds + number, spread.at, x.shape[1], p)
        inputs = inputs * kept / (1 - p)
    padded = inputs.new_zeros(len(spread.slots) * spread.most, x.shape[1])
    padded = padded.index_copy(0, spread.places, inputs).view(len(spread.slots), spread.most, -1)
    found = torch.bmm(torch.bmm(padded, a.transpose(1, 2)), b.transpose(1, 2))
    found = found.view(-1, y.shape[1])[spread.places] * scaling
    return y.float().index_add(0, spread.tokens, found).to(y.dtype)


def keep(seeds: Tensor, at: Tensor, width: int, p: float) -> Tensor:
    """What dropout p keeps of the tokens `at` of rows with these `seeds` [n]: [n, width] of truth values."""
    words = -(-width // 4)  # of 64 bits, a number's 16
    count = at[:, None] * words + torch.arange(words, device=at.device)
    bits = mix(mix(seeds)[:, None] + count * GOLDEN).view(torch.int16)[:, :width]
    return bits >= least(p)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's last step: 64 well mixed bits of each number."""
    z = (z ^ _shift(z, 30)) * FIRST
    z = (z ^ _shift(z, 27)) * SECOND
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """To the right, as of a number without a sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)
