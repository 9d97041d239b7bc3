"""Interpolation weighted token by token by how sure each path is (`decode.confidence`) [ours].

Notation: B queries, V vocabulary; c_par is the path without context, c_ret the one with it (Eq. 7).

With confidences c in [0, 1] the weight of the retrieval path at one token is

    w = lambda c_ret / (lambda c_ret + (1 - lambda) c_par)

so that equally sure paths are mixed with lambda itself, lambda 0 and 1 stay single paths, and a path that
knows nothing (c = 0) is not heard. Where neither knows anything, w = lambda.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Confidence = Literal["entropy", "max-probability"]


def entropy_confidence(logp: Tensor) -> Tensor:
    """1 - H(p) / ln V: 1 for a certain token, 0 for the uniform distribution. [B, V] -> [B]."""
    entropy = -torch.special.xlogy(logp.exp(), logp.exp()).sum(-1)
    return (1 - entropy / math.log(logp.shape[-1])).clamp(0, 1)


def max_confidence(logp: Tensor) -> Tensor:
    """Probability of the most probable token. [B, V] -> [B]."""
    return logp.max(-1).values.exp()


CONFIDENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy_confidence,
    "max-probability": max_confidence,
}


def heard(weights: Tensor, confidences: Tensor) -> Tensor:
    """Weights of the paths after their confidences: both [..., paths], weights sum to 1 before and after."""
    scaled = weights * confidences
    total = scaled.sum(-1, keepdim=True)
    return torch.where(total > 0, scaled / total.clamp(min=torch.finfo(total.dtype).tiny), weights)
