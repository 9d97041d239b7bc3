"""Stage `model`: the base model in a folder, and the empty state that learning starts from."""

from __future__ import annotations

from spring.engine.layers import check_positions, read_layers
from spring.engine.model import prepare, read_place
from spring.settings.targets import check_targets
from tasks.files import DATA, write_json
from tasks.params import load_params
from tasks.stage import run


def main() -> None:
    """Converts or points to the model, and writes the state of period `base`: no adapters, no memory.

    Raises `ModelError` for an arm whose adapters would lie on layers that the model does not have, and for a
    `model.max_length` beyond its positions.
    """
    params = load_params()
    model = params.model
    prepare(model.id, revision=model.revision, folder=DATA / "model")
    place = read_place(DATA / "model")
    check_positions(place, model.max_length)
    check_targets(params.arms, read_layers(place), model_id=model.id)
    for stage in ("adapt", "consolidate"):
        write_json({"model": model.id, "revision": model.revision}, DATA / stage / "base" / "start.json")


if __name__ == "__main__":
    run(main)
