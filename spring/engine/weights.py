"""What stands for the weights of a model: a digest of its folder. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

MODEL_FILES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}  # what decides what it computes


class ModelError(RuntimeError):
    """A model or an encoder cannot be had or used; the message says what to install or change."""


def model_digest(folder: Path, *, leave_out: Collection[str] = ()) -> str:
    """sha256 over names and contents of everything in a model's folder that changes what it computes."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in MODEL_FILES and file.name not in leave_out:
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                while chunk := handle.read(1 << 22):
                    digest.update(chunk)
    return digest.hexdigest()
