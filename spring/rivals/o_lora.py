"""O-LoRA: every period learns in a subspace of its own, orthogonal to the earlier ones.

Source: Wang et al., arXiv 2310.14152. Faithful: old adapters frozen, the new one beside them from a fresh
start, all of them summed; L = NLL + lambda1 * sum over layers and entries of |A_old A_new^T| with lambda1 =
0.5 (the sum of absolute values is that of the published code; its second weight, on the norm of the new
adapter, is 0 there and left out). R rank of one period's adapter, D width, t period from 0.

[ours] Rank, modules, optimizer and learning rate are the arm's. At the rate of params.yaml, ten times the
paper's, and a handful of steps, A follows the penalty more than the loss; `o-lora-0` shows what it costs.

An adapter of period t is one of rank R (t + 1), the older periods' ranks first: sum_i B_i A_i is one
product of the A stacked by rows and the B by columns. lora_alpha grows alike, so that alpha / r, the weight
of each period's part, stays the same. So it lies in one PEFT folder, and there is no state beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from spring.engine.rules import Rule, Start
from spring.engine.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


class OLora(Strict):
    """`train.rule` of O-LoRA."""

    method: Literal["o-lora"]
    lambda1: Annotated[float, Field(ge=0)]  # weight of the overlap; 0: old adapters are frozen, no more

    grows: ClassVar[bool] = True
    observes: ClassVar[bool] = False
    carries: ClassVar[bool] = False

    def begin(self, start: Start) -> Rule:
        """A lesson in which the first `start.rank` ranks are frozen."""
        return OrthogonalLesson(self, start)


class OrthogonalLesson(Rule):
    """One lesson of O-LoRA; in the first period an ordinary one."""

    def __init__(self, settings: OLora, start: Start) -> None:
        self.lambda1, self.old, self.split = settings.lambda1, start.rank, start.split
        self.kept = start.weights.clone()

    def penalise(self, weights: Tensor, grad: Tensor) -> float:
        """lambda1 * sum |A_old A_new^T|; gradient lambda1 * sign(A_new A_old^T) A_old; none for the old."""
        overlaps = weights.new_zeros(())
        for (a, _), (grad_a, grad_b) in zip(self.split(weights), self.split(grad), strict=True):
            old, new = a[: self.old], a[self.old :]  # [R t, D], [R, D]
            overlap = new @ old.T  # [R, R t]
            overlaps += overlap.abs().sum()
            grad_a[self.old :] += self.lambda1 * overlap.sign() @ old
            grad_a[: self.old] = 0
            grad_b[:, : self.old] = 0
        return self.lambda1 * float(overlaps)

    def stepped(self, weights: Tensor) -> None:
        """Takes back what weight decay did to the old adapters."""
        for (a, b), (kept_a, kept_b) in zip(self.split(weights), self.split(self.kept), strict=True):
            a[: self.old] = kept_a[: self.old]
            b[:, : self.old] = kept_b[:, : self.old]
