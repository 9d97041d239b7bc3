"""Folders of adapters over shared experts (spring/rivals/proper/banks.py).

PEFT has no such adapter, so they are not PEFT's; they hold safetensors and nothing pickled:

    adapter_model.safetensors   a slot's own tensors
    experts.safetensors         of the shared part: population and expert LoRAs, router, users' embeddings
    adapter_config.json         what they are
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from spring.engine.peft import tensor_name

ROUTER, USERS, USER = "router", "user_embeddings", "user_embedding"  # names of tensors
EXPERTS = "experts.safetensors"


def shared_name(layer: str, kind: str, letter: str) -> str:
    """Name of a shared tensor: `kind` is population or experts, `letter` A or B."""
    return f"{layer}.{kind}_{letter}"


def save_group(
    lessons: Mapping[str, Tensor],
    population: Mapping[str, Tensor],
    folder: Path,
    *,
    described: Mapping[str, Any],
) -> None:
    """Writes the shared part: what level 2 learned, and the population LoRA (PEFT's names) beneath it.

    As a slot's own tensors the folder holds the mean embedding: it is the adapter of whoever has none. Its
    `adapter_config.json` names the users (`described`), whose embeddings lie in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [name.removesuffix(".experts_A") for name in lessons if name.endswith(".experts_A")]
    shared = dict(lessons) | {
        shared_name(name, "population", kind): population[tensor_name(name, kind)]
        for name in names
        for kind in "AB"
    }
    save_file(shared, folder / EXPERTS, metadata={"format": "pt"})
    save_own({USER: lessons[USERS].mean(0)}, folder, described=described)


def save_own(state: Mapping[str, Tensor], folder: Path, *, described: Mapping[str, Any]) -> None:
    """Writes a slot's own tensors and what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    words = {"peft_type": "PROPER", "note": "not an adapter that PEFT knows", **described}
    (folder / "adapter_config.json").write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")


def load_shared(folder: Path) -> dict[str, Tensor]:
    """The shared part of a folder that `save_group` wrote."""
    return load_file(folder / EXPERTS)


def writers(folder: Path) -> dict[str, int]:
    """Which row of the users' embeddings belongs to whom."""
    described = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return {user: row for row, user in enumerate(described["users"])}
