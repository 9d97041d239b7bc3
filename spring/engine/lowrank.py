"""The low-rank update of a batch whose tokens belong to many adapters (arXiv 2106.09685).

A `Route` says which tokens use which slot; `BankedLinear` stands in for a linear layer and follows it.
Computed in float32 and rounded once, as PEFT does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spring.engine.settings import Lora


@dataclass(frozen=True)
class Route:
    """Which tokens of a pack use which slot, and the dropout seed of each row."""

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

    def __init__(self, base: nn.Linear, bank: Bank, number: int) -> None:
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
        route = self.bank[0].route
        return y if route is None or not route.runs else self.update(x, y, route)

    def update(self, x: Tensor, y: Tensor, route: Route) -> Tensor:
        """y [1, N, D'] with the low-rank update of every token that has a slot."""
        bank = self.bank[0]
        if route.steps is not None:
            return self._step(x, y, route.steps)
        keep = None if route.masks is None else [self._keep(x, rows) for rows in route.masks]
        weights = [w for slot, _, _ in route.runs for w in (self.a[slot], self.b[slot])]
        out = LowRankUpdate.apply(x[0], y[0], route.runs, keep, bank.config.dropout, bank.scaling, *weights)
        return out[None]

    def _keep(self, x: Tensor, rows: list[tuple[int, int]]) -> Tensor:
        """The dropout mask of a run, row after row, as numbers of x's kind."""
        p, width = self.bank[0].config.dropout, x.shape[2]
        return torch.cat([keep_mask(n, width, p, seed=seed + self.number, like=x) for n, seed in rows])

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


def keep_mask(tokens: int, width: int, p: float, *, seed: int, like: Tensor) -> Tensor:
    """1 where dropout keeps [tokens, width], else 0: depends on `seed` alone, so on nobody else in the batch.

    16 random bits per element (p is met to 1/65536): four times cheaper than one draw each. Of the kind of
    `like`, since processors take four times as long to multiply by truth values.
    """
    generator = torch.Generator(device=like.device).manual_seed(seed)
    bits = torch.empty(-(-tokens * width // 4), dtype=torch.int64, device=like.device)
    bits.random_(-(1 << 63), None, generator=generator)  # all 64 bits: the plain call leaves the sign at 0
    drawn = bits.view(torch.int16)[: tokens * width].view(tokens, width)
    return torch.ge(drawn, round(p * 65536) - 32768, out=like.new_empty(tokens, width))
