"""Adapters as others load them: PEFT puts them where they were trained, on every kind of model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from spring.engine.peft import PREFIX, load_adapter, save_adapter, tensor_name
from spring.engine.settings import Lora

MakeModel = Callable[..., Any]
IDS = torch.tensor([[5, 6, 7, 8, 9]])
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
OFTEN = "is_gradient_checkpointing"  # PEFT 0.21.2 asks transformers 5.23 by a name that is to go


def built(kind: str, make_model: MakeModel) -> Any:
    """A tiny model of a kind, the same at every call."""
    torch.manual_seed(0)
    if kind == "gemma3":
        from transformers import Gemma3Config, Gemma3ForConditionalGeneration

        text = {**make_model("gemma3_text", head_dim=8).config.to_dict(), "model_type": "gemma3_text"}
        vision = VISION | {"image_size": 28, "patch_size": 14}
        config: Any = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
        torch.manual_seed(0)
        return Gemma3ForConditionalGeneration(config).eval()
    if kind == "gemma4":
        from transformers import Gemma4Config, Gemma4ForConditionalGeneration

        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 320}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8}
        sizes |= {"vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8}
        layers = {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]}
        vision = VISION | {"num_key_value_heads": 2, "head_dim": 16}
        config = Gemma4Config(text_config={**sizes, **layers}, vision_config=vision)
        return Gemma4ForConditionalGeneration(config).eval()
    more: dict[str, dict[str, Any]] = {
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        | {"decoder_sparse_step": 2, "head_dim": 8},  # every other block has experts
        "mixtral": {"num_local_experts": 4},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    }
    return make_model(kind, **more.get(kind, {}))


def adapter(model: Any, targets: tuple[str, ...]) -> dict[str, Tensor]:
    """Random numbers for the layers of the decoder that have these names, B not zero."""
    decoder, state = set(model.get_decoder().modules()), {}
    generator = torch.Generator().manual_seed(1)
    for name, layer in model.named_modules():
        if layer in decoder and isinstance(layer, (nn.Linear, Conv1D)) and name.split(".")[-1] in targets:
            into, out = layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]
            state[tensor_name(name, "A")] = 0.3 * torch.randn(4, into, generator=generator)
            state[tensor_name(name, "B")] = 0.3 * torch.randn(out, 4, generator=generator)
    return state


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS).logits
    return found


def by_hand(model: Any, state: dict[str, Tensor], scale: float) -> Tensor:
    """Logits with scale B A added to the weights."""
    with torch.no_grad():
        for key in state:
            if ".lora_A." in key:
                name = key[len(PREFIX) :].rsplit(".", 2)[0]
                layer = model.get_submodule(name)
                update = scale * state[tensor_name(name, "B")] @ state[key]
                layer.weight += update.T if isinstance(layer, Conv1D) else update
    return logits(model)


FULL = "full names"
MLP = ("gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("kind", "targets", "written"),
    [
        ("llama", ("q_proj", "down_proj"), ["down_proj", "q_proj"]),
        ("mixtral", ("q_proj", "v_proj"), ["q_proj", "v_proj"]),
        ("qwen3_moe", ("q_proj", "v_proj"), ["q_proj", "v_proj"]),
        ("qwen3_moe", ("q_proj", *MLP), ["q_proj"]),
        ("qwen3_moe", MLP, []),
        ("gpt2", ("c_attn", "c_fc"), ["c_attn", "c_fc"]),
        ("gemma3", ("q_proj", "v_proj"), FULL),
        ("gemma4", ("q_proj", "down_proj"), FULL),
    ],
)
def test_peft_puts_it_where_it_was_trained(
    kind: str, targets: tuple[str, ...], written: Any, make_model: MakeModel, tmp_path: Path
) -> None:
    """Without a warning, and with the numbers of the plain formula; each must differ from the base model."""
    from peft import PeftModel

    model, config = built(kind, make_model), Lora(r=4, alpha=12, dropout=0.05, target_modules=targets)
    state = adapter(model, targets)
    save_adapter(state, config, tmp_path, base_model="some/model", model=model)
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    layers = sorted({name[len(PREFIX) :].rsplit(".", 2)[0] for name in state})
    assert len(layers) >= len(targets)
    assert said["target_modules"] == (layers if written == FULL else written)
    assert said["fan_in_fan_out"] == (kind == "gpt2")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded: Any = PeftModel.from_pretrained(built(kind, make_model), tmp_path).eval()
    assert [str(one.message) for one in told if OFTEN not in str(one.message)] == []
    base, expected = logits(model), by_hand(built(kind, make_model), state, 12 / 4)
    assert (expected - base).abs().max() > 0.05, "the adapter must change the model, or the test is empty"
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-4)
    loaded.save_pretrained(tmp_path / "again")
    assert load_adapter(tmp_path / "again").keys() == state.keys()


def test_the_base_model_is_named_as_others_load_it(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    config = Lora(r=4, alpha=8, dropout=0.0, target_modules=("q_proj",))
    state = adapter(model, config.target_modules)
    save_adapter(state, config, tmp_path, base_model="some/model", revision="abc", model=model)
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"]) == ("some/model", "abc")
