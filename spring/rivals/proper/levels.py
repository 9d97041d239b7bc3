"""PROPER (ACL 2025, arXiv 2503.01303), -style: what everybody, what a group and what one person adds.

Three levels on the feed-forward projections (gate, up, down), each learned on top of the frozen ones before
it, so that it is left with what they did not explain:

    1 population   W' = W + s B_0 A_0, a LoRA of all users' train items of period 0
    2 group        h = W'x + sum_i g_i s B_i A_i x, N LoRA experts of the same items, mixed by a user-aware
                   router g = softmax(W_r [t ; e_u]), t the mean-pooled text, e_u the user's embedding; the
                   loss gains `constraint` times the experts' likeness (mean pairwise |cos| of B_i A_i)
    3 user         h = W'x + sum_i beta_i s B_i A_i x + s B_u A_u x, the user's own LoRA beside the frozen
                   experts, mixed by a LoRA-aware router beta = softmax(s W_l A_u x), per token

Levels 1 and 2 learn once, in period 0; level 3 learns in every period, from the user's adapter of the period
before. SHARED BY DESIGN: A_0, B_0, all A_i, B_i, W_r and the embeddings come from every user's train items
(no later than any test query of period 0, unless `scope` is transductive). A_u, B_u and W_l come from the
user's own and reach nobody else.

-style, because the source leaves these open; ours are [ours]:
- N = 4, r = 8 at every level, weight of the constraint 0.1, 3 epochs at level 1 and 2 at levels 2 and 3;
- the constraint is the mean over pairs of experts and over layers;
- t: input embeddings of the prompt's tokens (context included), their mean scaled to unit length: the same
  vector in training, scoring, the prefill and every step of decoding. W_r is a layer's own;
- e_u has 64 entries and starts at unit length too. Prompts of one task are nearly parallel, so with longer
  vectors one step of AdamW moves every score by nats, and all users end with the same one expert;
- a user who had no item at level 2 gets the mean embedding;
- W_l starts at 0 (every expert counts 1 / N) and moves little in a period's few steps; B_i and B_u start at
  0, A as in PEFT. s = alpha / r stands inside the second router too;
- W' is never written out: B_0 A_0 is applied beside the experts, in float32, so that W serves other arms;
- learning rate, batches, decay, clipping and dropout are those of the arm at all levels; at level 3 dropout
  acts on A_u x, which the user's own path and the router read.

The mixture in a batch of many users: spring/rivals/proper/banks.py. Levels 1 and 2: tasks/cells/levels.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spring.engine.strict import PositiveInt, Strict

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-20  # squared norm of an update below which it counts as zero


class Proper(Strict):
    """`train.experts`. Shares levels 1 and 2 between all users by design.

    level: where the arm stops. `population` and `group` learn nothing after period 0.
    """

    name: Literal["proper"]
    level: Literal["population", "group", "user"]
    scope: Literal["population", "population-transductive"]  # of the shared levels, as `train.scope`
    count: Annotated[int, Field(ge=2)]  # N
    constraint: Annotated[float, Field(ge=0)]  # weight of the experts' likeness in the loss of level 2
    user_embedding: PositiveInt  # entries of e_u
    population_epochs: PositiveInt
    group_epochs: PositiveInt


def user_aware(router: Tensor, text: Tensor, users: Tensor) -> Tensor:
    """g = softmax(W_r [t ; e_u]): router [L, N, D + E], text [B, D], users [B, E] -> [L, B, N]."""
    width = text.shape[1]
    scores = text @ router[..., :width].mT + users @ router[..., width:].mT
    return scores.softmax(-1)


def mixture(x: Tensor, a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i B_i A_i x: x [T, D], stacked A [N R, D] and B [D', N R], weights [T, N] -> [T, D']."""
    rank = len(a) // weights.shape[1]
    return ((x @ a.mT) * weights.repeat_interleave(rank, 1)) @ b.mT


def likeness(a: Tensor, b: Tensor, count: int) -> Tensor:
    """Mean pairwise |cos| of the updates B_i A_i, without making them; a fresh expert (B = 0) counts 0.

    <B_i A_i, B_j A_j> is the sum over (B_i^T B_j) * (A_i A_j^T), from A [N R, D] and B [D', N R].
    """
    rank = len(a) // count
    inner = ((a @ a.mT) * (b.mT @ b)).view(count, rank, count, rank).sum((1, 3))  # [N, N]
    norms = inner.diagonal().clamp(min=EPS).sqrt()
    cosines = (inner / (norms[:, None] * norms)).abs()
    return (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
