"""PolyLoRA (0.1.1 on PyPI): linear layers that give every row of a padded batch its own adapter.

On a processor its kernels are plain PyTorch, row by row and layer by layer. It wants padding on the right,
where `generate` pads on the left; so it is told that rows are full, and computes the padding, too. Adapters
are kept in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from bench.baselines import Baseline, missing
from bench.baselines.padded import ROWS, Routed, States, batches, generate
from spring.engine.queries import Query
from spring.engine.settings import Decoding, Lora


@contextmanager
def multi(model: Any, lora: Lora, states: States) -> Iterator[tuple[Any, Routed]]:
    """PolyLoRA's layers inside the model, and what routes rows to adapters; afterwards the model's own."""
    from polylora import PolyLoraConfig, PolyLoraModel
    from polylora.context import use_lora_context

    config = PolyLoraConfig(
        max_gpu_adapters=len(states), max_rank=lora.r, target_modules=list(lora.target_modules)
    )
    before = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    wrapped = PolyLoraModel(model, config).eval()
    for slot, state in enumerate(states):
        wrapped.adapter_store.add_adapter_from_peft_state_dict(
            str(slot), dict(state), wrapped.target_module_names, lora_alpha=lora.alpha
        )
    wrapped.adapter_cache.ensure_resident([str(slot) for slot in range(len(states))])

    def routed(slots: Sequence[int], width: int) -> Any:
        names = ["__base__" if slot < 0 else str(slot) for slot in slots]
        return use_lora_context(wrapped.prepare_lora_context(names, None, len(names), width, model.device))

    try:
        yield model, routed
    finally:
        for name in wrapped.target_module_names:
            model.set_submodule(name, before[name])


def decoding(
    model: Any,
    lora: Lora,
    states: States,
    queries: Sequence[Query],
    settings: Decoding,
    stop: Collection[int],
    rows: Sequence[int] = ROWS,
) -> list[Baseline]:
    """PolyLoRA's mixed batches, one baseline for each number of rows; none where it is not installed."""
    if missing("polylora"):
        print("  PolyLoRA is not installed: left out (pip install --no-deps polylora==0.1.1)")
        return []
    return batches(
        "PolyLoRA batches",
        lambda: multi(model, lora, states),
        lambda inner, routed, count: generate(inner, routed, queries, settings, stop, count),
        rows,
    )
