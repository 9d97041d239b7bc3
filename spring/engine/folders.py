"""Folders of models and encoders: where they come from, and what is refused before anything is read.

Nothing that a folder brings along is run: no code of its own and no pickled weights. What decides the numbers
must lie in the folder, since its digest stands for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spring.engine.weights import ModelError, one_line

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
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

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
        away = isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled))
        why, remedy = one_line(error), "log in with `hf auth login`"
        if away:
            why = "it cannot be reached, and no copy is on this machine"
            remedy = "start again with a connection"
        raise ModelError(
            f"{key} is {name!r}: neither a folder here nor a model that the hub gives ({why}); "
            f"use {packaged!r}, a folder with config.json and safetensors, or {remedy}"
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


def read_config(folder: Path, *, key: str = "model.id") -> Any:
    """The configuration of a folder, as a class that transformers itself has; else `ModelError`."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig, __version__

    family = read_json(folder / "config.json", key=key).get("model_type")
    if family is not None and family not in CONFIG_MAPPING:
        raise ModelError(
            f"{key}: {folder} is of the family {family!r}, which transformers {__version__} does not know; "
            f"use another model, or a release that knows it (pip install --upgrade transformers)"
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, LookupError, TypeError, StrictDataclassError) as error:
        why = one_line(error) if family else "it names no model_type"
        raise ModelError(f"{key}: {folder / 'config.json'} cannot be used ({why}); fetch it again") from None


def read_tokenizer(folder: Path, *, key: str = "model.id") -> Any:
    """The tokenizer of a folder; `ModelError` where there is none that can be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises the bare class
        raise ModelError(
            f"{key}: {folder} has no tokenizer that can be read ({one_line(error)}); fetch its tokenizer "
            f"files again, or save the tokenizer there with `save_pretrained`"
        ) from None


def read_weights(kind: Any, folder: Path, *, key: str, **settings: Any) -> Any:
    """A model of the auto class `kind`; `ModelError` if weights that it computes with would be random."""
    try:
        model, told = kind.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **settings,
        )
    except ImportError as error:  # of what a quantised model needs
        raise ModelError(f"{key}: {folder} cannot be read here: {one_line(error)}") from None
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))  # never asked
    if missing:
        raise ModelError(
            f"{key}: {folder} lacks {len(missing)} weights of a {type(model).__name__} "
            f"({', '.join(missing[:3])}), which would be random; choose a folder saved as such a model"
        )
    return model
