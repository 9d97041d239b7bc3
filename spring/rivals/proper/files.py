"""Files of adapters over shared experts (spring/rivals/proper/banks.py).

PEFT has no such adapter, so they are not PEFT's; they hold safetensors and nothing pickled:

    adapter_model.safetensors   a slot's own tensors
    experts.safetensors         of the shared part: population and expert LoRAs, router, users' embeddings
    adapter_config.json         what they are
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load
from torch import Tensor

from spring.engine.peft import CONFIG, WEIGHTS, as_text, tensor_name, weights_of
from spring.engine.settings import Lora

ROUTER, USERS, USER = "router", "user_embeddings", "user_embedding"  # names of tensors
EXPERTS = "experts.safetensors"


def shared_name(layer: str, kind: str, letter: str) -> str:
    """Name of a shared tensor: `kind` is population or experts, `letter` A or B."""
    return f"{layer}.{kind}_{letter}"


def group_files(
    lessons: Mapping[str, Tensor],
    population: Mapping[str, Tensor],
    config: Lora,
    *,
    described: Mapping[str, Any],
) -> dict[str, bytes]:
    """The shared part: what level 2 learned, and the population LoRA (PEFT's names) beneath it.

    As a slot's own tensors it holds the mean embedding: it is the adapter of whoever has none. Its
    `adapter_config.json` names the users (`described`), whose embeddings lie in that order.
    """
    names = [name.removesuffix(".experts_A") for name in lessons if name.endswith(".experts_A")]
    shared = dict(lessons) | {
        shared_name(name, "population", kind): population[tensor_name(name, kind)]
        for name in names
        for kind in "AB"
    }
    own = own_files({USER: lessons[USERS].mean(0)}, config, described=described)
    return {EXPERTS: weights_of(shared, config), **own}


def own_files(state: Mapping[str, Tensor], config: Lora, *, described: Mapping[str, Any]) -> dict[str, bytes]:
    """A slot's own tensors and what they are."""
    words = {"peft_type": "PROPER", "note": "not an adapter that PEFT knows", **described}
    return {WEIGHTS: weights_of(state, config), CONFIG: as_text(words)}


def read_shared(files: Mapping[str, bytes]) -> dict[str, Tensor]:
    """The shared part of what `group_files` gave."""
    return {name: tensor.float() for name, tensor in load(files[EXPERTS]).items()}


def writers(files: Mapping[str, bytes]) -> dict[str, int]:
    """Which row of the users' embeddings belongs to whom."""
    described = json.loads(files[CONFIG])
    return {user: row for row, user in enumerate(described["users"])}
