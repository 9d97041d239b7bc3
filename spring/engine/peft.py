"""Adapters in PEFT's form: how they are written and read, and what PEFT must be told to put them right."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save
from torch import Tensor

from spring.engine.settings import Lora

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


PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT's names


def tensor_name(layer: str, kind: str) -> str:
    """PEFT's name of the A or B of a layer."""
    return f"{PREFIX}{layer}.lora_{kind}.weight"


def save_adapter(state: Mapping[str, Tensor], config: Lora, folder: Path, **about: Any) -> None:
    """Writes a folder as `PeftModel.save_pretrained` does; `about` as for `adapter_files`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in adapter_files(state, config, **about).items():
        (folder / name).write_bytes(content)


def adapter_files(
    state: Mapping[str, Tensor],
    config: Lora,
    *,
    base_model: str,
    revision: str | None = None,
    model: Any = None,
) -> dict[str, bytes]:
    """What `PeftModel.save_pretrained` writes: the content of `adapter_model.safetensors` and of its config.

    `base_model` and its `revision` are what others load the base model by. Without the `model` itself, bare
    of any bank, all layers are meant that have one of the target modules' names.
    """
    described: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
        "r": config.r,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    if model is not None:
        described |= targets_of({name[len(PREFIX) :].rsplit(".", 2)[0] for name in state}, model)
    return {WEIGHTS: weights_of(state, config), CONFIG: as_text(described)}


def weights_of(state: Mapping[str, Tensor], config: Lora) -> bytes:
    """The content of a safetensors file, in the number format that adapters are kept in."""
    kept = {name: tensor.to(getattr(torch, config.stored)) for name, tensor in state.items()}
    return save(kept, {"format": "pt"})


def as_text(described: Mapping[str, Any]) -> bytes:
    """The content of an `adapter_config.json`."""
    return (json.dumps(described, indent=2) + "\n").encode()


def read_adapter(files: Mapping[str, bytes]) -> dict[str, Tensor]:
    """The tensors among the files of an adapter, float32."""
    return {name: tensor.float() for name, tensor in load(files[WEIGHTS]).items()}


def load_adapter(folder: Path) -> dict[str, Tensor]:
    """The tensors of a PEFT folder (safetensors only, never pickle)."""
    file = folder / WEIGHTS
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; only adapters in safetensors format are read")
    return load_file(file)
