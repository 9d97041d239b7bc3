"""What training keeps of a token, against what torch allocates and does not give back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.training import allocated

from spring.engine.budget import CPU_TOKENS, JOINED, Kept, Passes, joined, training_passes
from spring.engine.fused import fuse
from spring.engine.keeping import kept
from spring.engine.lora import AdapterBank
from spring.engine.roads import Road, set_road
from spring.engine.settings import Lora
from spring.engine.texts import Text

TEXT = Text(tuple(range(5, 60)), tuple(range(5, 40)))
TARGETS = {"llama": ("q_proj", "v_proj"), "gemma3_text": ("q_proj", "v_proj"), "gpt2": ("c_attn",)}
LORA = Lora(r=4, alpha=8, dropout=0.1, target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "down_proj"))


@pytest.mark.parametrize("how", ["kernels", "layers", "eager"])
def test_it_is_what_torch_holds(how: str, make_model: Callable[..., Any]) -> None:
    """Norms and feed-forward blocks by kernels and by the model's layers; attention that keeps weights."""
    model = make_model(hidden_size=64, intermediate_size=192, num_attention_heads=8)
    if how == "kernels":
        assert fuse(model)
    if how == "eager":
        model.set_attn_implementation("eager")
        set_road(model, Road(padded=True, layers=frozenset(LORA.target_modules)))
    bank = AdapterBank(model, LORA, slots=1)
    found = kept(model, bank, TEXT)
    for tokens in (128, 320):
        assert found.of(tokens) == pytest.approx(allocated(model, bank, tokens), rel=0.1)
    assert (found.pair > 0) == (how == "eager")
    if how == "eager":  # weights of 8 heads in 2 layers, in float32, once at least
        assert found.pair >= 8 * 2 * 4
    bank.detach(model)


def test_kernels_keep_less(make_model: Callable[..., Any]) -> None:
    """Found for each model, and for each width of its adapters once."""
    found = []
    for fused in (False, True):
        model = make_model()
        if fused:
            fuse(model)
        bank = AdapterBank(model, LORA, slots=2)
        found.append(kept(model, bank, TEXT))
        assert kept(model, bank, TEXT) is found[-1]
        bank.detach(model)
    assert found[1].token < 0.9 * found[0].token
    assert not bank.flat.any() and not any(view.requires_grad for view in bank.views(0))


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2"])
def test_weighing_leaves_nothing_behind(kind: str, make_model: Callable[..., Any]) -> None:
    """Neither the graph that was weighed nor, through it, the bank."""
    model = make_model(kind)
    bank = AdapterBank(model, LORA.model_copy(update={"target_modules": TARGETS[kind]}), slots=2)
    kept(model, bank, TEXT)
    flat = weakref.ref(bank.flat)
    bank.detach(model)
    del bank
    gc.collect()
    assert flat() is None


def test_passes_by_hand(tiny: Any) -> None:
    """A megabyte; 500 bytes kept of a token, twice taken; again: a layer of 2, and 2 inputs of 32 numbers."""
    one = Kept(token=500.0)
    assert training_passes(tiny, one, 1e-3, longest=500) == Passes(1000, checkpoint=False)
    assert training_passes(tiny, one, 1e-3, longest=1000) == Passes(1000, checkpoint=False)
    assert training_passes(tiny, one, 1e-4, longest=101) == Passes(98, checkpoint=True)  # 1012 bytes
    assert training_passes(tiny, one, 1e-4, longest=90, checkpoint=True) == Passes(98, checkpoint=True)
    pairs = Kept(token=500.0, pair=5.0)  # a text of 100 tokens: 100 * 500 + 100 * 100 * 5
    assert training_passes(tiny, pairs, 1e-3, longest=100) == Passes(500, checkpoint=False)
    assert training_passes(tiny, one, 1e-9, longest=1).tokens == 64
    assert training_passes(tiny, one, 1e3, longest=5000) == Passes(CPU_TOKENS, checkpoint=False)
    torch.set_num_threads(2)
    try:
        assert training_passes(tiny, one, 1e-3, longest=500) == Passes(500, checkpoint=False)
        assert training_passes(tiny, one, 1e-3, longest=501).checkpoint
    finally:
        torch.set_num_threads(1)


def test_a_batch_that_fits_is_whole_and_more_are_joined_to_a_bound() -> None:
    cpu = torch.device("cpu")
    assert [joined(cpu, budget) for budget in (64, JOINED, CPU_TOKENS)] == [64, JOINED, JOINED]
    assert joined(torch.device("cuda"), 60_000) == 60_000
