"""What PEFT must be told to put an adapter where it was trained, and nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

# Linear layers whose last name PEFT (0.21) takes for that of experts, in models that keep those in one tensor
EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}


def targets_of(layers: Collection[str], model: Any) -> dict[str, Any]:
    """The keys of `adapter_config.json` that say where an adapter of `model` lies; `layers` by full names.

    Last names where no other part of the model has them, as towers of a multimodal model do, else full ones.
    Layers that PEFT would take for experts are named by their weights, which it does not touch; dropout on
    these it does not know.
    """
    from transformers.pytorch_utils import Conv1D

    layers = sorted(layers)
    found: dict[str, Any] = {
        "fan_in_fan_out": any(isinstance(model.get_submodule(name), Conv1D) for name in layers)
    }
    stacked = any(tensor.ndim == 3 and "experts" in name for name, tensor in model.named_parameters())
    mistaken = [name for name in layers if stacked and _last(name) in EXPERTS]
    if mistaken:
        found |= {"target_parameters": [f"{name}.weight" for name in mistaken], "lora_dropout": 0.0}
        layers = [name for name in layers if name not in mistaken]
    short = sorted({_last(name) for name in layers})
    named = [name for name, _ in model.named_modules() if _last(name) in short]
    return found | {"target_modules": short if sorted(named) == layers else layers}


def _last(name: str) -> str:
    return name.rpartition(".")[2]
