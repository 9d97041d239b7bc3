"""AdapterBank: the LoRA adapters of S slots on one frozen model.

Every target linear layer is wrapped; each row of a batch names its slot and gets that slot's low-rank
update, or none (slot -1, the base model): y + B(A(dropout(x))) * alpha / r (spring/engine/lowrank.py).

All parameters of a slot lie in one row of `flat` [S, P], so that an optimizer step over many slots is a
handful of operations; each layer's A [r, D] and B [D', r] are views of it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from spring.engine.layers import leaf, widths
from spring.engine.lowrank import BankedLinear, Route, Steps
from spring.engine.packing import Pack, in_hand
from spring.engine.peft import tensor_name
from spring.engine.roads import adaptable
from spring.engine.settings import Lora
from spring.engine.spread import spread_out


class AdapterBank:
    """LoRA adapters of S slots, attached to `model` by the names of its linear layers."""

    layer_type: type[BankedLinear] = BankedLinear
    by_prompt = False  # whether what a row's tokens get depends on the whole of its prompt

    def __init__(self, model: Any, config: Lora, *, slots: int) -> None:
        self.config = config
        self.scaling = config.alpha / config.r
        self.slots = slots
        self._here = threading.local()  # batches may run side by side, each with its own route
        self.layers: dict[str, BankedLinear] = {}
        linear = {name: model.get_submodule(name) for name in adaptable(model)}
        targets = [name for name in linear if leaf(name) in config.target_modules]
        lacking = set(config.target_modules) - set(map(leaf, targets))
        if lacking:
            raise ValueError(
                f"lora.target_modules names {', '.join(sorted(lacking))}, which adapters cannot lie on; "
                f"on this model they can on {', '.join(sorted(set(map(leaf, linear))))}"
            )
        for number, name in enumerate(targets):
            parent, _, child = name.rpartition(".")
            layer = self.layer_type(linear[name], self, number)
            setattr(model.get_submodule(parent), child, layer)
            self.layers[name] = layer
        shapes = self._shapes()
        self.width = sum(map(math.prod, shapes.values()))  # P
        self.flat = torch.zeros(slots, self.width, device=next(model.parameters()).device)  # [S, P]
        self.stacks: dict[str, Tensor] = {}  # every tensor of all slots, [S, *shape]
        offset = 0
        for name, shape in shapes.items():
            size = math.prod(shape)
            self.stacks[name] = self.flat[:, offset : offset + size].view(slots, *shape)
            offset += size
        self.named = [  # the same per slot
            {name: nn.Parameter(stack[slot], requires_grad=False) for name, stack in self.stacks.items()}
            for slot in range(slots)
        ]
        self._give_to_layers()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors of a slot, by name, in the order in which they lie in `flat`."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, layer in self.layers.items():
            inputs, outputs = widths(layer.base)
            shapes[tensor_name(name, "A")] = (self.config.r, inputs)
            shapes[tensor_name(name, "B")] = (outputs, self.config.r)
        return shapes

    def _give_to_layers(self) -> None:
        """Tells each layer its A and B of every slot."""
        for name, layer in self.layers.items():
            a, b = tensor_name(name, "A"), tensor_name(name, "B")
            layer.a, layer.b = ([tensors[kind] for tensors in self.named] for kind in (a, b))
            layer.stacked = (self.stacks[a], self.stacks[b])

    def detach(self, model: nn.Module) -> None:
        """Puts the model's own linear layers back."""
        for name, layer in self.layers.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.base)
            layer.bank.clear()  # no circle: the adapters' memory is free as soon as the bank is let go

    @contextmanager
    def training(self) -> Iterator[None]:
        """Inside the block the adapters' parameters take part in autograd."""
        views = [view for slot in range(self.slots) for view in self.views(slot)]
        for view in views:
            view.requires_grad_(True)
        try:
            yield
        finally:
            for view in views:
                view.requires_grad_(False)

    def views(self, slot: int) -> Iterator[nn.Parameter]:
        """The parameters of one slot in the order in which they lie in `flat`."""
        yield from self.named[slot].values()

    def split(self, row: Tensor) -> list[tuple[Tensor, Tensor]]:
        """A row [P] in the layout of `flat` as A [r, D] and B [D', r] of every layer (views)."""
        stacks = self.stacks.values()  # [S, r, D] and [S, D', r] by turns
        parts = row.split([stack[0].numel() for stack in stacks])
        views = [part.view(stack.shape[1:]) for part, stack in zip(parts, stacks, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))

    # --- one slot -----------------------------------------------------------------------------------------

    def initialise(self, slot: int, *, seed: int) -> None:
        """A fresh adapter: A uniform as in PEFT (Kaiming with sqrt 5), B zero."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            bound = 1 / math.sqrt(layer.a[slot].shape[1])
            values = torch.rand(layer.a[slot].shape, generator=generator) * (2 * bound) - bound
            layer.a[slot].data.copy_(values)
            layer.b[slot].data.zero_()

    def state(self, slot: int) -> dict[str, Tensor]:
        """The adapter of one slot under PEFT's names, float32 on the CPU."""
        return {name: view.detach().to("cpu", copy=True) for name, view in self.named[slot].items()}

    def load_state(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Puts an adapter under PEFT's names into one slot; refuses a missing, extra or misshapen tensor."""
        wanted = self.named[slot]
        if wanted.keys() != state.keys():
            odd = sorted(wanted.keys() ^ state.keys())[:4]
            raise ValueError(f"adapter does not fit the model and lora settings: missing or unknown {odd}")
        for name, view in wanted.items():
            if view.shape != state[name].shape:
                raise ValueError(
                    f"adapter tensor {name} has shape {tuple(state[name].shape)}, not {tuple(view.shape)}"
                )
            view.data.copy_(state[name])

    def extend(self, slot: int, state: Mapping[str, Tensor], *, seed: int) -> None:
        """An adapter of lower rank fills the first ranks of a slot; the others are as in a fresh one."""
        self.initialise(slot, seed=seed)
        wider = self.state(slot)
        for name in wider.keys() & state.keys():
            ranks = 0 if ".lora_A." in name else 1
            missing = wider[name].shape[ranks] - state[name].shape[ranks]
            fresh = wider[name].narrow(ranks, state[name].shape[ranks], missing)
            wider[name] = torch.cat([state[name], fresh], ranks)
        self.load_state(slot, {name: wider.get(name, value) for name, value in state.items()})

    def regularise(self, slots: Sequence[int], grads: Tensor) -> None:
        """Adds to `grads` [len(slots), P] what the loss of these slots holds besides texts: nothing here."""

    # --- a batch ------------------------------------------------------------------------------------------

    @property
    def route(self) -> Route | None:
        """Where the tokens of the batch in hand go; null outside `routed`."""
        return getattr(self._here, "route", None)

    @contextmanager
    def routed(self, pack: Pack, seeds: Sequence[int] | None = None) -> Iterator[None]:
        """Inside the block the model's linear layers apply each row's slot; with `seeds` [R], dropout too."""
        with self.using(self._plan(pack, seeds)):
            yield

    @contextmanager
    def using(self, route: Route | None) -> Iterator[None]:
        """Inside the block, in this thread, the batch in hand goes this way."""
        before = self.route
        self._here.route = route
        try:
            yield
        finally:
            self._here.route = before

    def _plan(self, pack: Pack, seeds: Sequence[int] | None) -> Route:
        runs = [run for run in token_runs(pack.lengths, pack.slots) if run[0] >= 0]
        if pack.stepping:
            return Route(runs, None, _steps(pack.slots, self.slots, self.flat.device), pack.laid)
        masks = None
        if seeds is not None and self.config.dropout > 0:
            rows = groupby(zip(pack.slots, pack.lengths, seeds, strict=True), key=lambda row: row[0])
            masks = [[(length, seed) for _, length, seed in group] for slot, group in rows if slot >= 0]
        spread = None
        if runs and self.flat.device.type != "cpu":
            spread = spread_out(pack.lengths, pack.slots, seeds if masks else None, self.flat.device)
        return Route(runs, masks, None, pack.laid, spread)


@contextmanager
def reading(pack: Pack, bank: AdapterBank | None, seeds: Sequence[int] | None = None) -> Iterator[None]:
    """Inside the block, in this thread, the model reads a pack, every row under its adapter."""
    with in_hand(pack), nullcontext() if bank is None else bank.routed(pack, seeds):
        yield


def _steps(slots: Sequence[int], count: int, device: torch.device) -> Steps:
    """Where the single tokens of rows with these slots stand, of `count` slots."""
    taken = [0] * count
    tokens, columns = [], []
    for i, slot in enumerate(slots):
        if slot >= 0:
            tokens.append(i)
            columns.append(taken[slot])
            taken[slot] += 1
    most = max(taken)
    places = [slots[i] * most + column for i, column in zip(tokens, columns, strict=True)]
    return Steps(torch.tensor(tokens, device=device), torch.tensor(places, device=device), (count, most))


def token_runs(lengths: Sequence[int], slots: Sequence[int]) -> list[tuple[int, int, int]]:
    """Neighbouring rows of the same slot as one run (slot, first token, token after the last)."""
    runs, start = [], 0
    for slot, group in groupby(zip(slots, lengths, strict=True), key=lambda pair: pair[0]):
        stop = start + sum(length for _, length in group)
        runs.append((slot, start, stop))
        start = stop
    return runs


def rank_of(state: Mapping[str, Tensor]) -> int:
    """The rank of an adapter under PEFT's names."""
    return next(value.shape[0] for name, value in state.items() if ".lora_A." in name)
