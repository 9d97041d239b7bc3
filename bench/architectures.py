"""The architectures that the census looks at: transformers' causal models, and special forms of some."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LAYERS = 8  # of special forms, before they are cut

INDEXER = {
    "indexer_n_heads": 16,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}

# what some classes leave open in their default configuration, as in the models that are published
OPEN: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 20,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "deepseek_v2": {"num_experts_per_tok": 6, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "qwen4_exp": {"text_config": {"model_type": "qwen4_exp_text", **INDEXER}},
    "qwen4_exp_text": INDEXER,
}


@dataclass(frozen=True)
class Architecture:
    """A model type, what is changed of its default configuration, and what is added to its sinks."""

    name: str
    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    sinks: float = 0.0

    def config(self) -> Any:
        """Its configuration, of the size that the class has by default."""
        return AutoConfig.for_model(self.kind, **{**OPEN.get(self.kind, {}), **self.changes})


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def _longrope(count: int, **more: Any) -> dict[str, Any]:
    """Of so many frequencies."""
    short, long = [1.0 + i / count for i in range(count)], [1.0 + i for i in range(count)]
    lengths = {"original_max_position_embeddings": 4096, "max_position_embeddings": 131072}
    return {
        **lengths,
        **_rope(
            "longrope", short_factor=short, long_factor=long, original_max_position_embeddings=4096, **more
        ),
    }


def _windows(**more: Any) -> dict[str, Any]:
    types = ["full_attention", "sliding_attention"] * (LAYERS // 2)
    return {"num_hidden_layers": LAYERS, "layer_types": types, "sliding_window": 4096, **more}


SPECIAL = (
    Architecture(
        "gemma4, capped",
        "gemma4",
        {"text_config": {"model_type": "gemma4_text", "final_logit_softcapping": 30.0}},
    ),
    Architecture("phi3, longrope", "phi3", _longrope(48)),
    Architecture("phimoe, longrope", "phimoe", _longrope(64, short_mscale=1.2, long_mscale=1.3)),
    Architecture("llama, dynamic rope", "llama", _rope("dynamic", factor=4.0)),
    Architecture("llama, linear rope", "llama", _rope("linear", factor=4.0)),
    Architecture("llama, yarn", "llama", _rope("yarn", factor=4.0, original_max_position_embeddings=4096)),
    Architecture(
        "llama, llama3 rope",
        "llama",
        _rope(
            *("llama3",),
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
    Architecture("llama, biases", "llama", {"attention_bias": True, "mlp_bias": True}),
    Architecture("mistral, no window", "mistral", {"sliding_window": None}),
    Architecture("qwen2, windows", "qwen2", _windows(use_sliding_window=True, max_window_layers=4)),
    Architecture("qwen2_moe, windows", "qwen2_moe", _windows(use_sliding_window=True, max_window_layers=4)),
    Architecture("qwen3_moe, windows", "qwen3_moe", _windows(use_sliding_window=True, max_window_layers=4)),
    Architecture("phimoe, window", "phimoe", {"sliding_window": 2047}),
    Architecture("gemma3_text, capped", "gemma3_text", {"final_logit_softcapping": 30.0}),
    Architecture("gemma4_text, capped", "gemma4_text", {"final_logit_softcapping": 30.0}),
    Architecture(
        "gemma4_text, shared keys",
        "gemma4_text",
        {"final_logit_softcapping": 30.0, "num_kv_shared_layers": 12},
    ),
    Architecture("gpt_oss, weak sinks", "gpt_oss", sinks=-3.0),
    Architecture("gpt_oss, no window", "gpt_oss", {"layer_types": ["full_attention"] * 36}),
    Architecture("falcon, alibi", "falcon", {"alibi": True}),
    Architecture("falcon, many keys", "falcon", {"new_decoder_architecture": True, "num_kv_heads": 8}),
    Architecture(
        "granite, scaled",
        "granite",
        {
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.015625,
        },
    ),
    Architecture("cohere, scaled", "cohere", {"logit_scale": 0.0625, "use_qk_norm": True}),
    Architecture("stablelm, parallel", "stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    Architecture("phi, normed", "phi", {"qk_layernorm": True}),
    Architecture("gpt_neox, sequential", "gpt_neox", {"use_parallel_residual": False}),
    Architecture("olmo, clipped", "olmo", {"clip_qkv": 0.5}),
    Architecture("doge, experts", "doge", {"is_moe": True}),
    Architecture("lfm2, convolutions", "lfm2", {"full_attn_idxs": [2, 5, 8, 10, 12, 14, 20, 28]}),
    Architecture(
        "minimax, linear first",
        "minimax",
        {"num_hidden_layers": LAYERS, "layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2)},
    ),
    Architecture(
        "granitemoehybrid, mamba",
        "granitemoehybrid",
        {"num_hidden_layers": LAYERS, "layer_types": ["mamba", "attention"] * (LAYERS // 2)},
    ),
    Architecture("bamba, attention", "bamba", {"attn_layer_indices": [9, 18, 27]}),
)


def architectures(names: list[str]) -> list[Architecture]:
    """Those of these names, or of these model types; all of them if there are none."""
    found = [Architecture(kind, kind) for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)] + list(SPECIAL)
    if not names:
        return found
    known = {one.name for one in found} | {one.kind for one in found}
    if unknown := sorted(set(names) - known):
        raise SystemExit(f"no causal model of transformers is called {unknown}")
    return [one for one in found if one.name in names or one.kind in names]
