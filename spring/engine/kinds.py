"""Which layers of a configuration are kept, so that few layers have every kind that the many have.

Configurations say what a layer is in lists, by layers' numbers, and by how many come first or last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LAYERS = 4  # kept, unless there are more kinds
DISTINCT = 6  # a list with more values than that does not name kinds
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks", "num_layers_per_stack")
NUMBERS = r".*(_idxs|_indices|_indexes|_layer_ids)|moe_layers|mlp_only_layers|cross_attention_layers"
FIRST = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "max_window_layers")
LAST = ("num_kv_shared_layers",)
REPEATED = ("block_types",)
OVERRIDES = "per_layer_config"  # {"05": {field: value}}


def cut_layers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration for few layers, in the order of the whole; those of few stay."""
    cut = dict(values)
    count = depth(values)
    if count <= LAYERS:
        return cut
    columns = {
        key: found for key, value in values.items() if (found := column(key, value, count)) is not None
    }
    kept = choose(columns.values(), count)
    if "attn_layer_period" in values and not columns:  # periods that are cut as well
        kept = list(range(LAYERS))
    for key in DEPTHS:
        if isinstance(values.get(key), int):
            cut[key] = min(values[key], len(kept))
    for key, found in columns.items():
        cut[key] = field(key, [found[i] for i in kept])
    if "moe_layer_end_index" in cut:
        cut["moe_layer_end_index"] = len(kept) - 1
    return cut


def depth(values: Mapping[str, Any]) -> int:
    """How many layers there are; 0: it does not say."""
    given = (values[key] for key in DEPTHS if isinstance(values.get(key), int))
    return int(next(given, len(values.get("layers_block_type") or ())))


def column(key: str, value: Any, count: int) -> list[Any] | None:
    """What a field says of each layer; null: nothing."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if key == OVERRIDES and value:
        named = {int(name): fields for name, fields in value.items()}
        return [named.get(i) for i in range(count)]
    if isinstance(value, list):
        if re.fullmatch(NUMBERS, key):
            return [i in value for i in range(count)]
        if key in REPEATED and value:
            return [value[i % len(value)] for i in range(count)]
        return value if len(value) == count else None
    if key in FIRST and whole:
        return [i < value for i in range(count)]
    if key in LAST and whole:
        return [i >= count - value for i in range(count)]
    return None


def field(key: str, column: Sequence[Any]) -> Any:
    """The field that says this of each layer."""
    if key == OVERRIDES:
        return {f"{i:02d}": dict(fields) for i, fields in enumerate(column) if fields is not None}
    if re.fullmatch(NUMBERS, key):
        return [i for i, there in enumerate(column) if there]
    return sum(column) if key in FIRST + LAST else list(column)


def choose(columns: Any, count: int) -> list[int]:
    """The first layer of every kind and, while there is room, the last of each."""
    named = [[json.dumps(one, sort_keys=True) for one in column] for column in columns]
    kinds = list(
        zip([""] * count, *(column for column in named if len(set(column)) <= DISTINCT), strict=True)
    )
    first = {kind: i for i, kind in reversed(list(enumerate(kinds)))}
    last = {kind: i for i, kind in enumerate(kinds)}
    kept = sorted(first.values())
    more = sorted(set(last.values()) - set(kept), reverse=True)
    return sorted(kept + more[: max(0, LAYERS - len(kept))])
