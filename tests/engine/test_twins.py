"""Twins: small, of every kind of layer, random everywhere, and the same each time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spring.engine.twins import LARGEST, SPREAD, TwinError, shrink, twin

FAMILIES = (
    *("llama", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "gpt_oss"),
    *("deepseek_v3", "glm_moe_dsa", "granite", "falcon", "bloom", "gpt2", "opt", "gpt_neo", "phimoe"),
    *("qwen3_5_text", "qwen3_next", "lfm2", "falcon_h1", "jamba", "nemotron_h", "mamba2", "recurrent_gemma"),
)
ROWS = torch.randint(16, 160, (3, 40), generator=torch.Generator().manual_seed(5))


def config_of(kind: str, **changes: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **changes)


@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_spread_and_know_what_came_before(kind: str) -> None:
    model = twin(config_of(kind))
    assert not model.training and all(w.dtype == torch.float32 for w in model.parameters())
    assert sum(w.numel() for w in model.parameters()) < LARGEST / 5
    with torch.no_grad():
        logits = model(input_ids=ROWS, use_cache=False).logits
        changed = ROWS.clone()
        changed[:, 20] += 1
        others = model(input_ids=changed, use_cache=False).logits
    assert logits.isfinite().all() and logits.std().item() == pytest.approx(SPREAD, rel=0.3)
    assert (others - logits)[:, 21:].square().mean().sqrt() > 0.1, "or wrong attention would not show"


@pytest.mark.parametrize("kind", ["minimax", "deepseek_v3", "gemma4_text", "llama4_text"])
def test_what_is_computed_stays(kind: str) -> None:
    """Masks and decays are buffers too: a token changes nothing before it."""
    model = twin(config_of(kind))
    changed = ROWS.clone()
    changed[:, 20] += 1
    with torch.no_grad():
        logits, others = (model(input_ids=rows, use_cache=False).logits for rows in (ROWS, changed))
    assert (others - logits)[:, :20].abs().max() < 1e-4


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_parameter_hides(kind: str) -> None:
    """Nowhere a vector of equal numbers: a norm of ones, a bias or sink of zeros."""
    for name, weight in twin(config_of(kind)).named_parameters():
        assert weight.isfinite().all(), name
        assert weight.numel() == 1 or weight.std() > 1e-3, name


def test_equal_seeds_give_equal_twins() -> None:
    """And whoever draws random numbers besides does not notice."""
    before = torch.random.get_rng_state()
    one, same, other = (twin(config_of("gpt_oss"), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_small_configuration_stays_as_it_is(kind: str) -> None:
    small = shrink(config_of(kind))
    assert shrink(small).to_dict() == small.to_dict()


# --- kinds of layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("gpt_oss", "layer_types"),
        ("gemma4_text", "layer_types"),
        ("qwen3_5_text", "layer_types"),
        ("glm4_moe_lite", "mlp_layer_types"),
        ("deepseek_v4", "layer_types"),
        ("deepseek_v4", "mlp_layer_types"),
        ("hy_v4", "indexer_types"),
        ("llama4_text", "no_rope_layers"),
        ("zamba2", "layers_block_type"),
        ("gpt_neo", "attention_layers"),
    ],
)
def test_every_kind_of_layer_occurs(kind: str, field: str) -> None:
    whole = config_of(kind)
    small = shrink(whole)
    listed = getattr(small, field)
    assert set(listed) == set(getattr(whole, field)) and len(listed) == small.num_hidden_layers <= 6


def test_the_first_layer_stays_the_first() -> None:
    types = ["full_attention", "linear_attention"] * 10
    assert shrink(config_of("minimax", num_hidden_layers=20, layer_types=types)).layer_types == [
        *("full_attention", "linear_attention") * 2
    ]


def test_layers_by_number() -> None:
    """Gemma 4's wider heads, Gemma 3n's shared keys, LFM2's attention, Jamba's periods, dense first."""
    gemma = shrink(config_of("gemma4_text"))
    wide = [layer.head_dim for layer in gemma.per_layer_config]
    assert set(wide) == {16, 32}
    shared = shrink(config_of("gemma3n_text"))
    assert 0 < shared.num_kv_shared_layers < shared.num_hidden_layers
    lfm = config_of("lfm2", full_attn_idxs=[2, 5, 8, 10, 12, 14], num_hidden_layers=16)
    assert sorted(shrink(lfm).layer_types) == ["conv", "conv", "full_attention", "full_attention"]
    assert len(set(shrink(config_of("jamba")).layers_block_type)) == 2
    assert shrink(config_of("glm4_moe")).first_k_dense_replace == 1


# --- numbers ----------------------------------------------------------------------------------------------


def test_flags_stay_and_sizes_follow() -> None:
    whole = config_of("qwen2", use_sliding_window=True, max_window_layers=14, rms_norm_eps=1e-4)
    small = shrink(whole)
    assert (small.rms_norm_eps, small.hidden_act, small.sliding_window) == (1e-4, whole.hidden_act, 8)
    assert set(small.layer_types) == {"full_attention", "sliding_attention"}
    heads = [
        shrink(config_of("llama", num_attention_heads=32, num_key_value_heads=keys)).num_key_value_heads
        for keys in (1, 8, 32)
    ]
    assert heads == [1, 2, 4]


PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt_oss": {  # gpt-oss-120b
        "dtype": "bfloat16",
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
        "eos_token_id": 200002,
    },
    "deepseek_v3": {  # DeepSeek-V3
        "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "first_k_dense_replace": 3,
        "eos_token_id": 1,
    },
    "granite": {  # Granite 3.3: its embeddings are twelve times as large as what layers add to them
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.015625,
        "tie_word_embeddings": True,
    },
    "falcon_h1": {"mamba_d_ssm": 3072, "mamba_n_heads": 48, "mamba_d_head": 64, "lm_head_multiplier": 0.02},
    "nemotron_h": {"hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M", "num_hidden_layers": 24},
    "qwen3_next": {"full_attention_interval": 4, "num_hidden_layers": 48, "rope_theta": 10000000},
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_as_published(kind: str) -> None:
    """Fields of older files, and what a twin has no use for: bfloat16, how weights were quantised."""
    model = twin(config_of(kind, **PUBLISHED[kind]))
    assert not hasattr(model.config, "quantization_config") and model.config.eos_token_id in (319, 2, 1, None)
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_rope_depends_on_a_small_length() -> None:
    factors = {"short_factor": [1.0 + i / 50 for i in range(48)], "long_factor": [2.0 + i for i in range(48)]}
    whole = config_of(
        "phi3",
        original_max_position_embeddings=4096,
        max_position_embeddings=131072,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **factors},
    )
    rope = shrink(whole).rope_parameters
    assert rope["original_max_position_embeddings"] == 16 and rope["rope_type"] == "longrope"
    assert rope["long_factor"] == [2.0 + 6 * i for i in range(8)]
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    assert (
        shrink(config_of("llama", rope_parameters=dynamic)).max_position_embeddings == 16
    )  # the limit itself
    assert shrink(config_of("llama")).max_position_embeddings == 256


def test_special_tokens_move_inside() -> None:
    small = shrink(config_of("llama", vocab_size=128256, bos_token_id=128000, eos_token_id=[128001, 128009]))
    assert (small.bos_token_id, small.eos_token_id) == (317, [318, 319])
    assert shrink(config_of("llama")).bos_token_id == 1


def test_the_reason_is_told() -> None:
    config = config_of("llama")
    config.num_key_value_heads = 3
    config.hidden_act = "no-such-thing"
    with pytest.raises(TwinError, match="no-such-thing"):
        twin(config)
