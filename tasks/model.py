"""Stage `model`: the base model in a folder, and the empty state that learning starts from."""

from __future__ import annotations

from spring.model import prepare
from tasks.files import DATA, load_params, write_json


def main() -> None:
    """Converts or points to the model, and writes the state of period `base`: no adapters, no memory."""
    params = load_params().model
    prepare(params.id, revision=params.revision, folder=DATA / "model")
    for stage in ("adapt", "consolidate"):
        write_json({"model": params.id, "revision": params.revision}, DATA / stage / "base" / "start.json")


if __name__ == "__main__":
    main()
