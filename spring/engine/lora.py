"""AdapterBank: the LoRA adapters of S slots on one frozen model.

Every target linear layer is wrapped; each row of a batch names its slot and gets that slot's low-rank
update, or none (slot -1, the base model). The update is the one of LoRA (arXiv 2106.09685) as PEFT
computes it: in float32, y + B(A(dropout(x))) * alpha / r, rounded once to the model's dtype.

All parameters of a slot lie in one row of `flat` [S, P], so that an optimizer step over many slots is a
handful of operations; each layer's A [r, D] and B [D', r] are views of it.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spring.engine.packing import Pack
from spring.params import Lora


@dataclass(frozen=True)
class Route:
    """Which tokens of a pack use which slot, and the dropout seed of each slot's step."""

    runs: list[tuple[int, int, int]]  # slot, first token, token after the last
    masks: (
        list[list[tuple[int, int]]] | None
    )  # per run: tokens and dropout seed of its rows; null: no dropout
    steps: Steps | None = None  # when every row is a single token (decoding)


@dataclass(frozen=True)
class Steps:
    """Single tokens of many slots, sorted into a padded [S, m] so that each slot's weights are read once."""

    tokens: Tensor  # [n] which tokens have an adapter
    places: Tensor  # [n] where they stand in [S * m]
    shape: tuple[int, int]  # S, m: as many tokens as the busiest slot has


class BankedLinear(nn.Module):
    """A frozen linear layer with one low-rank update per slot."""

    def __init__(self, base: nn.Linear, bank: AdapterBank, number: int) -> None:
        super().__init__()
        self.base = base
        self.bank = [bank]  # in a list: not a submodule
        self.number = number
        self.a: list[nn.Parameter] = []  # per slot [r, D]
        self.b: list[nn.Parameter] = []  # per slot [D', r]
        self.stacked: tuple[Tensor, ...] = ()  # the same as [S, r, D] and [S, D', r]

    def forward(self, x: Tensor) -> Tensor:
        """[1, N, D] -> [1, N, D']."""
        y = self.base(x)
        bank = self.bank[0]
        route = bank.route
        if route is None:
            return y
        if not route.runs:
            return y
        if route.steps is not None:
            return self._step(x, y, route.steps)
        keep = None
        if route.masks is not None:
            p, width = bank.config.dropout, x.shape[2]
            keep = [
                torch.cat(
                    [keep_mask(n, width, p, seed=seed + self.number, device=x.device) for n, seed in mask]
                )
                for mask in route.masks
            ]
        weights = [w for slot, _, _ in route.runs for w in (self.a[slot], self.b[slot])]
        out = LowRankUpdate.apply(x[0], y[0], route.runs, keep, bank.config.dropout, bank.scaling, *weights)
        return out[None]

    def _keep(self, x: Tensor, rows: list[tuple[int, int]]) -> Tensor:
        """The dropout mask of a run, row after row."""
        p, width = self.bank[0].config.dropout, x.shape[2]
        parts = [keep_mask(n, width, p, seed=seed + self.number, device=x.device) for n, seed in rows]
        return torch.cat(parts)

    def _step(self, x: Tensor, y: Tensor, steps: Steps) -> Tensor:
        """The update of single tokens, all slots in two batched products."""
        slots, most = steps.shape
        inputs = x.new_zeros(slots * most, x.shape[2], dtype=torch.float32)
        inputs[steps.places] = x[0, steps.tokens].float()
        a, b = self.stacked  # [S, r, D], [S, D', r]
        inner = torch.bmm(inputs.view(slots, most, -1), a.transpose(1, 2))
        update = torch.bmm(inner, b.transpose(1, 2)).view(slots * most, -1)[steps.places]
        out = y.float()
        out[0, steps.tokens] += update * self.bank[0].scaling
        return out.to(y.dtype)


class LowRankUpdate(torch.autograd.Function):
    """y + B(A(dropout(x))) * scaling for runs of tokens that each have their own A and B.

    One operation instead of a dozen per run: processors spend more on passes over x than on its products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        runs: list[tuple[int, int, int]],
        keep: list[Tensor] | None,
        p: float,
        scaling: float,
        *weights: Tensor,
    ) -> Tensor:
        """x [N, D], y [N, D'], keep masks [n, D] of the runs, weights A [r, D], B [D', r] by turns."""
        out = y.float()
        ctx.scaling = scaling / (1 - p) if keep is not None else scaling
        inner = []
        for i, (_, start, stop) in enumerate(runs):
            part = x[start:stop] if keep is None else x[start:stop] * keep[i]
            inner.append(part.float() @ weights[2 * i].T)  # [n, r]
            out[start:stop].addmm_(inner[-1], weights[2 * i + 1].T, alpha=ctx.scaling)
        ctx.runs, ctx.masked = runs, keep is not None
        ctx.save_for_backward(x, *weights, *inner, *(keep or ()))
        return out.to(y.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Gradients of x, y and the weights; the tokens of no run only pass y's on."""
        g, n = grads[0], len(ctx.runs)
        x, *saved = ctx.saved_tensors
        weights, inner, keep = saved[: 2 * n], saved[2 * n : 3 * n], saved[3 * n :]
        of_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        of_weights = []
        for i, (_, start, stop) in enumerate(ctx.runs):
            gi = g[start:stop].float() * ctx.scaling  # [n, D']
            of_inner = gi @ weights[2 * i + 1]  # [n, r]
            part = x[start:stop] * keep[i] if ctx.masked else x[start:stop]
            of_weights += [of_inner.T @ part.float(), gi.T @ inner[i]]
            if of_x is not None:
                piece = (of_inner @ weights[2 * i]).to(x.dtype)
                of_x[start:stop] = piece * keep[i] if ctx.masked else piece
        return of_x, g, None, None, None, None, *of_weights


