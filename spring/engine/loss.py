"""The loss of a frozen output layer, without keeping its logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spring.engine.heads import Head
from spring.engine.packing import filled, whole
from spring.engine.passes import target_logps
from spring.engine.scoring import CHUNK


class FusedNLL(torch.autograd.Function):
    """Weighted NLL of frozen-head logits, chunk by chunk, without keeping any logits.

    The head has no gradient, so d NLL / d hidden = w (softmax - onehot) W is computed on the way forward.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, targets: Tensor, weights: Tensor) -> Tensor:
        """hidden [n, D], the head, targets [n], weights [n] -> weighted NLL [n]."""
        grads, values, n = [], [], len(targets)
        hidden = filled(hidden)  # what is added has no weight
        targets, weights = (F.pad(x, (0, whole(n) - n)) for x in (targets, weights))
        for h, t, w in zip(hidden.split(CHUNK), targets.split(CHUNK), weights.split(CHUNK), strict=True):
            probs = head(h)  # [n, V], so far logits
            slope = head.finish.slope(probs)
            values.append(-target_logps(probs, t, replace=True) * w)
            if isinstance(slope, Tensor):
                probs[torch.arange(len(t), device=t.device), t] -= 1
                found = (probs * slope) @ head.weight
            else:
                found = (probs @ head.weight - head.weight[t]) * slope  # [n, D]
            grads.append((found * w[:, None]).to(h.dtype))
        ctx.save_for_backward(torch.cat(grads)[:n])
        return torch.cat(values)[:n]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Scales the stored gradient."""
        (stored,) = ctx.saved_tensors
        return (stored * grads[0][:, None]).to(stored.dtype), None, None, None
