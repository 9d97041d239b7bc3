"""Lessons on a tiny model: what is learned, with which settings, and how near two results are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from spring.engine.forward import hidden_states
from spring.engine.lessons import Learned, Lesson
from spring.engine.lora import AdapterBank
from spring.engine.packing import pack_rows
from spring.engine.settings import Lora
from spring.engine.texts import Text
from spring.engine.training import train
from spring.method.scorers import Select
from spring.settings.train import Train

TARGETS = ("q_proj", "v_proj")
SELECT = Select(scorer="random", alpha=0, share=1, normalise="token")
# Runs with other batch shapes round differently (1e-7), and Adam's quotient m / sqrt(v) passes that on where
# a gradient is nearly zero: weights that move by 0.01 to 0.1 agree to 1e-5, a single odd one to 1e-4.
TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 2e-4}


def recipe(*, dropout: float = 0.0, **changes: Any) -> Train:
    lora = Lora(r=4, alpha=8, dropout=dropout, target_modules=TARGETS)
    values: dict[str, Any] = {"start": "base", "data": "current", "select": SELECT, "replay_share": 0.0}
    values |= {"lora": lora, "lr": 0.01, "weight_decay": 0.1, "warmup_ratio": 0.2, "epochs": 2}
    values |= {"batch_size": 3, "grad_clip": 0.5, "scope": "user", "online": None}
    values |= {"replay_draw": "uniform", "rule": None, "experts": None}
    return Train(**{**values, **changes})


def texts(*, count: int, seed: int, longest: int = 12) -> list[Text]:
    generator = np.random.default_rng(seed)

    def tokens() -> tuple[int, ...]:
        return tuple(generator.integers(0, 320, generator.integers(1, longest + 1)).tolist())

    return [Text(tokens(), tokens()) for _ in range(count)]


def lesson(number: int, *, count: int, start: Mapping[str, Tensor] | None = None) -> Lesson:
    return Lesson(texts(count=count, seed=number), start, seed=100 + number)


def some_state(model: Any, config: Train) -> dict[str, Tensor]:
    """An adapter that has learned something: B is not zero."""
    bank = AdapterBank(model, config.lora, slots=1)
    bank.flat.normal_(std=0.1, generator=torch.Generator().manual_seed(7))
    state = bank.state(0)
    bank.detach(model)
    return state


def learn(
    model: Any,
    lessons: Sequence[Lesson],
    config: Train,
    *,
    slots: int,
    budget: int = 10_000,
    checkpoint: bool = False,
) -> list[Learned]:
    bank = AdapterBank(model, config.lora, slots=slots)
    learned = train(model, bank, lessons, config, budget=budget, checkpoint=checkpoint)
    bank.detach(model)
    return learned


def allocated(model: Any, bank: AdapterBank, tokens: int) -> int:
    """Bytes that a pass over so many tokens holds for the backward pass."""
    row = [5 + i % 300 for i in range(tokens)]
    with bank.training(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        states = hidden_states(model, pack_rows([row], [0], device=model.device), bank, seeds=[0])
    assert states.requires_grad
    return sum(event.self_cpu_memory_usage for event in told.key_averages())


def assert_close(found: Learned, expected: Learned) -> None:
    assert found.lr == expected.lr
    assert found.tokens == expected.tokens
    np.testing.assert_allclose(found.loss, expected.loss, **TOLERANCE)
    np.testing.assert_allclose(found.grad_norm, expected.grad_norm, **TOLERANCE)
    for name, value in expected.state.items():
        torch.testing.assert_close(found.state[name], value, **TOLERANCE)


def moved(found: Learned, other: Learned) -> float:
    return max(float((found.state[name] - value).abs().max()) for name, value in other.state.items())


def collate(batch: Sequence[Text]) -> dict[str, Tensor]:
    """Right-padded rows; labels only at responses."""
    longest = max(len(text) for text in batch)

    def padded(rows: list[list[int]], value: int) -> Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded([list(t.prompt + t.response) for t in batch], 0),
        "attention_mask": padded([[1] * len(t) for t in batch], 0),
        "labels": padded([[-100] * len(t.prompt) + list(t.response) for t in batch], -100),
    }
