"""Trying a road: does a model read rows together as it reads each alone?

Rows of unequal length, some beyond windows and limits of rotary frequencies, under several adapters; steps
through the cache, rows that leave and change places; the gradient of a loss. The other side is the plain
model, one row at a time and without a cache, an adapter's update added to its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from spring.engine.budget import out_of_memory
from spring.engine.cache import Block, KeyValueCache
from spring.engine.forward import hidden_states, prefill_groups, use_attention
from spring.engine.lora import AdapterBank
from spring.engine.loss import FusedNLL
from spring.engine.packing import pack_rows
from spring.engine.roads import forget, head, road_of, set_road
from spring.engine.settings import Lora
from spring.engine.weights import one_line

STRICT = 1e-3  # largest difference in float32, as a share of the logits' spread
LENGTHS = (6, 23, 9, 40, 13)  # tokens of the rows that are tried
NEW = 4  # of them are answers, token by token
FIRST = 16  # tokens before it may be special, if there are many
REFUSED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)  # what a model raises that cannot be called so: it is a program
Row = list[int]


class Trial:
    """A model, whose road may be set anew between tries, and a copy of it that stays plain.

    What a try says is what differs from each row alone, in words; null: nothing.
    """

    def __init__(self, model: Any) -> None:
        use_attention(model, packed=False)
        self.model, self.plain = model, copy.deepcopy(model)
        self.rows, self.slots = rows_of(model, LENGTHS), [0, -1, 1, 0, 1]
        self.expected = [alone(self.plain, row) for row in self.rows]
        self.bound = torch.cat(self.expected).std() * STRICT

    def reads(self) -> str | None:
        """Tries all that is read at once: scoring, layers under adapters, gradients.

        Layers on which adapters do nothing, or something else than alone, are taken out of the road.
        """
        return self._tried(self.scoring, self.keep_layers, self.adapters, self.lessons)

    def goes_on(self) -> str | None:
        """Tries answers, token by token."""
        return self._tried(self.answers)

    def _tried(self, *tries: Callable[[], str | None]) -> str | None:
        """What the first try says that differs; an error is a difference, but for a lack of memory."""
        try:
            return next((said for try_ in tries if (said := try_()) is not None), None)
        except REFUSED as error:
            if out_of_memory(error):  # which says nothing of the road
                raise
            return one_line(error)

    def scoring(self) -> str | None:
        """All rows together, without adapters."""
        return self.differ("scoring", score(self.model, self.rows, [-1] * len(self.rows)), self.expected)

    def differ(
        self, what: str, found: Sequence[Tensor], wanted: Sequence[Tensor], rows: Sequence[Row] | None = None
    ) -> str | None:
        """The first of all or some `rows` that differs by more than it may; [n, V] each."""
        for row, one, other in zip(rows or self.rows, found, wanted, strict=True):
            off = (one - other).abs().max() if one.numel() else torch.zeros(())
            if not bool(off <= self.bound):
                share = float(off / self.bound * STRICT)
                return f"{what}, the row of {len(row)} tokens is off by {share:.2g} of the logits' spread"
        return None

    def keep_layers(self) -> str | None:
        """Keeps layers on which an adapter alone does what it does in the plain model, and does something."""
        road, kept, said = road_of(self.model), set(), "no linear layer makes one vector for each token"
        for name in sorted(road.layers):
            with adapted(self.model, [name]) as bank:
                found = score(self.model, self.rows, self.slots, bank)
                wanted = self.logits(bank)
            moved = max(float((w - e).abs().max()) for w, e in zip(wanted, self.expected, strict=True))
            wrong = self.differ(f"adapters on {name}", found, wanted)
            if wrong is None and moved > self.bound:
                kept.add(name)
            said = wrong or said
        set_road(self.model, replace(road, layers=frozenset(kept)))
        return None if kept else f"adapters: {said}"

    def adapters(self) -> str | None:
        """Adapters on all layers, in another order of rows too."""
        with adapted(self.model) as bank:
            wanted = self.logits(bank)
            found = score(self.model, self.rows, self.slots, bank)
            turned = score(self.model, self.rows[::-1], self.slots[::-1], bank)[::-1]
        said = self.differ("scoring with adapters", found, wanted)
        return said or self.differ("scoring in another order", turned, wanted)

    def answers(self) -> str | None:
        """Steps behind prompts, of which one leaves half-way and the others change places.

        Where there is a limit of frequencies, short rows go on by themselves too: they may on another road.
        """
        rope, everyone = road_of(self.model).rope, range(len(self.rows))
        within = [i for i in everyone if rope is not None and len(self.rows[i]) <= rope.limit]
        with adapted(self.model) as bank:
            behind = [self.logits(bank, left_out=n) for n in range(NEW, 0, -1)]  # each as long as it is then
            wanted = [torch.stack([logits[i][-1] for logits in behind]) for i in everyone]
            for some in (everyone, within) if len(within) > 1 else (everyone,):
                rows, slots = [self.rows[i] for i in some], [self.slots[i] for i in some]
                found = answer(self.model, rows, slots, bank)
                left = [wanted[i][: len(one)] for i, one in zip(some, found, strict=True)]
                if said := self.differ("in steps through the cache", found, left, rows):
                    return said
        return None

    def lessons(self) -> str | None:
        """The gradient of the rows' losses."""
        slots = [max(slot, 0) for slot in self.slots]
        with adapted(self.model) as bank, bank.training():
            found = gradient(self.model, self.rows, slots, bank)
            wanted = self.gradient(slots, bank)
        off = float((found - wanted).norm() / wanted.norm())
        return None if off <= STRICT else f"the gradient of a loss is off by {off:.2g} of its length"

    def logits(self, bank: AdapterBank, *, left_out: int = 0) -> list[Tensor]:
        """Of each row [n, V] alone, its adapter added to the weights; without so many of its last tokens."""
        found: dict[int, Tensor] = {}
        for slot in sorted(set(self.slots)):
            updates = updates_of(bank, slot) if slot >= 0 else {}
            for i, row in enumerate(self.rows):
                if self.slots[i] == slot:
                    found[i] = alone(self.plain, row[: len(row) - left_out], updates)
        return [found[i] for i in range(len(self.rows))]

    def gradient(self, slots: Sequence[int], bank: AdapterBank) -> Tensor:
        """Of the sum of all rows' losses, row by row through the plain model, [S, P]."""
        found = torch.zeros_like(bank.flat)
        for row, slot in zip(self.rows, slots, strict=True):
            logits = alone(self.plain, row, updates_of(bank, slot), grad=True)[:-1]
            loss = F.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum")
            found[slot] += gradient_of(loss, list(bank.views(slot)))
        return found


