"""How much fits into one batch: a memory budget in gigabytes turned into tokens and rows.

The budget is that of all batches that run side by side (spring/engine/parallel.py).
"""

from __future__ import annotations

from typing import Any

from spring.engine.parallel import cores

GIGABYTE = 1e9
CPU_TOKENS = 1024  # more per batch does not raise the rate of a core
GPU_TOKENS = 65536


def training_tokens(model: Any, memory_gb: float) -> int:
    """Tokens whose activations for the backward pass fit into `memory_gb`."""
    config = model.config.get_text_config()
    size = model.dtype.itemsize
    per_layer = (16 * config.hidden_size + 5 * config.intermediate_size) * size + 12 * config.hidden_size
    return _bounded(model, memory_gb * GIGABYTE / (per_layer * config.num_hidden_layers))


def scoring_tokens(model: Any, memory_gb: float) -> int:
    """Tokens that fit into `memory_gb` in a pass without gradients."""
    config = model.config.get_text_config()
    per_token = (12 * config.hidden_size + 4 * config.intermediate_size) * model.dtype.itemsize * 2
    return _bounded(model, memory_gb * GIGABYTE / per_token)


def decoding_rows(model: Any, memory_gb: float, *, length: int) -> int:
    """Rows of `length` tokens whose key-value cache and logits fit into `memory_gb`."""
    config = model.config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cache = 2 * config.num_hidden_layers * heads * head_dim * model.dtype.itemsize
    per_row = 2 * length * cache + 12 * config.vocab_size  # the cache is copied when rows leave
    return max(2, int(memory_gb * GIGABYTE / per_row))


def _bounded(model: Any, tokens: float) -> int:
    most = GPU_TOKENS if model.device.type == "cuda" else CPU_TOKENS
    return max(64, min(most, int(tokens / cores(model.device))))
