"""Decoding: queries to ask, adapters to ask them with, and the reference without a cache."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch

from spring.engine.budget import Room
from spring.engine.decoding import generate
from spring.engine.lora import AdapterBank
from spring.engine.queries import Answer, Join, Query
from spring.engine.settings import Decoding, Lora
from spring.method.mixing import Adaptive, Mixture

LORA = Lora(r=4, alpha=12, dropout=0.3, target_modules=("q_proj", "v_proj"))
NONE: frozenset[int] = frozenset()
Setup = tuple[Any, AdapterBank, dict[int, Any]]  # model, bank, and the plain model of every slot


def decode(
    *,
    penalty: float = 1.2,
    most: int = 12,
    adaptive: Adaptive | None = None,
    confidence: Literal["entropy", "max-probability"] | None = None,
    rule: Join | None = None,
) -> Decoding:
    join = rule or Mixture(confidence=confidence, adaptive=adaptive)
    return Decoding(repetition_penalty=penalty, max_new_tokens=most, join=join)


def queries(*, count: int = 9, seed: int = 0) -> list[Query]:
    """Prompts of 1 to 30 tokens; open and closed gates; base rows and two adapters."""
    generator = np.random.default_rng(seed)
    found = []
    for i in range(count):
        prompt = tuple(generator.integers(0, 320, generator.integers(1, 15)).tolist())
        context = tuple(generator.integers(0, 320, generator.integers(1, 16)).tolist()) + prompt
        found.append(
            Query(prompt, context if i % 3 else None, [0.5, 0.3, 0.9, 0.0, 1.0][i % 5], i % 4 % 3 - 1)
        )
    return found


def random_bank(model: Any) -> AdapterBank:
    bank = AdapterBank(model, LORA, slots=2)
    bank.flat.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    return bank


def merged(model: Any, bank: AdapterBank, slot: int) -> Any:
    """A plain model with one slot's update added to its weights: W + B A alpha / r."""
    for name, layer in bank.layers.items():
        update = layer.b[slot].detach() @ layer.a[slot].detach() * 3
        linear = model.get_submodule(name)
        linear.weight += update if isinstance(linear, torch.nn.Linear) else update.T  # GPT-2's Conv1D
    return model


def run(
    setup: Setup,
    asked: Sequence[Query],
    settings: Decoding,
    *,
    stop: Collection[int] = NONE,
    room: int = 10_000,
    budget: int = 4096,
) -> list[Answer]:
    model, bank, _ = setup
    return generate(model, bank, asked, settings, stop=stop, room=Room(room), budget=budget)


# --- the reference ----------------------------------------------------------------------------------------


def next_distribution(model: Any, row: Sequence[int]) -> np.ndarray:
    """p [V] of the token after `row`, in float64."""
    with torch.no_grad():
        return model(torch.tensor([list(row)])).logits[0, -1].double().softmax(0).numpy()


def mixed(p: np.ndarray, q: np.ndarray, lmbda: float, by: str | None) -> np.ndarray:
    """(1 - w) p + w q; w is lambda, or follows how sure p and q are."""
    sure = [1.0, 1.0]
    if by == "entropy":
        sure = [1 + float((x * np.log(x)).sum()) / math.log(len(x)) for x in (p, q)]
    elif by == "max-probability":
        sure = [float(x.max()) for x in (p, q)]
    w = lmbda * sure[1] / (lmbda * sure[1] + (1 - lmbda) * sure[0])
    return w * q + (1 - w) * p


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    m = (p + q) / 2
    return float((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / 2


def reference(
    model: Any, query: Query, settings: Decoding, stop: Collection[int] = NONE
) -> tuple[list[int], int]:
    """Tokens, and rows read: no cache, a mixture of probabilities, then the penalty, then the argmax."""
    tokens: list[int] = []
    rows = agreed = 0
    single = query.context_prompt is None
    while len(tokens) < settings.max_new_tokens:
        mixture = p = next_distribution(model, [*query.prompt, *tokens])
        if query.context_prompt is not None and not single:
            q = next_distribution(model, [*query.context_prompt, *tokens])
            mixture = mixed(p, q, query.lmbda, settings.join.confidence)
            if settings.join.adaptive is not None and 0 < query.lmbda < 1:
                agreed = agreed + 1 if divergence(p, q) < settings.join.adaptive.threshold else 0
        rows += 1 if single or query.lmbda in (0, 1) else 2
        score = np.log(mixture)
        score[list(set(tokens))] *= settings.repetition_penalty
        token = int(score.argmax())
        if token in stop:
            break
        tokens.append(token)
        if settings.join.adaptive is not None and agreed >= settings.join.adaptive.patience:
            single = True
    return tokens, rows
