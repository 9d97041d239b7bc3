"""What responses are generated from, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from spring.settings.arm import Rule


@dataclass(frozen=True)
class Query:
    """What one response is generated from, as token ids.

    `prompt` is the query alone, `context_prompt` the query with its retrieved context (null: the gate is
    closed). `lmbda` is the weight of the second. The likelihood of `reference` is found on the way. `steer`
    numbers the vectors that both paths are steered by (-1: none).
    """

    prompt: tuple[int, ...]
    context_prompt: tuple[int, ...] | None
    lmbda: float
    slot: int = -1
    reference: tuple[int, ...] = ()
    steer: int = -1

    @property
    def paths(self) -> list[tuple[tuple[int, ...], float]]:
        """Prompts that the mixture decodes, with their weights: one or two."""
        if self.context_prompt is None or self.lmbda == 0:
            return [(self.prompt, 1.0)]
        if self.lmbda == 1:
            return [(self.context_prompt, 1.0)]
        return [(self.prompt, 1 - self.lmbda), (self.context_prompt, self.lmbda)]


class Route(NamedTuple):
    """One path of a query: the slot that reads it, its prompt and its weight in the mixture."""

    slot: int
    prompt: tuple[int, ...]
    weight: float


def routes(query: Query, rule: Rule | None) -> list[Route]:
    """The paths of a query, one or two, in the order that `rule` takes them; null: the mixture."""
    if rule is None:
        return [Route(query.slot, prompt, weight) for prompt, weight in query.paths]
    return [Route(slot, prompt, 1.0) for slot, prompt in rule.paths(query)]


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
    )  # log p per token (nats), of the mixture or under the rule
