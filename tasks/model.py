"""Stage `model`: the base model in a folder, and the empty state that learning starts from."""

from __future__ import annotations

import logging
from pathlib import Path

from spring.engine.encoder import read_encoder
from spring.engine.layers import check_positions, read_layers
from spring.engine.model import load_tokenizer, prepare, read_place
from spring.settings.targets import check_targets
from tasks.files import DATA, write_json
from tasks.params import load_params
from tasks.stage import run

log = logging.getLogger(__name__)


def main() -> None:
    """Converts or points to the model, and writes the state of period `base`: no adapters, no memory.

    Raises `ModelError` for an arm whose adapters would lie on layers that the model does not have, for a
    `model.max_length` beyond its positions, and for a chat template or an encoder that cannot be followed.
    """
    params = load_params()
    model = params.model
    prepare(model.id, revision=model.revision, folder=DATA / "model")
    place = read_place(DATA / "model")
    _, template = load_tokenizer(place, model_id=model.id, date=model.date)
    log.info("%s", template)
    if Path(model.embedding).is_dir():
        read_encoder(Path(model.embedding))
    check_positions(place, model.max_length)
    check_targets(params.arms, read_layers(place), model_id=model.id)
    for stage in ("adapt", "consolidate"):
        write_json({"model": model.id, "revision": model.revision}, DATA / stage / "base" / "start.json")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(main)
