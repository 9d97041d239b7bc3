"""SuRe: the most surprising past items are replayed; a fast adapter learns, a slow one answers.

Source: Hazard et al., arXiv 2511.22367. -style. Two parts. The buffer keeps the items of the highest NLL:
that is `memory.policy: loss` with `train.replay_share`. The dual learner is here: after every step of the
fast adapter

    slow <- decay * slow + (1 - decay) * fast

on the parameters A and B themselves. Both start alike. The slow one answers, scores and is saved as the
adapter; the fast one, saved beside it, is where the next period's training goes on.

[ours] surprise is the NLL under the slow adapter after the period's training. decay = 0.5: averages over
the last two steps or so, where a period of a short history has five to twenty; the source has long tasks.
Chosen on held-out items (docs/results.md): with 0.9 the slow adapter is hardly there yet when a period
ends. replay_share = 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from spring.engine.rules import Rule, Start
from spring.engine.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


class Surprise(Strict):
    """`train.rule` of SuRe's dual learner."""

    method: Literal["surprise"]
    decay: Annotated[float, Field(ge=0, lt=1)]  # of the slow adapter, per step; 0: it is the fast one

    grows: ClassVar[bool] = False
    observes: ClassVar[bool] = False
    carries: ClassVar[bool] = True

    def begin(self, start: Start) -> Rule:
        """A lesson that goes on from the fast adapter, with the slow one following."""
        return DualLearner(self, start)


class DualLearner(Rule):
    """One lesson of the fast adapter; `slow` [P] follows it."""

    def __init__(self, settings: Surprise, start: Start) -> None:
        self.decay = settings.decay
        self.slow = start.weights.clone()
        if start.rank:
            start.weights.copy_(start.carried["fast"])

    def stepped(self, weights: Tensor) -> None:
        """The moving average."""
        self.slow.lerp_(weights, 1 - self.decay)

    def finish(self, weights: Tensor) -> dict[str, Tensor]:
        """The slow adapter answers, the fast one is carried on."""
        fast = weights.clone()
        weights.copy_(self.slow)
        return {"fast": fast}
