"""What responses are generated from, how the paths of a query become one, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Query:
    """What one response is generated from, as token ids.

    `prompt` is the query alone, `context_prompt` the query with its retrieved context (null: there is none).
    `lmbda` is the weight of the second. The likelihood of `reference` is found on the way. `steer` numbers
    the vectors that both paths are steered by (-1: none).
    """

    prompt: tuple[int, ...]
    context_prompt: tuple[int, ...] | None
    lmbda: float
    slot: int = -1
    reference: tuple[int, ...] = ()
    steer: int = -1

    @property
    def paths(self) -> list[tuple[tuple[int, ...], float]]:
        """Prompts that are read, with their weights: one or two; a path of weight 0 is none."""
        if self.context_prompt is None or self.lmbda == 0:
            return [(self.prompt, 1.0)]
        if self.lmbda == 1:
            return [(self.context_prompt, 1.0)]
        return [(self.prompt, 1 - self.lmbda), (self.context_prompt, self.lmbda)]


class Route(NamedTuple):
    """One path of a query: the slot that reads it, its prompt and its weight."""

    slot: int
    prompt: tuple[int, ...]
    weight: float


class Join(Protocol):
    """How the next-token distributions of a query's one or two paths become one.

    Log-probabilities are in nats; n tokens, V vocabulary.
    """

    @property
    def whole(self) -> bool:
        """Whether references are judged by whole distributions (`judge`); else by log p alone (`mix`)."""
        ...

    @property
    def sure(self) -> Callable[[Tensor], Tensor] | None:
        """How sure a path is, from its log p [n, V] -> [n] in [0, 1]; null: `mix` does not ask."""
        ...

    @property
    def patience(self) -> int | None:
        """The second path is dropped after so many tokens in a row on which both agree; null: never."""
        ...

    def routes(self, query: Query) -> list[Route]:
        """The paths of a query, one or two, in the order of the other methods' arguments."""
        ...

    def choose(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        """log p [n, V] of the next token from those of both paths [n, V] and the routes' weights [n, 2]."""
        ...

    def judge(self, first: Tensor, second: Tensor) -> Tensor:
        """log p [n, V] by which the tokens of a reference are judged, where `whole`."""
        ...

    def mix(
        self, logps: Sequence[np.ndarray], sure: Sequence[np.ndarray], weights: Sequence[float]
    ) -> np.ndarray:
        """log p [n] of a reference's tokens from those along each path, and how sure each is there [n]."""
        ...

    def agree(self, first: Tensor, second: Tensor) -> bool:
        """Whether the paths agree on this token, log p [V] each."""
        ...


# slot and steer, prompt, reference; equal ones are read once
Read = tuple[tuple[int, int], tuple[int, ...], tuple[int, ...]]


@dataclass
class Answer:
    """Generated token ids without the stop token, what they cost, and the reference's likelihood."""

    tokens: list[int] = field(default_factory=list)
    row_steps: int = 0  # rows decoded over all steps: 2 per token with an open gate, else 1
    seconds: float = 0.0  # its share of the wall time of the batches it was in, the reference aside
    reference_seconds: float = 0.0  # the same for the reference
    reference: np.ndarray = field(
        default_factory=lambda: np.zeros(0)
    )  # log p per token (nats), of the paths made one
