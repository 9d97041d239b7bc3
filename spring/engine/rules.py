"""What a method of continual learning changes about the training of one slot.

Its settings (a block of `train.rule`, spring/rivals/) begin one `Rule` per lesson; the training loop calls
the rule and knows no method. Tensors are [P], all parameters of a slot in the layout of `AdapterBank.flat`;
R is the rank, D and D' the widths of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Start:
    """A slot before its first step."""

    weights: Tensor  # [P], a view of the slot's row
    rank: int  # of the adapter that was put there; 0: a fresh one
    carried: Mapping[str, Tensor]  # what the rule of the lesson before left, [P] each
    split: Callable[[Tensor], list[tuple[Tensor, Tensor]]]  # any [P] as A [R, D], B [D', R] of every layer


class Rule:
    """One lesson under a method; these defaults change nothing."""

    def penalise(self, weights: Tensor, grad: Tensor) -> float:
        """Adds the gradient of a penalty at `weights` to `grad`; gives the penalty. Before every step."""
        return 0.0

    def stepped(self, weights: Tensor) -> None:
        """After every step; may change `weights`."""

    def observe(self, grad: Tensor) -> None:
        """After the last step: gradient of one new text's mean NLL at the learned weights, no dropout."""

    def finish(self, weights: Tensor) -> dict[str, Tensor]:
        """Leaves in `weights` what answers; gives what the next lesson needs beside it, [P] each."""
        return {}


class Method(Protocol):
    """Settings of a method."""

    grows: ClassVar[bool]  # each period adds ranks to the adapter
    observes: ClassVar[bool]  # `Rule.observe` is called, which takes one more pass over the new texts
    carries: ClassVar[bool]  # `Rule.finish` leaves something beside the adapter

    def begin(self, start: Start) -> Rule:
        """The rule of one lesson; may change `start.weights`."""
        ...
