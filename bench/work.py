"""Operations and bytes that a job needs at least: useful tokens only, nothing computed twice.

A product of [n, D] and [D, D'] takes 2 n D D' operations. Causal attention over T tokens sees T^2 / 2 pairs,
each two products of width d per head. Frozen weights need no gradient, so the backward pass costs as many
operations as the forward pass, and only attention twice as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.machine import Limits
from spring.engine.settings import Lora
from spring.engine.texts import Text


@dataclass(frozen=True)
class Shape:
    """What a model's cost depends on."""

    linear: int  # weights of all linear layers but the output layer
    head: int  # weights of the output layer
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    lora: int  # parameters of one adapter
    itemsize: int

    def forward(self, tokens: int, responses: int) -> float:
        """Operations of one text of `tokens`, with logits at `responses` positions."""
        attention = 2 * self.layers * self.heads * self.head_dim * tokens**2
        return 2 * self.linear * tokens + attention + 2 * self.head * responses

    def backward(self, tokens: int, responses: int) -> float:
        """Operations of the gradients of activations and of the adapter."""
        attention = 4 * self.layers * self.heads * self.head_dim * tokens**2
        return 2 * self.linear * tokens + attention + 2 * self.head * responses + 4 * self.lora * tokens


def shape_of(model: Any, lora: Lora) -> Shape:
    """The shape of a transformers model without adapters attached."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    linear = {n: m.weight for n, m in model.get_decoder().named_modules() if hasattr(m, "in_features")}
    targets = [weight for n, weight in linear.items() if n.rsplit(".", 1)[-1] in lora.target_modules]
    return Shape(
        linear=sum(weight.numel() for weight in linear.values()),
        head=head.weight.numel(),
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        lora=sum(lora.r * sum(weight.shape) for weight in targets),
        itemsize=model.dtype.itemsize,
    )


def scoring(shape: Shape, texts: Sequence[Text]) -> float:
    """Operations to score responses."""
    return sum(shape.forward(len(text) - 1, len(text.response)) for text in texts)


def training(shape: Shape, texts: Sequence[Text]) -> float:
    """Operations of one forward and backward pass over texts, with an adapter."""
    return sum(
        shape.forward(len(text) - 1, len(text.response))
        + 2 * shape.lora * (len(text) - 1)
        + shape.backward(len(text) - 1, len(text.response))
        for text in texts
    )


def decoding_seconds(shape: Shape, limits: Limits, rows: Sequence[tuple[int, int]]) -> float:
    """Seconds that decoding takes at least: rows of (prompt tokens, generated tokens), all in flight.

    Prompts and products run at the rate of products or of reading the weights, whichever is slower;
    attention of a single token reads the row's keys and values once. The two follow one another.
    """
    weights = (shape.linear + shape.head) * shape.itemsize
    cached = 2 * shape.layers * shape.kv_heads * shape.head_dim * shape.itemsize  # bytes per token
    seconds = sum(shape.forward(prompt, 1) for prompt, _ in rows) / limits.flops
    for step in range(1, max(tokens for _, tokens in rows)):
        lengths = [prompt + step for prompt, tokens in rows if tokens > step]
        products = 2 * (shape.linear + shape.lora + shape.head) * len(lengths)
        seconds += max(products / limits.flops, weights / limits.bytes)
        seconds += cached * sum(lengths) / limits.bytes
    return seconds