class AdapterBank:
    """LoRA adapters of S slots, attached to `model` by the names of its linear layers."""

    def __init__(self, model: Any, config: Lora, *, slots: int) -> None:
        self.config = config
        self.scaling = config.alpha / config.r
        self.slots = slots
        self._here = threading.local()  # batches may run side by side, each with its own route
        self.layers: dict[str, BankedLinear] = {}
        inside = set(model.get_decoder().modules())  # not the output layer, nor a vision tower
        linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m in inside}
        targets = [
            (name, module)
            for name, module in linear.items()
            if name.rsplit(".", 1)[-1] in config.target_modules
        ]
        if not targets:
            raise ValueError(
                f"lora.target_modules is {list(config.target_modules)}, none of which the model has; "
                f"it has {sorted({name.rsplit('.', 1)[-1] for name in linear})}"
            )
        for number, (name, module) in enumerate(targets):
            parent, _, child = name.rpartition(".")
            layer = BankedLinear(module, self, number)
            setattr(model.get_submodule(parent), child, layer)
            self.layers[name] = layer
        device = next(model.parameters()).device
        self.shapes = {
            name: ((config.r, layer.base.in_features), (layer.base.out_features, config.r))
            for name, layer in self.layers.items()
        }
        self.width = sum(math.prod(shape) for pair in self.shapes.values() for shape in pair)  # P
        self.flat = torch.zeros(slots, self.width, device=device)  # [S, P]
        offset = 0
        for name, layer in self.layers.items():
            for kind, shape in zip("ab", self.shapes[name], strict=True):
                size = math.prod(shape)
                views = getattr(layer, kind)
                for slot in range(slots):
                    span = self.flat[slot, offset : offset + size].view(shape)
                    views.append(nn.Parameter(span, requires_grad=False))
                layer.stacked += (self.flat[:, offset : offset + size].view(slots, *shape),)
                offset += size

    def detach(self, model: nn.Module) -> None:
        """Puts the model's own linear layers back."""
        for name, layer in self.layers.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.base)

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
        for layer in self.layers.values():
            yield layer.a[slot]
            yield layer.b[slot]

    # --- one slot -----------------------------------------------------------------------------------------

    def initialise(self, slot: int, *, seed: int) -> None:
        """A fresh adapter: A uniform as in PEFT (Kaiming with sqrt 5), B zero."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            bound = 1 / math.sqrt(layer.base.in_features)
            values = torch.rand(layer.a[slot].shape, generator=generator) * (2 * bound) - bound
            layer.a[slot].data.copy_(values)
            layer.b[slot].data.zero_()

    def state(self, slot: int) -> dict[str, Tensor]:
        """The adapter of one slot under PEFT's names, float32 on the CPU."""
        return {
            f"base_model.model.{name}.lora_{kind.upper()}.weight": getattr(layer, kind)[slot]
            .detach()
            .to("cpu", copy=True)
            for name, layer in self.layers.items()
            for kind in "ab"
        }

    def load_state(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Puts an adapter under PEFT's names into one slot; refuses a missing, extra or misshapen tensor."""
        wanted = {
            f"base_model.model.{name}.lora_{kind.upper()}.weight": getattr(layer, kind)[slot]
            for name, layer in self.layers.items()
            for kind in "ab"
        }
        if wanted.keys() != state.keys():
            odd = sorted(wanted.keys() ^ state.keys())[:4]
            raise ValueError(f"adapter does not fit the model and lora settings: missing or unknown {odd}")
        for name, view in wanted.items():
            if view.shape != state[name].shape:
                raise ValueError(
                    f"adapter tensor {name} has shape {tuple(state[name].shape)}, not {tuple(view.shape)}"
                )
            view.data.copy_(state[name])

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
            return Route(runs, None, _steps(pack.slots, self.slots, self.flat.device))
        masks = None
        if seeds is not None and self.config.dropout > 0:
            rows = groupby(zip(pack.slots, pack.lengths, seeds, strict=True), key=lambda row: row[0])
            masks = [[(length, seed) for _, length, seed in group] for slot, group in rows if slot >= 0]
        return Route(runs, masks)


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


def keep_mask(tokens: int, width: int, p: float, *, seed: int, device: torch.device) -> Tensor:
    """Where dropout keeps [tokens, width]: depends on `seed` alone, so on nobody else in the batch.

    16 random bits per element (p is met to 1/65536): four times cheaper than one draw each.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    bits = torch.empty(-(-tokens * width // 4), dtype=torch.int64, device=device)
    bits.random_(-(1 << 63), None, generator=generator)  # all 64 bits: the plain call leaves the sign at 0
    return bits.view(torch.int16)[: tokens * width].view(tokens, width) >= round(p * 65536) - 32768


# --- PEFT's folder format ---------------------------------------------------------------------------------


def save_adapter(state: Mapping[str, Tensor], config: Lora, folder: Path, *, base_model: str) -> None:
    """Writes `adapter_model.safetensors` and `adapter_config.json` as `PeftModel.save_pretrained` does."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    described: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": config.r,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_adapter(folder: Path) -> dict[str, Tensor]:
    """The tensors of a PEFT folder (safetensors only, never pickle)."""
    file = folder / "adapter_model.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; only adapters in safetensors format are read")
    return load_file(file)
