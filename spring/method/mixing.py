"""The mixture of two next-token distributions (Eq. 8): of probabilities, as in kNN-LM (arXiv 1911.00172)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def mixture(logps: Sequence[np.ndarray], weights: Sequence[float | np.ndarray]) -> np.ndarray:
    """log of sum_k w_k p_k, token by token, in float64 (Eq. 8); a weight may differ from token to token."""
    with np.errstate(divide="ignore"):  # log 0 is -inf: a path that is not heard
        parts = [np.log(weight) + x.astype(np.float64) for weight, x in zip(weights, logps, strict=True)]
    return np.asarray(np.logaddexp.reduce(parts))


def interpolate(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """log(w_1 p_1 + w_2 p_2) from log-probabilities [n, V] and weights [n, 2] (Eq. 8)."""
    w = weights.log()
    return torch.logaddexp(first + w[:, :1], second + w[:, 1:])


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> float:
    """Jensen-Shannon divergence of two distributions [V], in nats."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    p, q = log_p.exp(), log_q.exp()
    return 0.5 * float((p * (log_p - log_m)).sum() + (q * (log_q - log_m)).sum())
