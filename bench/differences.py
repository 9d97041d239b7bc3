"""How far two sides of a comparison are apart; what is no number is infinitely far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

FAR = 1e9
Weights = Mapping[str, Tensor]


def apart_in_logp(found: Sequence[np.ndarray], expected: Sequence[Any]) -> float:
    """The largest difference of a token's log p, nats; arrays or tensors [n] of each text."""
    pairs = zip(found, expected, strict=True)
    most = max(float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max()) for a, b in pairs)
    return most if math.isfinite(most) else FAR


def apart_in_weights(one: Weights, other: Weights, start: Weights) -> float:
    """How far two trained adapters are apart, over how far the first went from its start."""
    between = sum(float((one[name] - other[name]).square().sum()) for name in one)
    way = sum(float((one[name] - start[name]).square().sum()) for name in one)
    return math.sqrt(between / way) if way > 0 and math.isfinite(between) else FAR
