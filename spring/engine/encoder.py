"""How a sentence encoder makes its vectors, as its folder says in the files of sentence-transformers.

Read are pooling, length, prompts and case; what is written there and not known here is refused by name, since
vectors made otherwise are not the encoder's.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spring.engine.folders import read_json
from spring.engine.weights import ModelError, model_digest

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

KEY = "model.embedding"
POOLINGS = ("mean", "cls", "lasttoken", "max", "weightedmean")
# Names from before sentence-transformers 6; a mean over the root of the length points where the mean does.
OLDER = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
TRANSFORMER_FILES = ["sentence_bert_config.json", "sentence_roberta_config.json"]
TRANSFORMER_FILES += [
    f"sentence_{kind}_config.json" for kind in ("distilbert", "camembert", "albert", "xlm-roberta")
]
# What a Transformer module may say without changing a vector: (key, what it must be).
SILENT: dict[str, tuple[Any, ...]] = {
    "max_seq_length": (),
    "do_lower_case": (),
    "unpad_inputs": (),
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_output_name": ("token_embeddings",),
}


@dataclass(frozen=True)
class Encoder:
    """Where the weights lie, and what becomes of a text."""

    weights: Path
    pooling: str = "mean"
    max_length: int | None = None  # tokens; null: what tokenizer and positions allow
    lower: bool = False  # texts and prompts are read in lower case
    query: str = ""  # stands before a query
    document: str = ""  # stands before anything else


def read_encoder(folder: Path) -> Encoder:
    """What `folder` declares; `ModelError` names what cannot be followed. Nothing declared: the mean."""
    if not (folder / "modules.json").is_file():
        log.info("%s: %s does not say how its vectors are pooled; the mean is taken", KEY, folder)
        return Encoder(folder)
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Normalize" for kind in kinds[2:]):
        raise ModelError(
            f"{KEY}: {folder} is made of {' + '.join(kinds)}; only Transformer + Pooling, and Normalize, can "
            f"be followed: choose an encoder without {_odd(kinds)}"
        )
    (_, weights), (_, pooling), *_ = modules
    said = _settings(weights)
    declared = _optional(folder / "config_sentence_transformers.json")
    _refuse_other_measures(declared, folder, normalised="Normalize" in kinds)
    query, document = _prompts(declared, folder)
    how, with_prompt = _pooling(pooling)
    if not with_prompt and (query or document):
        raise ModelError(
            f"{KEY}: {pooling} leaves the prompt out of its pooling (include_prompt), which is not known"
        )
    return Encoder(
        weights=weights,
        pooling=how,
        max_length=said.get("max_seq_length"),
        lower=bool(said.get("do_lower_case")),
        query=query,
        document=document,
    )


def encoder_digest(folder: Path) -> str:
    """What stands for an encoder's folder: its files, and those of the modules in folders of their own."""
    inner = [path for _, path in _modules(folder)] if (folder / "modules.json").is_file() else []
    return " ".join(
        model_digest(path) for path in [folder, *(p for p in inner if p != folder and p.is_dir())]
    )


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """Vectors [B, D] from the last hidden states [B, T, D]; mask [B, T] is 1, then 0 behind the text."""
    import torch  # here: a folder is read without it

    if how == "cls":
        return hidden[:, 0]
    if how == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
    inside = mask.unsqueeze(-1).to(hidden.dtype)  # [B, T, 1]
    if how == "max":
        return hidden.masked_fill(inside == 0, -torch.inf).amax(dim=1)
    if how == "weightedmean":  # a token's weight is its number
        inside = inside * torch.arange(1, hidden.shape[1] + 1, device=hidden.device).view(1, -1, 1)
    return (hidden * inside).sum(dim=1) / inside.sum(dim=1)


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """The kind of every module, in order, and where it lies."""
    file = folder / "modules.json"
    try:
        named = [(str(one["type"]), str(one["path"])) for one in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{KEY}: {file} is no list of modules with type and path ({error})") from None
    for kind, _ in named:
        if not kind.startswith("sentence_transformers."):
            raise ModelError(f"{KEY}: {file} names code of its own ({kind}), which is never run")
    paths = [(kind.rpartition(".")[2], (folder / path).resolve()) for kind, path in named]
    if outside := [path for _, path in paths if not path.is_relative_to(folder.resolve())]:
        raise ModelError(f"{KEY}: {file} names {outside[0]}, which is outside of the folder")
    return [(kind, folder if path == folder.resolve() else path) for kind, path in paths]


def _odd(kinds: list[str]) -> str:
    return (
        ", ".join(dict.fromkeys(k for k in kinds if k not in ("Transformer", "Pooling", "Normalize")))
        or "that"
    )


def _settings(folder: Path) -> dict[str, Any]:
    """Those of the Transformer module."""
    file = next((folder / name for name in TRANSFORMER_FILES if (folder / name).is_file()), None)
    said = read_json(file, key=KEY) if file else {}
    for name, value in said.items():
        empty = value is None or value in ({}, [])
        allowed = SILENT.get(name)
        if not empty and (allowed is None or (allowed and value not in allowed)):
            raise ModelError(f"{KEY}: {file} says {name}: {json.dumps(value)[:80]}, which is not known here")
    return said


def _pooling(folder: Path) -> tuple[str, bool]:
    """How vectors are pooled, and whether over the prompt too."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(
            f"{KEY}: {file}, which says how vectors are pooled, is missing; fetch the folder again"
        )
    said = read_json(file, key=KEY)
    modes = said.get("pooling_mode") or [mode for name, mode in OLDER.items() if said.get(name)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) > 1:
        raise ModelError(
            f"{KEY}: {file} joins the poolings {', '.join(modes)}; only one at a time can be followed"
        )
    [how] = ["mean" if mode == "mean_sqrt_len_tokens" else mode for mode in modes]
    if how not in POOLINGS:
        raise ModelError(f"{KEY}: {file} pools by {how!r}; only {', '.join(POOLINGS)} can be followed")
    return how, bool(said.get("include_prompt", True))


def _prompts(declared: dict[str, Any], folder: Path) -> tuple[str, str]:
    """What stands before a query and before a document: as declared for them, else the default prompt."""
    prompts = {name: text for name, text in (declared.get("prompts") or {}).items() if text is not None}
    default = declared.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            f"{KEY}: {folder} has no prompt {default!r}, its default_prompt_name; it has {sorted(prompts)}"
        )
    usual = prompts[default] if default is not None else ""
    ofs = (prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name))
    return prompts.get("query", usual), next(ofs, prompts.get("document", usual))


def _refuse_other_measures(declared: dict[str, Any], folder: Path, *, normalised: bool) -> None:
    """All is compared by cosine here; at length 1 the other measures put texts in the same order."""
    measure = declared.get("similarity_fn_name") or "cosine"
    if measure != "cosine" and not normalised:
        raise ModelError(
            f"{KEY}: {folder} compares vectors by {measure!r}, and here they are compared by cosine; "
            f"choose an encoder for cosine, or one that normalises"
        )
    if declared.get("truncate_dim"):
        raise ModelError(
            f"{KEY}: {folder} cuts its vectors to {declared['truncate_dim']}, which is not known here"
        )


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file, key=KEY) if file.is_file() else {}
