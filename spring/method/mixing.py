"""Interpolated generation (Eq. 7, 8): one next-token distribution from a path with and one without context.

Notation: n tokens, V vocabulary; p_par is the path without context, p_ret the one with it, both through the
same adapted model (Eq. 7).

[paper] p_fin = lambda p_ret + (1 - lambda) p_par: a mixture of probabilities, as in kNN-LM (arXiv
1911.00172), not of logits. Lambda 0 and 1 are single paths.

[ours] `confidence`: each path is heard by how sure it is at this token. With confidences c in [0, 1] the
weight of the retrieval path is

    w = lambda c_ret / (lambda c_ret + (1 - lambda) c_par)

so that equally sure paths are mixed with lambda itself, lambda 0 and 1 stay single paths, and a path that
knows nothing (c = 0) is not heard. Where neither knows anything, w = lambda.

[ours] `adaptive`: the path with context is dropped once both have agreed for some tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from spring.engine.queries import Query, Route
from spring.engine.strict import PositiveInt, Strict

if TYPE_CHECKING:
    from torch import Tensor

Confidence = Literal["entropy", "max-probability"]


class Adaptive(Strict):
    """Drop the second path once both distributions agree [ours]."""

    threshold: Annotated[float, Field(gt=0, le=0.7)]  # Jensen-Shannon divergence, nats, at most ln 2
    patience: PositiveInt  # tokens in a row


class Mixture(Strict):
    """The mixture of both paths (Eq. 8), a `Join` of the engine."""

    confidence: Confidence | None = None
    adaptive: Adaptive | None = None
    whole: ClassVar[bool] = False

    @property
    def sure(self) -> Callable[[Tensor], Tensor] | None:
        """How sure a path is; null: it counts as lambda says."""
        return CONFIDENCES[self.confidence] if self.confidence else None

    @property
    def patience(self) -> int | None:
        """Of `adaptive`."""
        return self.adaptive.patience if self.adaptive else None

    def routes(self, query: Query) -> list[Route]:
        """Without context and with it, or the only one that counts."""
        return [Route(query.slot, prompt, weight) for prompt, weight in query.paths]

    def choose(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        """log p_fin of the next token. log p [n, V] of both paths, weights [n, 2] -> [n, V]."""
        if self.sure is not None:
            import torch

            weights = heard(weights, torch.stack([self.sure(first), self.sure(second)], 1))
        return interpolate(first, second, weights)

    def judge(self, first: Tensor, second: Tensor) -> Tensor:
        """Not asked: the mixture of a reference's tokens needs nothing else of the distributions."""
        raise NotImplementedError

    def mix(
        self, logps: Sequence[np.ndarray], sure: Sequence[np.ndarray], weights: Sequence[float]
    ) -> np.ndarray:
        """log p_fin [n] of a reference's tokens, from log p and confidence [n] of one or both paths."""
        if self.confidence is None or len(weights) == 1:
            return mixture(logps, list(weights))
        import torch

        at = torch.from_numpy(np.stack(sure, 1)).double()  # [n, 2]
        return mixture(logps, list(heard(torch.tensor(weights, dtype=torch.float64), at).numpy().T))

    def agree(self, first: Tensor, second: Tensor) -> bool:
        """Whether the distributions [V] are as near as `adaptive` asks."""
        return self.adaptive is not None and jensen_shannon(first, second) < self.adaptive.threshold


def mixture(logps: Sequence[np.ndarray], weights: Sequence[float | np.ndarray]) -> np.ndarray:
    """log of sum_k w_k p_k, token by token, in float64 (Eq. 8); a weight may differ from token to token."""
    with np.errstate(divide="ignore"):  # log 0 is -inf: a path that is not heard
        parts = [np.log(weight) + x.astype(np.float64) for weight, x in zip(weights, logps, strict=True)]
    return np.asarray(np.logaddexp.reduce(parts))


def interpolate(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """log(w_1 p_1 + w_2 p_2) from log-probabilities [n, V] and weights [n, 2] (Eq. 8)."""
    w = weights.log()
    return (first + w[:, :1]).logaddexp(second + w[:, 1:])


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> float:
    """Jensen-Shannon divergence of two distributions [V], in nats."""
    log_m = log_p.logaddexp(log_q) - math.log(2)
    p, q = log_p.exp(), log_q.exp()
    return 0.5 * float((p * (log_p - log_m)).sum() + (q * (log_q - log_m)).sum())


# --- how sure a path is [ours] ----------------------------------------------------------------------------


def entropy_confidence(logp: Tensor) -> Tensor:
    """1 - H(p) / ln V: 1 for a certain token, 0 for the uniform distribution. [n, V] -> [n]."""
    entropy = -logp.exp().xlogy(logp.exp()).sum(-1)
    return (1 - entropy / math.log(logp.shape[-1])).clamp(0, 1)


def max_confidence(logp: Tensor) -> Tensor:
    """Probability of the most probable token. [n, V] -> [n]."""
    return logp.max(-1).values.exp()


CONFIDENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy_confidence,
    "max-probability": max_confidence,
}


def heard(weights: Tensor, confidences: Tensor) -> Tensor:
    """Weights of the paths after their confidences: both [..., paths], weights sum to 1 before and after."""
    scaled = weights * confidences
    total = scaled.sum(-1, keepdim=True)
    tiny = float(np.finfo(str(total.dtype).removeprefix("torch.")).tiny)
    return (scaled / total.clamp(min=tiny)).where(total > 0, weights)
