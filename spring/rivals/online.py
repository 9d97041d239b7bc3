"""What a method of `train.online` is told of a user's period, and what it answers: the lesson's turns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from spring.engine.strict import PositiveShare, Strict
from spring.engine.turns import Turn

Rating = Annotated[float, Field(gt=0)]


class Profiling(Strict):
    """How a profile moves."""

    rho: PositiveShare  # weight of the new interaction
    feedback: Rating | None  # the rating that weighs 1; null: feedback is ignored


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
