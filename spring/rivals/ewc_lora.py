"""EWC on LoRA parameters: what mattered before is held where it was.

Source: elastic weight consolidation, Kirkpatrick et al., arXiv 1612.00796; one running Fisher for all
earlier periods as in online EWC, Schwarz et al., arXiv 1805.06370. On the parameters of a LoRA adapter it
is a baseline of SPRInG's comparison, whose settings are not published. -style. P parameters of one user's
adapter.

    L(theta)    = NLL + lmbda / 2 * sum_i F_i (theta_i - theta*_i)^2     theta*: values after the last period
    F^(t)       = gamma * F^(t-1) + mean over the period's texts of (d NLL / d theta)^2 at theta^(t)

The Fisher is the empirical one: gradients at the user's own responses, not at sampled ones.

[ours] NLL is the mean per response token, in the Fisher as in the loss. gamma = 1: no earlier period fades.
lmbda = 1000 in suites/compare.yaml: on the default model the Fisher of a period sums to about 0.7 and
parameters move by hundredths, so that the penalty comes to 0.1 nats after one period and 0.4 after four. With
NLL per token, squared gradients are smaller by the square of the length than those of whole sequences, for
which others give their lmbda.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from spring.engine.rules import Rule, Start
from spring.engine.strict import Share, Strict

if TYPE_CHECKING:
    from torch import Tensor


class EwcLora(Strict):
    """`train.rule` of EWC."""

    method: Literal["ewc-lora"]
    lmbda: Annotated[float, Field(gt=0)]  # weight of the penalty
    gamma: Share  # what is left of the Fisher of earlier periods

    grows: ClassVar[bool] = False
    observes: ClassVar[bool] = True
    carries: ClassVar[bool] = True

    def begin(self, start: Start) -> Rule:
        """A lesson that is held near where it starts; a first one is free."""
        return Consolidation(self, start)


class Consolidation(Rule):
    """One lesson of EWC."""

    def __init__(self, settings: EwcLora, start: Start) -> None:
        self.lmbda, self.gamma = settings.lmbda, settings.gamma
        self.anchor = start.weights.clone()  # theta* [P]
        self.past = start.carried["fisher"] if start.rank else None  # F^(t-1) [P]
        self.squares = start.weights.new_zeros(start.weights.shape)
        self.texts = 0

    def penalise(self, weights: Tensor, grad: Tensor) -> float:
        """lmbda / 2 * sum_i F_i (theta_i - theta*_i)^2, and its gradient lmbda * F (theta - theta*)."""
        if self.past is None:
            return 0.0
        moved = weights - self.anchor
        grad.addcmul_(self.past, moved, value=self.lmbda)
        return self.lmbda / 2 * float((self.past * moved * moved).sum())

    def observe(self, grad: Tensor) -> None:
        """One text's part in the Fisher."""
        self.squares.addcmul_(grad, grad)
        self.texts += 1

    def finish(self, weights: Tensor) -> dict[str, Tensor]:
        """The running Fisher."""
        fisher = self.squares / self.texts
        return {"fisher": fisher if self.past is None else self.gamma * self.past + fisher}
