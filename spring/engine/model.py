"""The base model: where it comes from, and loading it frozen.

A model folder is what `save_pretrained` writes, or `place.txt`, which points to one; `source.json` says which
model it is. The default comes out of a PyPI package (packaged.py), so that no network is needed.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spring.engine.clock import stop_clock
from spring.engine.device import ModelError, pick_device, pick_dtype
from spring.engine.folders import check_folder, locate, read_config, read_tokenizer, read_weights
from spring.engine.fused import fuse
from spring.engine.heap import collect_as_usual
from spring.engine.packaged import PACKAGED, convert_packaged
from spring.engine.roads import Road
from spring.engine.settings import DATE
from spring.engine.survey import adopt, survey_twin
from spring.engine.template import Template, read_template
from spring.engine.weights import model_digest

PLACE = "place.txt"  # where the weights lie, if elsewhere; source.json is the same on every machine


@dataclass(frozen=True)
class BaseModel:
    """A frozen causal language model, its tokenizer and chat template, and a digest of its weights."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any
    digest: str
    template: Template
    name: str  # what others load it by: a hub id, or an absolute path
    revision: str | None = None  # of the hub's

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device


def prepare(model_id: str, *, revision: str | None, folder: Path) -> None:
    """Makes `folder` loadable by `load`: converted weights for the packaged model, else a pointer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLACE).unlink(missing_ok=True)
    if model_id == PACKAGED:
        convert_packaged(folder)
        source: dict[str, Any] = {"id": model_id}
    else:
        source = {"id": model_id, "revision": revision}
        place = locate(model_id, key="model.id", revision=revision, packaged=PACKAGED)
        check_folder(place, key="model.id")
        write_place(folder, place)
    source["digest"] = weights_digest(folder)
    write_source(folder, source)


def write_place(folder: Path, path: Path) -> None:
    """Points the prepared folder to weights elsewhere on this machine."""
    (folder / PLACE).write_text(f"{path}\n", encoding="utf-8")


def read_place(folder: Path) -> Path:
    """Where the weights of a prepared folder lie."""
    pointer = folder / PLACE
    return Path(pointer.read_text(encoding="utf-8").strip()) if pointer.exists() else folder


def weights_digest(folder: Path) -> str:
    """What stands for the model that a prepared folder holds or points to."""
    return model_digest(read_place(folder), leave_out=("source.json", PLACE))


def write_road(folder: Path, asked: str = "auto") -> Road:
    """Looks for the road of the model of a prepared folder, and keeps it there for `load`."""
    source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    source["road"] = (road := survey_twin(read_config(read_place(folder)), asked=asked)).to_json()
    write_source(folder, source)
    return road


def write_source(folder: Path, source: dict[str, Any]) -> None:
    """Says which model a prepared folder holds or points to."""
    (folder / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(
    folder: Path,
    *,
    model_id: str,
    date: datetime.date = DATE,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Any, Template]:
    """The tokenizer of a folder, and what its chat template does; the template's clock stands at `date`."""
    tokenizer = read_tokenizer(folder)
    stop_clock(tokenizer, date, model_id=model_id)
    return tokenizer, read_template(tokenizer, chat_template_kwargs, model_id=model_id)


def load(
    folder: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    date: datetime.date = DATE,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> BaseModel:
    """The frozen model of a prepared folder, on `device`, in evaluation mode, with its chat template."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading weights; the stages draw their own
    source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    path = read_place(folder)
    if not path.exists():
        raise ModelError(f"{folder / PLACE} points to {path}, which is gone; run `dvc repro --force model`")
    check_folder(path, key="model.id")
    place = pick_device(device)
    tokenizer, template = load_tokenizer(
        path, model_id=source["id"], date=date, chat_template_kwargs=chat_template_kwargs
    )
    model: Any = read_weights(AutoModelForCausalLM, path, key="model.id", dtype=pick_dtype(dtype, place))
    model.requires_grad_(False).to(place).eval()
    fuse(model)
    adopt(model, Road.from_json(source["road"]) if "road" in source else survey_twin(model.config))
    collect_as_usual()
    on_hub = f"models--{source['id'].replace('/', '--')}" in path.parts  # in the hub's own cache
    name, revision = (source["id"], source["revision"]) if on_hub else (str(path.resolve()), None)
    return BaseModel(model, tokenizer, source["digest"], template, name, revision)
