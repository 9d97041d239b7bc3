"""What a method of `train.online` is told of a user's period, and what it answers: the lesson's turns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spring.engine.strict import Strict
from spring.engine.turns import Turn

if TYPE_CHECKING:
    from spring.rivals.asls import Profiling


@dataclass(frozen=True)
class Stream:
    """The N interactions of one user and period that are learned, in time order."""

    rows: Sequence[Mapping[str, Any]]  # with `rating`, and `logp` and `tokens` under the base model
    drifts: Sequence[float] | None  # [N], relative to the user's profile; null: the method asks for none
    seed: int  # of this user and period


class OnlineMethod(Strict):
    """Settings of a method that learns text by text; all lessons of all users run side by side."""

    @property
    def profiling(self) -> Profiling | None:
        """How the profile moves that drifts are measured against; null: none is needed."""
        return None

    @abstractmethod
    def turns(self, stream: Stream) -> list[Turn]:
        """Which texts are learned, in which order, for how many steps, at which weight and rate."""
