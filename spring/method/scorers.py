"""The scorers: what makes an interaction of a new period worth learning. The highest scores are learned.

A scorer is a function of a `Batch` alone and gives [N] numbers. A new one is a function in a file of its own
and a line in `SCORERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from spring.engine.strict import PositiveShare, Strict
from spring.method.drift import Batch, Floats, Normalise, drift_score, loss
from spring.method.registry import Reads, one_of


def likelihood_score(batch: Batch) -> Floats:
    """The paper's score (Eq. 1)."""
    return drift_score(
        logp_base=batch.logp_base,
        logp_adap=batch.logp_adap,
        tokens=batch.tokens,
        alpha=batch.alpha,
        normalise=batch.normalise,
    )


def bottom_score(batch: Batch) -> Floats:
    """The paper's score upside down: a control that learns what the method would leave out [ours]."""
    return -likelihood_score(batch)


def loss_score(batch: Batch) -> Floats:
    """Plain loss under the previous adapter, a control [ours]."""
    return loss(logp_adap=batch.logp_adap, tokens=batch.tokens, normalise=batch.normalise)


def random_score(batch: Batch) -> Floats:
    """Uniform numbers, a control [ours]."""
    return np.random.default_rng(batch.seed).random(len(batch.tokens))


def embedding_score(batch: Batch) -> Floats:
    """One minus the cosine to the mean embedding of the user's past, in [0, 2].

    From the blog account of the method, which looks for drift in embeddings. `ValueError` without a past or
    where a cosine is undefined.
    """
    assert batch.embeddings is not None and batch.past_embeddings is not None, "embeddings are needed"
    items, past = np.asarray(batch.embeddings, float), np.asarray(batch.past_embeddings, float)
    if len(past) == 0:
        raise ValueError(
            "scorer `embedding` compares with the user's past, and there is none: start at period 1"
        )
    centre = past.mean(axis=0)
    lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(centre)
    if (undefined := np.flatnonzero(lengths == 0)).size:
        raise ValueError(
            f"scorer `embedding`: the cosine of row {undefined[0]} to the past is undefined (length 0)"
        )
    return 1 - items @ centre / lengths


@dataclass(frozen=True)
class Scorer:
    """A score, and what of the `Batch` it reads beside `tokens`: that is paid for, and embedded."""

    score: Callable[[Batch], Floats]
    reads: tuple[Reads, ...] = ()


SCORERS: dict[str, Scorer] = {
    "likelihood": Scorer(likelihood_score, reads=("base", "adapter")),
    "loss": Scorer(loss_score, reads=("adapter",)),
    "embedding": Scorer(embedding_score, reads=("embeddings",)),
    "random": Scorer(random_score),
    "bottom": Scorer(bottom_score, reads=("base", "adapter")),
}


class Select(Strict):
    """Drift score and selection (Eq. 1, 2)."""

    scorer: Annotated[str, one_of(SCORERS)]
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=True)]  # of the quality term; .inf: quality alone
    share: PositiveShare
    normalise: Normalise


def score(scorer: str, batch: Batch) -> Floats:
    """Scores each interaction of a new period by the scorer of that name. [N]."""
    return SCORERS[scorer].score(batch)
