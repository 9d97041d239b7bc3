"""The padded road: rows as [R, T] through a model's own attention and its own cache.

For models whose layers mix tokens otherwise than attention.py does: recurrent states, convolutions, sinks,
windows that are in the mask alone. A text is right-padded to be scored and learned, left-padded to be
answered. Linear layers see R x T tokens, padding included, in the order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spring.engine.cache import Block
from spring.engine.layers import decoded
from spring.engine.lora import AdapterBank, reading
from spring.engine.packing import Pack
from spring.engine.roads import Steps

CACHES = ("past_key_values", "cache_params")  # names that models have for their cache


@dataclass(frozen=True)
class Batch:
    """Rows laid out as [R, T]; `pack` is how linear layers see them."""

    pack: Pack
    input_ids: Tensor
    mask: Tensor  # 1 where there is a token


def lay_out(pack: Pack, *, left: bool = False) -> Batch:
    """The rows of a pack without a cache, padded on one side."""
    count, longest, device = len(pack.lengths), max(pack.lengths), pack.input_ids.device
    column = torch.arange(longest, device=device)
    lengths = torch.tensor(pack.lengths, device=device)[:, None]
    mask = column >= longest - lengths if left else column < lengths
    ids = torch.zeros(count, longest, dtype=torch.long, device=device)
    ids[mask] = pack.input_ids[0, : sum(pack.lengths)]
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    laid = replace(
        pack,
        input_ids=ids.view(1, -1),
        position_ids=positions.view(1, -1),
        lengths=[longest] * count,
        before=None,
        real=mask.view(-1).nonzero()[:, 0],
    )
    return Batch(laid, ids, mask.long())


def read(
    model: Any,
    batch: Batch,
    bank: AdapterBank | None,
    *,
    seeds: Sequence[int] | None = None,
    use_cache: bool = False,
) -> Any:
    """What the decoder gives for a batch under the rows' adapters; `seeds` [R] of dropout."""
    with reading(batch.pack, bank, seeds):
        return decoded(
            model,
            input_ids=batch.input_ids,
            attention_mask=batch.mask,
            position_ids=batch.pack.position_ids.view(batch.input_ids.shape),
            use_cache=use_cache,
        )


def padded_states(model: Any, pack: Pack, bank: AdapterBank | None, seeds: Sequence[int] | None) -> Tensor:
    """Last hidden states [N, D] of a pack's rows."""
    batch = lay_out(pack)
    hidden = read(model, batch, bank, seeds=seeds).last_hidden_state
    return hidden.reshape(-1, hidden.shape[-1])[batch.pack.real]


def prefill(model: Any, pack: Pack, bank: AdapterBank | None, steps: Steps) -> tuple[CachedBlock, Tensor]:
    """Reads prompts into the model's own cache; with the states [R, D] of their last tokens."""
    batch = lay_out(pack, left=True)
    out = read(model, batch, bank, use_cache=True)
    name = next((name for name in CACHES if out.get(name) is not None), None)
    if name is None:
        raise NotImplementedError("it gives no cache")
    names, lengths = list(range(len(pack.lengths))), list(pack.lengths)
    block = CachedBlock(names, lengths, batch.mask, name, out[name], steps)
    return block, out.last_hidden_state[:, -1]


@dataclass
class CachedBlock:
    """Left-padded rows and the model's own cache of them."""

    rows: list[int]
    lengths: list[int]
    mask: Tensor  # [R, T]
    name: str  # of the cache among the decoder's arguments
    cache: Any
    steps: Steps

    def take(self, places: Sequence[int], rows: Sequence[int]) -> CachedBlock:
        """See `Block`."""
        index = torch.tensor(places, device=self.mask.device)
        if list(places) != list(range(len(self.rows))):
            if self.steps == "select":
                self.cache.batch_select_indices(index)
            else:
                self.cache.reorder_cache(index)
        lengths = [self.lengths[i] for i in places]
        return CachedBlock(list(rows), lengths, self.mask[index], self.name, self.cache, self.steps)

    def extend(self) -> None:
        """See `Block`."""
        self.lengths = [length + 1 for length in self.lengths]
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)

    def joins(self, other: Block) -> bool:
        """Never: what models keep of their rows cannot be put together from outside."""
        return False

    def join(self, other: Block) -> Block:
        """See `joins`."""
        raise NotImplementedError

    def step(self, model: Any, pack: Pack, bank: AdapterBank | None) -> Tensor:
        """Last hidden states [R, D] of one more token of every row, which `pack` holds."""
        at = torch.tensor(self.lengths, device=self.mask.device)[:, None] - 1
        mask = {} if self.steps == "unmasked" else {"attention_mask": self.mask}
        with reading(pack, bank):
            ids = pack.input_ids.view(-1, 1)
            out = decoded(
                model, input_ids=ids, position_ids=at, use_cache=True, **{self.name: self.cache}, **mask
            )
        self.cache = out[self.name]
        hidden: Tensor = out.last_hidden_state[:, -1]
        return hidden


@dataclass
class TokenBlock:
    """Rows without a cache: all their tokens, which are read again for every new one."""

    rows: list[int]
    tokens: list[list[int]]

    @property
    def lengths(self) -> list[int]:
        """Tokens that each holds."""
        return [len(row) for row in self.tokens]

    def take(self, places: Sequence[int], rows: Sequence[int]) -> TokenBlock:
        """See `Block`."""
        return TokenBlock(list(rows), [list(self.tokens[i]) for i in places])

    def extend(self) -> None:
        """See `Block`; `add` does it."""

    def joins(self, other: Block) -> bool:
        """Any other without a cache."""
        return isinstance(other, TokenBlock)

    def join(self, other: Block) -> TokenBlock:
        """See `Block`."""
        assert isinstance(other, TokenBlock)
        return TokenBlock(self.rows + other.rows, self.tokens + other.tokens)

    def add(self, tokens: Sequence[int]) -> None:
        """One token to every row."""
        for row, token in zip(self.tokens, tokens, strict=True):
            row.append(token)
