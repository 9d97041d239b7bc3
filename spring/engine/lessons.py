"""What adapters are taught: lessons, and the batches that each step of one reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from spring.engine.optimizer import schedule
from spring.engine.settings import Learning
from spring.engine.texts import Text
from spring.engine.turns import Turn

Draw = Callable[[int, torch.Generator], Iterator[list[int]]]  # batch after batch, indices of so many items


class CountedDraw(Protocol):
    """A draw that knows how often each of the replayed texts was learned before this lesson."""

    @property
    def uses(self) -> tuple[int, ...]:
        """Times each was in a batch before."""
        ...

    def __call__(self, count: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Batch after batch, the indices of `count` replayed texts."""
        ...


@dataclass(frozen=True)
class Lesson:
    """What one adapter learns: its texts, where it starts, and its seed."""

    texts: Sequence[Text]
    start: Mapping[str, Tensor] | None  # null: a fresh adapter
    seed: int
    replay: Sequence[Text] = ()  # of the buffer; drawn into every batch by `replay_share`
    turns: Sequence[Turn] = ()  # text by text in this order; empty: seeded epochs of whole batches
    draw: Draw | None = None  # of what is replayed; null: uniformly
    carried: Mapping[str, Tensor] = field(default_factory=dict)  # left by the rule of the lesson before, [P]


@dataclass(frozen=True)
class Learned:
    """A trained adapter under PEFT's names, and its learning curve, one entry per step."""

    state: dict[str, Tensor]
    loss: list[float]  # mean NLL per response token of the step's batch, times the batch's weight
    lr: list[float]
    grad_norm: list[float]  # before clipping
    tokens: int  # prompt and response tokens seen
    penalty: list[float] = field(default_factory=list)  # of `train.rule`, before each step
    carried: dict[str, Tensor] = field(default_factory=dict)  # for the rule of the next lesson, [P] each


@dataclass(frozen=True)
class Batch:
    """The texts of one optimizer step."""

    texts: list[Text]
    weight: float  # of their loss
    rate: float  # share of the learning rate


def plan(lesson: Lesson, config: Learning) -> list[Batch]:
    """All steps of a lesson: its turns, or its epochs at equal weight under the schedule."""
    if lesson.turns:
        assert not lesson.replay, "params refuse replay beside an order of the lesson's own"
        return [
            Batch([lesson.texts[turn.text]], turn.weight, turn.rate)
            for turn in lesson.turns
            for _ in range(turn.steps)
        ]
    batches = plan_batches(lesson, config)
    return [
        Batch(texts, 1.0, schedule(step, len(batches), config.warmup_ratio))
        for step, texts in enumerate(batches)
    ]


def plan_batches(lesson: Lesson, config: Learning) -> list[list[Text]]:
    """Whole batches: each epoch has every text once, in seeded order, and replayed texts beside."""
    generator = torch.Generator().manual_seed(lesson.seed)
    replayed = round(config.replay_share * config.batch_size) if lesson.replay else 0
    fresh = config.batch_size - replayed
    assert fresh > 0, "params refuse a replay share that leaves no room for new items"
    draws = (lesson.draw or uniform(len(lesson.replay)))(replayed, generator) if replayed else None
    batches = []
    for _ in range(config.epochs):
        order = torch.randperm(len(lesson.texts), generator=generator).tolist()
        for start in range(0, len(order), fresh):
            batch = [lesson.texts[i] for i in order[start : start + fresh]]
            drawn = next(draws) if draws is not None else []
            batches.append(batch + [lesson.replay[i] for i in drawn])
    return batches


def uniform(items: int) -> Draw:
    """Draws from so many items, each as likely as the others."""

    def draw(count: int, generator: torch.Generator) -> Iterator[list[int]]:
        while True:
            yield torch.randperm(items, generator=generator)[:count].tolist()

    return draw
