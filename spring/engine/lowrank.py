"""The low-rank update of a batch whose tokens belong to many adapters (arXiv 2106.09685).

A `Route` says which tokens use which slot; `BankedLinear` stands in for a linear layer and follows it.
Computed in float32 and rounded once, as PEFT does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spring.engine.passes import add_scaled, least, narrow, widen
from spring.engine.settings import Lora
from spring.engine.spread import Spread, update


@dataclass(frozen=True)
class Route:
    """Which tokens of a pack use which slot, and the dropout seed of each row."""

    runs: list[tuple[int, int, int]]  # slot, first token, token after the last
    masks: (
        list[list[tuple[int, int]]] | None
    )  # per run: tokens and dropout seed of its rows; null: no dropout
    steps: Steps | None = None  # when every row is a single token (decoding)
    tokens: int = 0  # as many as a layer must be given, or its input is not one vector for each
    spread: Spread | None = None  # the same tokens for a GPU


class MisplacedError(ValueError):
    """A layer that is not given one vector for each token: no adapter can lie on it."""


@dataclass(frozen=True)
class Steps:
    """Single tokens of many slots, sorted into a padded [S, m] so that each slot's weights are read once."""

    tokens: Tensor  # [n] which tokens have an adapter
    places: Tensor  # [n] where they stand in [S * m]
    shape: tuple[int, int]  # S, m: as many tokens as the busiest slot has


class Bank(Protocol):
    """What a layer asks of the bank that it belongs to (spring/engine/lora.py)."""

    config: Lora
    scaling: float  # alpha / r

    @property
    def route(self) -> Route | None:
        """Where the tokens of the batch in hand go; null: to the base model alone."""
        ...


class BankedLinear(nn.Module):
    """A frozen linear layer with one low-rank update per slot."""

    def __init__(self, base: nn.Module, bank: Bank, number: int) -> None:
        super().__init__()
        self.base = base
        self.bank = [bank]  # in a list: not a submodule
        self.number = number
        self.a: list[nn.Parameter] = []  # per slot [r, D]
        self.b: list[nn.Parameter] = []  # per slot [D', r]
        self.stacked: tuple[Tensor, ...] = ()  # the same as [S, r, D] and [S, D', r]

    @property
    def weight(self) -> Tensor:
        """The frozen layer's: some models look at its dtype, or at its place."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The same of its bias."""
        return getattr(self.base, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """[*, D] -> [*, D'], N vectors in the order of the tokens."""
        y = self.base(x)
        route = self.bank[0].route
        if route is None or not route.runs:
            return y
        flat = x.reshape(1, -1, x.shape[-1])
        if flat.shape[1] != route.tokens:
            raise MisplacedError(f"a layer was given {tuple(x.shape)} for {route.tokens} tokens")
        return self.update(flat, y.reshape(1, flat.shape[1], -1), route).view(y.shape)

    def update(self, x: Tensor, y: Tensor, route: Route) -> Tensor:
        """y [1, N, D'] with the low-rank update of every token that has a slot."""
        bank = self.bank[0]
        if route.steps is not None:
            return self._step(x, y, route.steps)
        config, drawn = bank.config, None
        if route.spread is not None:
            a, b = (torch.stack([side[slot] for slot in route.spread.slots]) for side in (self.a, self.b))
            p, scaling = config.dropout, bank.scaling
            return update(x[0], y[0], route.spread, a, b, number=self.number, p=p, scaling=scaling)[None]
        if route.masks is not None:
            drawn = [partial(self.drawn, x.shape[2], x.device, rows) for rows in route.masks]
        weights = [w for slot, _, _ in route.runs for w in (self.a[slot], self.b[slot])]
        how = (route.runs, drawn, config.dropout, bank.scaling)
        return LowRankUpdate.apply(x[0], y[0], *how, *weights)[None]

    def drawn(self, width: int, device: torch.device, rows: list[tuple[int, int]]) -> Tensor:
        """What decides on dropout in a run, row after row (`draw`)."""
        return torch.cat([draw(n, width, seed=seed + self.number, device=device) for n, seed in rows])

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
        drawn: list[Callable[[], Tensor]] | None,
        p: float,
        scaling: float,
        *weights: Tensor,
    ) -> Tensor:
        """x [N, D], y [N, D'], weights A [r, D], B [D', r] by turns; `drawn` gives the draws [n, D] of a run.

        They are drawn again for the backward pass: kept, they would take two bytes for each number of x.
        """
        out = torch.empty_like(y)
        ctx.scaling = scaling if drawn is None else scaling / (1 - p)
        ctx.runs, ctx.least, ctx.drawn = runs, least(p), drawn
        inner, end = [], 0
        for i, (_, start, stop) in enumerate(runs):
            out[end:start] = y[end:start]
            end = stop
            part = widen(x[start:stop], drawn[i]() if drawn else None, ctx.least)
            inner.append(part @ weights[2 * i].T)  # [n, r]
            update = inner[-1] @ weights[2 * i + 1].T
            add_scaled(y[start:stop], update, ctx.scaling, out[start:stop])
        out[end:] = y[end:]
        ctx.save_for_backward(x, *weights, *inner)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Gradients of x, y and the weights; the tokens of no run only pass y's on."""
        g, n = grads[0], len(ctx.runs)
        x, *saved = ctx.saved_tensors
        weights, inner = saved[: 2 * n], saved[2 * n :]
        of_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        of_weights = []
        for i, (_, start, stop) in enumerate(ctx.runs):
            drawn = ctx.drawn[i]() if ctx.drawn else None
            gi = g[start:stop].float()  # [n, D']
            of_inner = (gi @ weights[2 * i + 1]).mul_(ctx.scaling)  # [n, r]
            of_a = of_inner.T @ widen(x[start:stop], drawn, ctx.least)
            of_weights += [of_a, (gi.T @ inner[i]).mul_(ctx.scaling)]
            if of_x is not None:
                narrow(of_inner @ weights[2 * i], drawn, ctx.least, of_x[start:stop])
        return of_x, g, None, None, None, None, *of_weights


def draw(tokens: int, width: int, *, seed: int, device: torch.device) -> Tensor:
    """16 random bits for each of [tokens, width], which depend on `seed` alone: on nobody else in the batch.

    Four times cheaper than one draw each.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    bits = torch.empty(-(-tokens * width // 4), dtype=torch.int64, device=device)
    bits.random_(-(1 << 63), None, generator=generator)  # all 64 bits: the plain call leaves the sign at 0
    return bits.view(torch.int16)[: tokens * width].view(tokens, width)
