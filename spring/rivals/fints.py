"""Fints: a frozen model steered by vectors from the user's own past (arXiv 2510.27206). Faithful.

No gradients and no adapter of its own. After each period, for every train item (query, response) of a user:
  1. contrast pair: the user's own response ("chosen") against what the frozen model answers to the same query
     with `others` items of *other* users in its prompt ("rejected"); the pair is kept only if ROUGE-L of the
     two is below `rouge_below`, that is, if there is something personal in the difference;
  2. fine-grained vectors: at one layer, separately at the attention and at the MLP output, the mean
     activation over the chosen response's tokens minus that over the rejected one's: d [2, D].
For every query:
  3. input-aware aggregation: the `top_k` pairs of that user nearest to the query by sentence embeddings,
     weighted: s [2, D] = sum_i w_i d_i;
  4. "pulse and re-pulse": c * s_attn is added to the attention output and c * s_mlp to the MLP output, at
     every position of prompt and answer. The MLP reads a residual that is steered already.
It is a plug-in: retrieval, adapter and decoding of the arm stay as they are, and nothing but the answering
model is steered: drift scores, buffers and gates are those of the arm without it.

What is shared, by design: other users' train items stand in the prompt that the rejected answer is written
under, and with `behind: others` also in the one under which both answers are read. Only items earlier than
the query are drawn. Of all that only the vectors stay with the user; the rejected text is in the cell store.

Source: the paper, and the authors' code (github.com/KounianhuaDu/Fints) where the paper leaves it open.
[code] Both answers are read behind the prompt that holds the others' items (`behind`); for each of these a
       random user is drawn first. Not followed: 0.15 instead of 0.2 for headlines, two rejected answers per
       item, and an "attention" activation that includes the residual it is added to.
[ours] The layer is the same share of the model's depth; c = 1. Rejected answers are greedy, under the arm's
       own repetition penalty and length. The means leave the end of turn out. Embeddings are the project's
       (the code: Contriever), of query and response on the one side and the query on the other. `distance` is
       the cosine distance, and its weights are brought to sum one. An item for which no other user has an
       earlier one, or whose pair is not kept, gives no vector; a query of a user without vectors is not
       steered. `read: last-token` takes the end of the contrast prompt (query and answer): at the end of the
       query alone both answers would give the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from spring.engine.strict import PositiveInt, PositiveShare, Strict, added

TEMPERATURE = 0.1  # of `softmax`
EXTRACTION = {"method", "others", "rouge_below", "layer", "read", "behind"}
Floats = NDArray[np.floating[Any]]


class Fints(Strict):
    """Steering vectors and their use: the block `steer` of an arm."""

    method: Literal["fints"]
    others: PositiveInt = 5  # K, items of other users that the rejected answer is given
    rouge_below: PositiveShare = 0.2  # ROUGE-L F1; a pair is kept only below it
    layer: Annotated[float, Field(ge=0, lt=1)] = 23 / 32  # as a share of the model's depth
    read: Literal["answer-mean", "last-token"] = "answer-mean"
    behind: Literal["others", "query"] = "others"  # prompt behind which both answers are read
    top_k: PositiveInt = 5
    weights: Literal["uniform", "softmax", "distance"] = "uniform"
    c: float = 1.0  # below 0: away from the user, a control
    max_new_tokens: Annotated[PositiveInt | None, added(None)]  # of rejected answers; null: the arm's

    @field_validator("c")
    @classmethod
    def _steers(cls, c: float) -> float:
        if c == 0 or not math.isfinite(c):
            raise ValueError("must be a number other than 0; steer: null switches steering off")
        return c

    @property
    def extraction(self) -> dict[str, Any]:
        """The settings that vectors depend on; the others say how they are used."""
        return self.model_dump(mode="json", include=EXTRACTION)


def draw_others(item: str, pool: Mapping[str, Sequence[str]], *, k: int, seed: int) -> list[str]:
    """K items of `pool` (other user -> ids of earlier items) for the prompt of `item`'s rejected answer.

    Each time a random user first, then a random item of that user not drawn yet; fewer if there are fewer.
    Chance is a hash of the names, so that a user who comes or goes changes only the draws that they win.
    """

    def lot(number: int, name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{item}/{number}/{name}".encode()).digest()

    drawn: list[str] = []
    for number in range(k):
        for user in sorted(pool, key=lambda user: lot(number, user)):
            left = [name for name in pool[user] if name not in drawn]
            if left:
                drawn.append(min(left, key=lambda name: lot(number, name)))
                break
    return drawn


def contrast_rouge(chosen: str, rejected: str) -> float:
    """ROUGE-L F1 of the two answers; 1, so that the pair is never kept, where it cannot tell them apart.

    That is where the chosen one has no words, or the rejected one is empty: no answer.
    """
    from spring.measures.rouge import rouge

    found = float(rouge([(chosen, rejected)])["rougeL"][0])
    return found if rejected.strip() and not math.isnan(found) else 1.0


def uniform(similarity: Floats) -> Floats:
    """1/K each."""
    return np.full(len(similarity), 1 / len(similarity))


def softmax(similarity: Floats) -> Floats:
    """softmax(similarity / 0.1)."""
    powers = np.exp((similarity - similarity.max()) / TEMPERATURE)
    return np.asarray(powers / powers.sum())


def distance(similarity: Floats) -> Floats:
    """1 - cosine distance, at least 0, brought to sum one; uniform where nothing is near."""
    near = np.clip(similarity, 0, None)
    return near / near.sum() if near.sum() > 0 else uniform(similarity)


WEIGHTS: dict[str, Callable[[Floats], Floats]] = {
    "uniform": uniform,
    "softmax": softmax,
    "distance": distance,
}


def aggregate(similarity: Floats, vectors: Floats, settings: Fints) -> Floats:
    """c * s [2, D] from similarities [N] to the query and vectors [N, 2, D], oldest first; ties: latest."""
    best = np.lexsort((-np.arange(len(similarity)), -similarity))[: settings.top_k]
    weights = WEIGHTS[settings.weights](similarity[best].astype(np.float64))
    return np.asarray(settings.c * np.einsum("n,nsd->sd", weights, vectors[best]), dtype=np.float32)
