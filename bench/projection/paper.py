"""Larger experiments on paper: the least work of bench/work.py for a larger model on a GPU.

Nothing here was run: numbers of the GPU are its data sheet's, prices an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.machine import Limits
from bench.work import Shape, decoding_seconds

GEMMA = Shape(  # google/gemma-3-4b-it, text part; LoRA of rank 8 on q and v
    linear=34 * (2560 * 2048 * 2 + 2 * 2560 * 1024 + 3 * 2560 * 10240),
    head=2560 * 262144,
    layers=34,
    heads=8,
    kv_heads=4,
    head_dim=256,
    lora=34 * 8 * ((2560 + 2048) + (2560 + 1024)),
    itemsize=2,
)
H100 = Limits(
    flops=650e12, bytes=3.0e12
)  # of 989 TFLOP/s and 3.35 TB/s: what large products and copies reach
DOLLARS_PER_HOUR = 3.0
IN_FLIGHT = 256  # rows decoded together


@dataclass(frozen=True)
class Task:
    """A user's stream: interactions of all periods, tokens of a prompt, a response, a retrieved context."""

    interactions: int
    prompt: int
    response: int
    context: int
    generated: int


ABSTRACTS = Task(interactions=120, prompt=40, response=220, context=560, generated=300)
REVIEWS = Task(interactions=40, prompt=150, response=280, context=860, generated=300)
PERIODS, SHARE, EPOCHS, CAPACITY = 5, 0.3, 2, 50


def operations(task: Task, *, periods: int, first: bool) -> dict[str, float]:
    """Operations per user: scoring (base, drift, consolidation) and training of `periods` periods."""
    items = task.interactions / PERIODS * 0.9
    tokens, answer = task.prompt + task.response, task.response
    forward, backward = GEMMA.forward(tokens, answer), GEMMA.backward(tokens, answer)
    stream = periods - first  # the first period trains on everything and scores no drift
    scored = periods * items + stream * (items + SHARE * items + CAPACITY * 0.7)
    learned = EPOCHS * (first * items + stream * SHARE * items)
    return {"score": scored * forward, "train": learned * (forward + backward)}


def generation_seconds(task: Task, queries: float) -> float:
    """Seconds of a GPU for two-path answers, a full batch at a time, at its limit."""
    pairs = [(task.prompt, task.generated), (task.prompt + task.context, task.generated)] * (IN_FLIGHT // 2)
    return decoding_seconds(GEMMA, H100, pairs) / (IN_FLIGHT // 2) * queries
