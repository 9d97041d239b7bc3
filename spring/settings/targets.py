"""What a model can be asked for: layers that adapters lie on (`q_proj`), and how long a text may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spring.engine.device import ModelError
from spring.settings.arm import Arm


def layers_of(model: Any) -> list[str]:
    """Names of the linear layers of a model's decoder: not the output layer, nor a vision tower."""
    inside = set(model.get_decoder().modules())
    linear = (
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module in inside
    )
    return sorted({name.rpartition(".")[2] for name in linear})


def read_layers(folder: Path) -> list[str]:
    """The same of a folder with a model's configuration; weights are not read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return layers_of(AutoModelForCausalLM.from_config(config))


def check_positions(folder: Path, max_length: int) -> None:
    """Raises `ModelError` if `max_length` is beyond what the model of `folder` reads, both in tokens."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if most and max_length > most:
        raise ModelError(
            f"model.max_length is {max_length} tokens, and the model reads {most}: take at most that, less "
            f"what retrieved context adds to it"
        )


def check_targets(arms: Mapping[str, Arm], there: Collection[str], *, model_id: str) -> None:
    """Raises `ModelError` for an arm that adapts layers which the model does not have."""
    for name, arm in arms.items():
        asked = arm.train.lora.target_modules if arm.train else ()
        unknown = [target for target in asked if target not in there]
        if unknown:
            raise ModelError(
                f"arms.{name}.train.lora.target_modules is {list(asked)}, and {model_id} has no layers "
                f"{', '.join(unknown)}: take some of {', '.join(sorted(there))}"
            )
