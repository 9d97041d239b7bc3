"""What a model can be asked for: layers that adapters lie on (`q_proj`), and how long a text may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from spring.engine.device import ModelError
from spring.engine.folders import read_config


def layers_of(model: Any) -> list[str]:
    """Names of the linear layers of a model's decoder: not the output layer, nor a vision tower."""
    inside = set(model.get_decoder().modules())
    linear = (
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module in inside
    )
    return sorted({name.rpartition(".")[2] for name in linear})


def read_outline(folder: Path, *, key: str = "model.id") -> Any:
    """The model that a folder describes, without its weights; `ModelError` where transformers has none."""
    from transformers import AutoModelForCausalLM

    config = read_config(folder, key=key)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError:
        raise ModelError(
            f"{key}: {folder} is of the family {config.model_type!r}, of which transformers has no model "
            f"that goes on with a text (AutoModelForCausalLM); choose one of a family that does"
        ) from None


def read_layers(folder: Path) -> list[str]:
    """The same of a folder with a model's configuration; weights are not read."""
    return layers_of(read_outline(folder))


def described(model: Any) -> str:
    """Class, family and size of a model: `LlamaForCausalLM (llama), 134,515,008 parameters`."""
    size = sum(weights.numel() for weights in model.parameters())
    return f"{type(model).__name__} ({model.config.model_type}), {size:,} parameters"


def check_positions(folder: Path, max_length: int) -> None:
    """Raises `ModelError` if `max_length` is beyond what the model of `folder` reads, both in tokens."""
    config = read_config(folder).get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if most and max_length > most:
        raise ModelError(
            f"model.max_length is {max_length} tokens, and the model reads {most}: take at most that, less "
            f"what retrieved context adds to it"
        )
