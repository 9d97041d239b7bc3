"""A configuration made small: the same class and flags, few and narrow layers of every kind it has.

Which layers stay is for kinds.py. Numbers go by the names of their fields, as configurations of transformers
use them; what has to fit together (widths of heads, frequencies of positions) is made to fit afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from spring.engine.kinds import LAYERS, OVERRIDES, cut_layers

VOCABULARY, WIDTH, HEADS, HEAD, WINDOW = 320, 64, 4, 16, 8

# name of a field -> at most so much; the first that fits counts
MOST: tuple[tuple[str, int], ...] = (
    (r".*vocab(_size)?(_per_layer_input|_base)?", VOCABULARY),
    (r"original_max_position_embeddings|log_scaling_n_floor", 2 * WINDOW),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|.*max_length|context_length", 256),
    (r"floor_scale|(mamba_)?chunk_size|.*chunk_(size|length)|block_size|index_topk", WINDOW),
    (r"((sliding|attention|local|local_attention|keep)_)?window(_size|_len)?|sliding_window_size", WINDOW),
    (r"local_attention|rel_extent", 2 * WINDOW),
    (r"index_block_size", 4),
    (r"index_topk_blocks|n_layers_per_attn_res_block|rescale_every", 2),
    (r".*(moe|expert).*(intermediate_size|hidden_size)", 32),
    (r".*intermediate_size(_mlp)?|.*ffn_(dim|hidden_size)|n_inner|dff|dim_ff|d_inner|mlp_dim", 2 * WIDTH),
    (r"hidden_size_per_layer_input", HEAD),
    (r".*hidden_size(_global)?|n_embd|d_model|emb_dim|.*embedding_(dim|size)|lru_width", WIDTH),
    (r"word_embed_proj_dim|(adapter_)?input_size|adapter_(in|out)_dim|ple_embed_dim|projection_dim", WIDTH),
    (r"out_hidden_size|output_channels", WIDTH),
    (r"[qo]_lora_rank|block_multiple_of", 32),
    (r".*(_rank|_lowrank)", HEAD),
    (r"qk_rope_head_dim", 8),
    (r".*head_?dim|mamba_d_head|kv_channels|dim_head|d_head|attention_head_size", HEAD),
    (r"(mamba_d_|ssm_)?state(_size)?", HEAD),
    (r"mamba_dt_rank|time_step_rank", 4),
    (r"(mamba_)?n_?groups|o_groups", 2),
    (r"index(er)?_n_heads|mamba_n(um)?_heads|n_mamba_heads", 8),
    (r".*heads?|num_query_groups", HEADS),
    (r"(n|num|moe_num)(_routed|_local)?_experts", 16),
    (r"moe_?(top)?_?k|num_experts_per_tok(en)?|top_k_experts", 3),
    (r"n_group|num_expert_group|zero_expert_num", 4),
    (r"topk_group", 2),
    (r"attn_layer_period|expert_layer_period", LAYERS),
    (r"split_ngram_parts", 2),
)
KEY_HEADS = r"(.*)(num_key_value_heads|num_kv_heads|kv_n_heads|num_query_groups|num_key_heads)"
QUERY_HEADS = ("num_attention_heads", "num_value_heads", "n_heads", "num_heads", "n_head")
WIDTHS = ("hidden_size", "n_embd", "d_model", "emb_dim")
TOKEN = r".*(token|eod)_(id|ids|index)"

Values = dict[str, Any]


def shrink(config: Any) -> Any:
    """A configuration of the same class with every flag kept and every number small; twice is once.

    How weights were quantised is left out: a twin's are not.
    """
    values = {key: value for key, value in config.to_dict().items() if key != "quantization_config"}
    return type(config).from_dict(_shrunk(values, {}))


def _shrunk(values: Values, outer: Mapping[str, Any]) -> Values:
    """The fields of a configuration, or of one inside another, made small."""
    cut = cut_layers(values)
    small: Values = {}
    for key, value in cut.items():
        if isinstance(value, dict) and key.endswith("_config") and key != OVERRIDES:
            small[key] = _shrunk(value, {**outer, **values})
        elif key.startswith("_") or re.fullmatch(TOKEN, key):
            small[key] = value
        else:
            small[key] = _less(key, value, {**outer, **values})
    _fit_heads(values, small)
    _fit_mamba(small)
    _fit_positions(values, small)
    _fit_layers(values, small)
    _fit_tokens(values, small)
    return small


def _less(key: str, value: Any, values: Mapping[str, Any]) -> Any:
    """A number, a list of numbers or a mapping of names to numbers under the limits of its name."""
    if isinstance(value, list) and re.fullmatch(r"intermediate_size|.*heads_per_layer", key):
        return [_less(key.removesuffix("_per_layer"), one, values) for one in value]
    if key == "compress_rates" and isinstance(value, dict):
        return {name: min(rate, WINDOW) for name, rate in value.items()}
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if found := re.fullmatch(KEY_HEADS, key):
        return min(value, _key_heads(value, _query_heads(found[1], values)))
    if key == "num_heads" and "expand" in values:  # of Mamba 2
        return min(value, 8)
    most = next((limit for name, limit in MOST if re.fullmatch(name, key)), value)
    return min(value, most)


def _query_heads(prefix: str, values: Mapping[str, Any]) -> int:
    """How many heads of queries stand beside those of keys."""
    names = (prefix + name for name in QUERY_HEADS)
    return next((values[name] for name in names if isinstance(values.get(name), int)), HEADS)


def _key_heads(keys: int, queries: int) -> int:
    return 1 if keys == 1 else HEADS if keys >= queries else HEADS // 2


# --- layers -----------------------------------------------------------------------------------------------


def _fit_layers(values: Values, small: Values) -> None:
    """Patterns that repeat over the layers."""
    for name in ("attn", "expert"):
        period, offset = f"{name}_layer_period", f"{name}_layer_offset"
        if isinstance(values.get(period), int) and isinstance(values.get(offset), int):
            small[offset] = values[offset] * small[period] // values[period]
    if "attention_types" in values:  # GPT-Neo
        small["attention_types"] = [[small["attention_layers"], 1]]
    base = values.get(OVERRIDES) and small.get(OVERRIDES)
    for fields in (base or {}).values():
        for key, value in fields.items():
            if isinstance(value, int) and not isinstance(value, bool) and isinstance(values.get(key), int):
                fields[key] = max(1, value * small[key] // values[key])
            else:
                fields[key] = _less(key, value, values)


# --- what has to fit together -----------------------------------------------------------------------------


def _fit_heads(values: Values, small: Values) -> None:
    """Widths of heads that follow from others; scales that stand for a width keep their ratio to it."""
    rope = values.get("qk_rope_head_dim")
    if rope and isinstance(values.get("head_dim"), int):
        small["head_dim"] = values["head_dim"] * small["qk_rope_head_dim"] // rope
    if "qk_head_dim" in values and values.get("qk_nope_head_dim"):
        small["qk_head_dim"] = small["qk_nope_head_dim"] + small["qk_rope_head_dim"]
    width = next((key for key in WIDTHS if isinstance(values.get(key), int)), None)
    if width is None:
        return
    if isinstance(values.get("attention_hidden_size"), int):
        small["attention_hidden_size"] = values["attention_hidden_size"] * small[width] // values[width]
        if "attention_head_dim" in values:
            small["attention_head_dim"] = small["attention_hidden_size"] // small["num_attention_heads"]
    if isinstance(values.get("dim_model_base"), int):
        small["dim_model_base"] = max(1, values["dim_model_base"] * small[width] // values[width])
    before, after = _head(values, width), _head(small, width)
    if isinstance(values.get("rotary_dim"), int):
        small["rotary_dim"] = max(2, values["rotary_dim"] * after // before // 2 * 2)
    if isinstance(values.get("query_pre_attn_scalar"), int):
        small["query_pre_attn_scalar"] = max(1, values["query_pre_attn_scalar"] * after // before)


def _head(values: Mapping[str, Any], width: str) -> int:
    """The width of a head."""
    given = values.get("head_dim")
    return given if isinstance(given, int) else values[width] // max(1, _query_heads("", values))


def _fit_mamba(small: Values) -> None:
    """Heads of Mamba 2 share out its inner width."""
    expand = small.get("mamba_expand", small.get("expand"))
    if not isinstance(expand, int) or "hidden_size" not in small:
        return
    inner = expand * small["hidden_size"]
    if isinstance(small.get("mamba_d_ssm"), int):
        small["mamba_d_ssm"] = inner
    for heads, width in (
        ("mamba_n_heads", "mamba_d_head"),
        ("mamba_num_heads", "mamba_head_dim"),
        ("n_mamba_heads", "mamba_headdim"),
        ("num_heads", "head_dim"),
    ):
        if isinstance(small.get(heads), int) and isinstance(small.get(width), int):
            small[width] = inner // small[heads]


def _fit_positions(values: Values, small: Values) -> None:
    """Rotary frequencies that depend on a length do so at a small one; lists have an entry a frequency."""
    width = next((key for key in WIDTHS if isinstance(values.get(key), int)), None)
    if width is None:
        return
    for key in ("rope_parameters", "rope_scaling"):
        rope = values.get(key)
        if isinstance(rope, dict):
            head = small.get("qk_rope_head_dim") or _head(small, width)
            small[key] = _rope(rope, head)
            if '"dynamic"' in json.dumps(rope):  # its limit is this length itself
                small["max_position_embeddings"] = min(values["max_position_embeddings"], 2 * WINDOW)


def _rope(rope: Values, head: int) -> Values:
    """Rotary parameters, or those of each kind of layer, for heads of so many numbers."""
    small: Values = {}
    rotated = int(head * rope.get("partial_rotary_factor", 1.0))
    for key, value in rope.items():
        if isinstance(value, dict):
            small[key] = _rope(value, head)
        elif key == "original_max_position_embeddings" and value:
            small[key] = min(value, 2 * WINDOW)
        elif key in ("short_factor", "long_factor"):
            small[key] = _resampled(value, rotated // 2)
        elif key == "mrope_section":
            small[key] = _shares(value, rotated // 2)
        else:
            small[key] = value
    return small


def _resampled(values: Sequence[float], count: int) -> list[float]:
    return [values[i * len(values) // count] for i in range(count)]


def _shares(values: Sequence[int], total: int) -> list[int]:
    """Whole numbers in about the same ratio that add up to `total`."""
    ends = [round(sum(values[: i + 1]) * total / sum(values)) for i in range(len(values))]
    return [stop - start for start, stop in zip([0, *ends], ends, strict=False)]


def _fit_tokens(values: Values, small: Values) -> None:
    """Special tokens beyond the vocabulary become its last ones."""
    given = small.get("vocab_size")
    limit = given if isinstance(given, int) else VOCABULARY
    names = [key for key in values if re.fullmatch(TOKEN, key)]
    ids = [one for key in names for one in (values[key] if isinstance(values[key], list) else [values[key]])]
    beyond = sorted({one for one in ids if isinstance(one, int) and one >= limit})
    moved = {one: limit - 1 - place for place, one in enumerate(reversed(beyond))}
    for key in names:
        value = values[key]
        small[key] = [moved.get(i, i) for i in value] if isinstance(value, list) else moved.get(value, value)
