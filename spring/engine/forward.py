"""Running a model on the rows of a pack, by its road."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from spring.engine.attention import ATTENTION, packed_states
from spring.engine.cache import Block, PackedBlock
from spring.engine.lora import AdapterBank
from spring.engine.packing import Pack, pack_rows
from spring.engine.padded import CachedBlock, TokenBlock, padded_states, prefill
from spring.engine.roads import Road, forget, road_of

_turn = Lock()  # of models that keep something from call to call


def hidden_states(
    model: Any,
    pack: Pack,
    bank: AdapterBank | None = None,
    *,
    seeds: Sequence[int] | None = None,
    road: Road | None = None,
) -> Tensor:
    """Last hidden states [N, D] of a pack's rows, each under its adapter; with `seeds` [R], dropout too.

    road: another than the model's own.
    """
    road = road or road_of(model)
    use_attention(model, packed=not road.padded)
    if road.padded and pack.stepping:
        return _step(model, pack, bank, road)
    parts = road.split(pack.lengths)
    if len(parts) == 1:
        return _read(model, pack, bank, seeds, road)
    found: dict[int, Tensor] = {}
    for part in parts:
        some = pack.part(part)
        hidden = _read(model, some, bank, seeds and [seeds[i] for i in part], road)
        found.update(zip(part, hidden.split(some.lengths), strict=True))
    return torch.cat([found[i] for i in range(len(pack.lengths))])


def _read(
    model: Any, pack: Pack, bank: AdapterBank | None, seeds: Sequence[int] | None, road: Road
) -> Tensor:
    """Rows that may share a call."""
    with _afresh(model, road):
        return (padded_states if road.padded else packed_states)(model, pack, bank, seeds)


@contextmanager
def _afresh(model: Any, road: Road) -> Iterator[None]:
    """Inside the block nobody else calls a model whose frequencies change, and none of before are left."""
    if road.rope is None:
        yield
        return
    with _turn:
        forget(model)
        yield


def _step(model: Any, pack: Pack, bank: AdapterBank | None, road: Road) -> Tensor:
    """One more token of every row, block by block."""
    assert pack.cache is not None
    found, start = [], 0
    for block in pack.cache.blocks:
        assert not isinstance(block, PackedBlock)
        rows = range(start, start := start + len(block.rows))
        if isinstance(block, CachedBlock):
            with _afresh(model, road):
                found.append(block.step(model, _stepping(pack, rows), bank))
            continue
        assert isinstance(block, TokenBlock)
        block.add(pack.input_ids[0, rows.start : rows.stop].tolist())
        found.append(_again(model, block, _stepping(pack, rows), bank, road))
    return torch.cat(found)


@torch.inference_mode()
def prefill_groups(
    model: Any, pack: Pack, bank: AdapterBank | None, road: Road, most: int
) -> tuple[list[tuple[Block, int]], Tensor]:
    """Prompts as blocks that up to `most` tokens follow: of each its block and place, and the last states.

    Those that no cache can carry on are kept as tokens. States are [R, D], of the prompts' last tokens.
    """
    use_attention(model, packed=False)
    spans, tokens = pack.spans(), pack.input_ids[0].tolist()
    goes_on = [road.goes_on(length, most) for length in pack.lengths]
    cached, again = ([i for i, on in enumerate(goes_on) if on is kind] for kind in (True, False))
    found: dict[int, tuple[tuple[Block, int], Tensor]] = {}

    def keep(rows: Sequence[int], block: Block, states: Tensor) -> None:
        found.update((i, ((block, place), states[place])) for place, i in enumerate(rows))

    if again:
        some = pack.part(again)
        states = hidden_states(model, some, bank, road=road)[some.ends()]
        keep(again, TokenBlock(list(range(len(again))), [tokens[slice(*spans[i])] for i in again]), states)
    for group in road.split_prompts([pack.lengths[i] for i in cached]) if cached else ():
        rows = [cached[i] for i in group]
        with _afresh(model, road):
            keep(rows, *prefill(model, pack.part(rows), bank, road.steps))
    places, last = zip(*(found[i] for i in range(len(spans))), strict=True)
    return list(places), torch.stack(last)


def _stepping(pack: Pack, rows: range) -> Pack:
    """Single tokens of some rows."""
    some = slice(rows.start, rows.stop)
    return replace(
        pack,
        input_ids=pack.input_ids[:, some],
        position_ids=pack.position_ids[:, some],
        lengths=pack.lengths[some],
        slots=pack.slots[some],
        prompts=pack.prompts and pack.prompts[some],
        users=pack.users and pack.users[some],
        steers=pack.steers and pack.steers[some],
    )


def _again(model: Any, block: TokenBlock, pack: Pack, bank: AdapterBank | None, road: Road) -> Tensor:
    """States [R, D] of the last tokens of rows that are read from their beginning."""
    whole = pack_rows(
        block.tokens,
        pack.slots,
        device=pack.input_ids.device,
        prompts=pack.prompts,
        users=pack.users,
        steers=pack.steers,
    )
    hidden = hidden_states(model, whole, bank, road=road)
    return hidden[whole.ends()]


def use_attention(model: Any, *, packed: bool) -> None:
    """Puts attention inside packed rows in place, or the model's own back."""
    now = model.config._attn_implementation
    if packed and now != ATTENTION:
        if not model._can_set_attn_implementation():
            raise NotImplementedError("its attention cannot be exchanged")
        model.spring_attention = now
        model.set_attn_implementation(ATTENTION)
    elif not packed and now == ATTENTION:
        model.set_attn_implementation(model.spring_attention)
