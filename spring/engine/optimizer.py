"""AdamW for the stacked parameters of many adapters, and its schedule.

Operation by operation as torch.optim.AdamW (arXiv 1711.05101) and transformers' linear schedule with warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spring.engine.settings import Learning

BETAS = (0.9, 0.999)
EPS = 1e-8


def schedule(step: int, steps: int, warmup_ratio: float) -> float:
    """Share of the learning rate at `step` (from 0) of `steps`: linear warm-up, then linear decay to 0.

    As in transformers, whose first step of a warm-up has rate 0; [ours] warm-up steps are rounded down, so
    that a lesson of fewer than 10 steps (a drift set is one or two batches) spends none at rate 0.
    """
    warmup = math.floor(steps * warmup_ratio)
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (steps - step) / max(1, steps - warmup))


class StackedAdamW:
    """AdamW on stacked parameters [S, P] with a learning rate, step count and clip norm per slot.

    Slots are stepped one after another: a slot's numbers never depend on who else is there.
    """

    def __init__(self, weights: Tensor, config: Learning) -> None:
        self.weights, self.config = weights, config
        self.first = torch.zeros_like(weights)
        self.second = torch.zeros_like(weights)
        self.count = [0] * len(weights)

    def reset(self, slot: int) -> None:
        """A fresh optimizer for one slot."""
        self.first[slot] = 0
        self.second[slot] = 0
        self.count[slot] = 0

    @torch.no_grad()
    def step(self, slots: Sequence[int], grads: Tensor, rates: Sequence[float]) -> list[float]:
        """One step of each slot from `grads` [len(slots), P]; gives the gradient norms before clipping."""
        norms = []
        for slot, grad, rate in zip(slots, grads, rates, strict=True):
            weights = self.weights[slot]
            norm = grad.norm().item()
            norms.append(norm)
            if self.config.grad_clip is not None:
                grad = grad * min(1.0, self.config.grad_clip / (norm + 1e-6))
            self.count[slot] += 1
            count = self.count[slot]
            weights.mul_(1 - rate * self.config.weight_decay)
            self.first[slot].lerp_(grad, 1 - BETAS[0])
            self.second[slot].mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            denominator = (self.second[slot].sqrt() / math.sqrt(1 - BETAS[1] ** count)).add_(EPS)
            weights.addcdiv_(self.first[slot], denominator, value=-rate / (1 - BETAS[0] ** count))
        return norms
