"""What stands for the weights of a model: a digest of its folder. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

MODEL_FILES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}  # what decides what it computes

SAID = 200  # characters of a library's own words that a message keeps


class ModelError(RuntimeError):
    """A model or an encoder cannot be had or used; the message says what to install or change."""


def one_line(error: BaseException) -> str:
    """What a library says, on one line, without its longer advice; its kind where it says nothing."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= SAID else f"{said[:SAID]}..."


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
