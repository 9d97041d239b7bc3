"""Folders of models and encoders: where they come from, and what is refused before anything is read.

Nothing that a folder brings along is run: no code of its own and no pickled weights. What decides the numbers
must lie in the folder, since its digest stands for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spring.engine.weights import ModelError

WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # of the hub: no code, no pickles
POINTER = b"version https://git-lfs"


def locate(name: str, *, key: str, revision: str | None = None, kept: bool = False, packaged: str) -> Path:
    """A local folder as it is; anything else from the hub, whose cache is reused (`kept`: without asking it).

    key: the parameter that says `name`; packaged: what can be had without the hub.
    """
    if Path(name).is_dir():
        return Path(name).resolve()
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    if kept:
        try:
            found = Path(snapshot_download(name, revision=revision, local_files_only=True))
            check_folder(found, key=key)
            return found
        except (HFValidationError, OSError, ModelError):  # not there, or not all of it
            pass
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except (HFValidationError, HTTPError, OSError) as error:  # the last: the hub's own errors
        raise ModelError(
            f"{key} is {name!r}: neither a folder here nor a model that the hub gives ({error}); "
            f"use {packaged!r}, a folder with config.json and safetensors, or log in with `hf auth login`"
        ) from error


def check_folder(folder: Path, *, key: str) -> None:
    """Raises `ModelError` for a folder that needs code of its own, or that has no safetensors of its own."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{key}: {folder} has no config.json, so it is no model as transformers saves it")
    for file in (folder / "config.json", folder / "tokenizer_config.json"):
        if file.is_file() and read_json(file, key=key).get("auto_map"):
            raise ModelError(
                f"{key}: {file} names code of its own (auto_map), which is never run; use a model that "
                f"transformers has a class for, or a copy without auto_map if it computes the same then"
            )
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{key}: {folder} holds an adapter, whose base lies elsewhere; merge them (PEFT's "
            f"`merge_and_unload`) and save the result in a folder of its own"
        )
    index = folder / "model.safetensors.index.json"
    named = set(read_json(index, key=key)["weight_map"].values()) if index.is_file() else set()
    weights = {file.name for file in folder.glob("*.safetensors")}
    if not weights:
        others = sorted(file.name for kind in ("*.bin", "*.gguf", "*.h5") for file in folder.glob(kind))
        only = f", only {', '.join(others)}" if others else ""
        raise ModelError(
            f"{key}: {folder} has no safetensors{only}; pickles "
            f"can run code and are not read: load it elsewhere and `save_pretrained` it into a new folder"
        )
    for name in sorted(named | weights):
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{key}: {index} names {name}, which is missing; fetch the folder again")
        with file.open("rb") as handle:
            if handle.read(len(POINTER)) == POINTER:
                raise ModelError(f"{key}: {file} is a pointer of Git LFS; run `git lfs pull` there")


def read_json(file: Path, *, key: str) -> dict[str, Any]:
    """A configuration file; `ModelError` where it is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{key}: {file} is not readable as JSON ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{key}: {file} holds no JSON object; fetch it again")
    return found


def read_config(folder: Path) -> Any:
    """The configuration of a folder, as a class that transformers itself has."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def read_weights(kind: Any, folder: Path, *, key: str, **settings: Any) -> Any:
    """A model of the auto class `kind`; `ModelError` if weights that it computes with would be random."""
    model, told = kind.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **settings,
    )
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))  # never asked
    if missing:
        raise ModelError(
            f"{key}: {folder} lacks {len(missing)} weights of a {type(model).__name__} "
            f"({', '.join(missing[:3])}), which would be random; choose a folder saved as such a model"
        )
    return model
