"""Folders of tiny sentence encoders, as sentence-transformers writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

WORDS = [
    "the",
    "a",
    "of",
    "weather",
    "lovely",
    "today",
    "sunny",
    "outside",
    "he",
    "drove",
    "to",
    "stadium",
    "query",
    "passage",
    "red",
    "blue",
]
MakeEncoder = Callable[..., Path]


def declare(file: Path, said: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(said), encoding="utf-8")


def encoders(tmp_path: Path) -> MakeEncoder:
    """Makes a folder with a tiny random encoder, and what sentence-transformers writes beside it."""

    def make(
        kind: str = "bert", *, pooling: object = None, modules: Sequence[str] = (), **declared: object
    ) -> Path:
        folder = tmp_path / f"encoder-{len(list(tmp_path.iterdir()))}"
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        config = AutoConfig.for_model(
            kind, vocab_size=24, pad_token_id=0, max_position_embeddings=20, initializer_range=0.3, **sizes
        )
        AutoModel.from_config(config).save_pretrained(folder)
        plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(specials + WORDS)}, unk_token="[UNK]"))
        plain.pre_tokenizer = pre_tokenizers.Whitespace()
        plain.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        PreTrainedTokenizerFast(
            tokenizer_object=plain, pad_token="[PAD]", padding_side=declared.pop("padding_side", "right")
        ).save_pretrained(folder)
        if pooling is not None:
            said = pooling if isinstance(pooling, dict) else {"pooling_mode": pooling}
            declare(folder / "1_Pooling/config.json", {"embedding_dimension": 32, **said})
            types = ["Transformer", "Pooling", *modules]
            paths = ["", "1_Pooling", *(f"{i + 2}_{name}" for i, name in enumerate(modules))]
            declare(
                folder / "modules.json",
                [
                    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
                    for i, (name, path) in enumerate(zip(types, paths, strict=True))
                ],
            )
        for name, said in declared.items():
            declare(folder / f"{name}.json", said)
        return folder

    return make