def rows_of(model: Any, lengths: Sequence[int]) -> list[Row]:
    """Rows of so many tokens, all different; of tokens that stand for nothing but text."""
    vocabulary = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    first = min(FIRST, vocabulary // 4)
    return [torch.randint(first, vocabulary // 2, (n,), generator=generator).tolist() for n in lengths]


def alone(model: Any, row: Row, updates: Mapping[str, Tensor] | None = None, *, grad: bool = False) -> Tensor:
    """Logits [n, V] of the plain model for one row, `updates` added to its weights."""
    ids = torch.tensor([list(row)], device=model.device)
    forget(model)
    own = dict(model.named_parameters(remove_duplicate=False))
    weights = {f"{name}.weight": own[f"{name}.weight"] + update for name, update in (updates or {}).items()}
    with torch.set_grad_enabled(grad):
        out = functional_call(model, weights, (), {"input_ids": ids, "use_cache": False}, tie_weights=False)
    logits: Tensor = out.logits[0].float()
    return logits


def updates_of(bank: AdapterBank, slot: int) -> dict[str, Tensor]:
    """What an adapter adds to each layer's weight, as it lies there."""
    found = {}
    for name, layer in bank.layers.items():
        update = (layer.b[slot] @ layer.a[slot]) * bank.scaling
        found[name] = update if isinstance(layer.base, nn.Linear) else update.T
    return found


@contextmanager
def adapted(model: Any, leaves: Sequence[str] | None = None) -> Iterator[AdapterBank]:
    """The model under a bank of two adapters that change it by half its weights' spread; without dropout."""
    names = leaves if leaves is not None else sorted(road_of(model).layers)
    bank = AdapterBank(model, Lora(r=2, alpha=4, dropout=0, target_modules=tuple(names)), slots=2)
    generator = torch.Generator().manual_seed(1)
    for layer in bank.layers.values():
        std = (0.18 * layer.weight.std().item()) ** 0.5
        for view in (*layer.a, *layer.b):
            view.data.copy_(torch.empty(view.shape).normal_(0, std, generator=generator))
    try:
        yield bank
    finally:
        bank.detach(model)


@torch.inference_mode()
def score(
    model: Any, rows: Sequence[Row], slots: Sequence[int], bank: AdapterBank | None = None
) -> list[Tensor]:
    """Logits [n, V] of each row, read together."""
    pack = pack_rows(rows, slots, device=model.device, prompts=rows)
    return list(head(model)(hidden_states(model, pack, bank)).float().split(pack.lengths))


@torch.inference_mode()
def answer(model: Any, rows: Sequence[Row], slots: Sequence[int], bank: AdapterBank) -> list[Tensor]:
    """Logits [*, V] behind each row's prompt, then behind each of its last tokens; one row leaves early."""
    prompts = [row[:-NEW] for row in rows]
    road, cache = road_of(model).for_answers(max(map(len, rows))), KeyValueCache()
    pack = pack_rows(prompts, slots, device=model.device, cache=None if road.padded else cache)
    if road.padded:
        places, last = prefill_groups(model, pack, bank, road, NEW)
        blocks = {id(block): block for block, _ in places}.values()
        cache.admit([_named(block, places) for block in blocks])
    else:
        last = hidden_states(model, pack, bank, road=road)[pack.ends()]
    logits = head(model)(last).float()
    found = [[logits[i]] for i in range(len(rows))]
    for step in range(NEW - 1):
        if step == NEW // 2:
            cache.keep(set(range(1, len(rows))))
            cache.blocks = [_turned(block) for block in cache.blocks]
        fed = [[rows[i][len(prompts[i]) + step]] for i in cache.rows]
        pack = pack_rows(fed, [slots[i] for i in cache.rows], device=model.device, cache=cache)
        logits = head(model)(hidden_states(model, pack, bank, road=road)).float()
        for i, one in zip(cache.rows, logits, strict=True):
            found[i].append(one)
    return [torch.stack(one) for one in found]


def _named(block: Block, places: Sequence[tuple[Block, int]]) -> Block:
    """A block whose rows have the names of their prompts."""
    return block.take(
        *zip(*[(place, i) for i, (one, place) in enumerate(places) if one is block], strict=True)
    )


def _turned(block: Block) -> Block:
    """The same rows in another order."""
    places = list(range(len(block.rows)))[::-1]
    return block.take(places, [block.rows[i] for i in places])


def gradient(model: Any, rows: Sequence[Row], slots: Sequence[int], bank: AdapterBank) -> Tensor:
    """Of the sum of all rows' losses, read together, [S, P]."""
    pack = pack_rows(rows, slots, device=model.device, prompts=rows)
    hidden = hidden_states(model, pack, bank)
    at = [i for start, stop in pack.spans() for i in range(start, stop - 1)]
    targets = torch.tensor([token for row in rows for token in row[1:]])
    loss = FusedNLL.apply(hidden[at], head(model), targets, torch.ones(len(at))).sum()
    views = [view for slot in range(bank.slots) for view in bank.views(slot)]
    return gradient_of(loss, views).view_as(bank.flat)


def gradient_of(loss: Tensor, views: Sequence[Tensor]) -> Tensor:
    """The gradient with respect to all views, behind one another."""
    grads = torch.autograd.grad(loss, views, allow_unused=True, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])
