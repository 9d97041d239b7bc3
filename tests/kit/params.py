"""The committed parameters, and what one change makes of them."""

from __future__ import annotations

import copy
from pathlib import Path

import yaml

TREE = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())


def changed(path: str, value: object) -> dict:
    tree = copy.deepcopy(TREE)
    *parents, last = path.split(".")
    at = tree
    for key in parents:
        at = at[key]
    at[last] = value
    return tree
