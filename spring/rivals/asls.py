"""ASLS: a profile and a small adapter per user, both updated after every interaction.

Source: "Adaptive Self-Supervised Learning Strategies for Dynamic On-Device LLM Personalization", arXiv
2409.16973. In its style, not a reproduction: the source names the two layers and their ablations and leaves
the essentials open. Its published evaluation is on image data sets and cannot be compared with.

User profiling layer     P_u <- (1 - rho) P_u + rho * w(feedback) * f(d_t)       f: a frozen sentence encoder
Neural adaptation layer  theta_u <- theta_u + eta * gradient                     after each interaction d_t

What the source has: the two updates, next-token loss over the user's own text, feedback as a weight of both,
and five ablations: profile alone (`train: null`), adaptation alone (`retrieve.profile: null` and `retune:
null`), feedback ignored (`feedback: null`), random sampling (`learn: random`), no dynamic retuning (`retune:
null`).

[ours] P starts at zero. f reads query and response. w is linear in the rating, `Profiling.feedback`. How the
profile acts: it ranks the user's own past interactions for the prompt beside the query (`Profiled`), and sets
the step: the learning rate of an interaction grows with its drift, its distance to the profile before it,
relative to the user's own mean distance so far (`drift_rate`). The adapter is a LoRA under AdamW, with fresh
moments each period as everywhere in this project; loss on the response after its query. Feedback weighs the
loss, so its effect under AdamW is relative to the weights of the steps before; clipping the gradient would
undo it, hence `grad_clip: null` in the suites. `learn: random` takes as many steps, each on an interaction
drawn from those of the period so far. Numbers, in the suites: rho 0.1 for both profiles, two steps an
interaction, drift within a third and three times the rate, which is `suite_values.asls_lr`; feedback is the
rating over 5; the profile is half of a memory's score, of four memories.

The test items of a period come after its train items: what answers is the state after all of them. Nothing is
shared between users. State of a user: adapter, profile [D] float32, two numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spring.engine.strict import PositiveInt, PositiveShare, Strict
from spring.engine.turns import Turn
from spring.rivals.online import OnlineMethod, Profiling, Rating, Stream

Floats = NDArray[np.float64]


class Profiled(Profiling):
    """`retrieve.profile`: score = (1 - weight) * Sim(query, h) + weight * cosine(profile, h)."""

    weight: PositiveShare

    @property
    def profiling(self) -> Profiling:
        """How the profile moves that memories are ranked by."""
        return Profiling(rho=self.rho, feedback=self.feedback)


class Retune(Strict):
    """Dynamic retuning."""

    rho: PositiveShare
    limit: Annotated[float, Field(gt=1, allow_inf_nan=False)]  # rates stay between its inverse and itself


class Asls(OnlineMethod):
    """`train.online`: the neural adaptation layer."""

    method: Literal["asls"]
    steps: PositiveInt  # after each interaction
    learn: Literal["each", "random"]
    feedback: Rating | None
    retune: Retune | None

    @property
    def profiling(self) -> Profiling | None:
        """Retuning measures drift against the profile; without it the adapter needs none."""
        if self.retune is None:
            return None
        return Profiling(rho=self.retune.rho, feedback=self.feedback)

    def turns(self, stream: Stream) -> list[Turn]:
        """Every interaction in time order, or as many drawn from those so far."""
        number = len(stream.rows)
        weights = [feedback_weight(row["rating"], self.feedback) for row in stream.rows]
        rates = [1.0] * number
        if self.retune is not None:
            assert stream.drifts is not None, "retuning asks for a profile"
            rates = [drift_rate(drift, limit=self.retune.limit) for drift in stream.drifts]
        places = np.arange(number)
        if self.learn == "random":
            places = np.random.default_rng(stream.seed).integers(0, places + 1)
        return [Turn(i, self.steps, weights[i], rates[i]) for i in places.tolist()]


def feedback_weight(rating: float | None, best: float | None) -> float:
    """w(feedback): the rating's share of `best`, in [0, 1]; 1 without a rating, or if feedback is ignored."""
    return 1.0 if rating is None or best is None else min(1.0, max(0.0, rating / best))


def drift_rate(drift: float, *, limit: float) -> float:
    """What a drift makes of the learning rate: the drift itself, within [1 / limit, limit]."""
    return min(limit, max(1 / limit, drift))


@dataclass(frozen=True)
class Profile:
    """P_u, and how far the user's interactions were from it so far."""

    vector: NDArray[np.float32]  # [D]
    mean: float = 0.0  # of the distances, each 1 - cosine, in [0, 2]
    count: int = 0  # of distances


def follow(
    profile: Profile, vectors: Any, weights: Sequence[float], *, rho: float
) -> tuple[Profile, list[float]]:
    """The profile after N interactions, and the drift of each: its distance over the mean of those before.

    vectors [N, D] of length 1, in time order. The drift is 1 where there is no distance or no mean yet.
    """
    vector, mean, count = profile.vector.astype(np.float64), profile.mean, profile.count
    drifts = []
    for item, weight in zip(np.asarray(vectors, dtype=np.float64), weights, strict=True):
        drift = 1.0
        if vector.any():
            distance = 1 - float(liking(vector, item[None])[0])
            drift = distance / mean if mean > 0 else 1.0
            mean, count = (mean * count + distance) / (count + 1), count + 1
        drifts.append(drift)
        vector = (1 - rho) * vector + rho * weight * item
    return Profile(vector.astype(np.float32), mean, count), drifts


def liking(vector: Any, items: Any) -> Floats:
    """Cosine of a profile [D] and each of N items [N, D]; 0 for a profile that is still zero. [N]."""
    vector, items = np.asarray(vector, dtype=np.float64), np.asarray(items, dtype=np.float64)
    lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(vector)
    return np.divide(items @ vector, lengths, out=np.zeros(len(items)), where=lengths > 0)
