"""Divergences of adapters against PEFT's own model and PyTorch's formula, on both roads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spring.engine import divergence
from spring.engine.divergence import divergences, response_states
from spring.engine.lora import AdapterBank
from spring.engine.peft import save_adapter
from spring.engine.roads import road_of, set_road
from spring.engine.settings import Lora
from spring.engine.texts import Text

MakeModel = Callable[..., Any]
LORA = Lora(r=4, alpha=12, dropout=0.3, target_modules=("q_proj", "v_proj"))
TEXTS = [Text((5, 6, 7), (8, 9, 10, 11)), Text((5, 6, 7, 30, 31), (12,)), Text((40,), (41, 42))]


@pytest.fixture
def banked(make_model: MakeModel) -> tuple[Any, AdapterBank]:
    model = make_model()
    bank = AdapterBank(model, LORA, slots=2)
    bank.flat.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    return model, bank


def plain(make_model: MakeModel, bank: AdapterBank, slot: int, folder: Path) -> Any:
    """The tiny model with a slot's adapter, loaded by PEFT; slot -1 without."""
    if slot < 0:
        return make_model()
    from peft import PeftModel

    model = make_model()
    save_adapter(bank.state(slot), LORA, folder / str(slot), base_model="some/model", model=model)
    return PeftModel.from_pretrained(model, folder / str(slot)).eval()


def expected(model: Any, other: Any, texts: Sequence[Text]) -> np.ndarray:
    """sum of p log (p / q) in float64 at every response position, text by text, from whole logits."""
    found: list[Tensor] = []
    for text in texts:
        row = torch.tensor([text.prompt + text.response])
        with torch.no_grad():
            p, q = (m(row).logits[0].double().softmax(-1) for m in (model, other))
        found.append((p * (p / q).log()).sum(-1)[len(text.prompt) - 1 : -1])
    return torch.cat(found).numpy()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", [1, 1000])
def test_equals_peft(
    padded: bool,
    budget: int,
    banked: tuple[Any, AdapterBank],
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Adapter from base, adapter from adapter, and the other way round; chunks of two positions."""
    model, bank = banked
    set_road(model, replace(road_of(model), padded=padded))
    monkeypatch.setattr(divergence, "NUMBERS", 2 * 320)
    states = response_states(model, bank, TEXTS, [1, -1, 0], budget=budget)
    readers = {slot: plain(make_model, bank, slot, tmp_path) for slot in (-1, 0, 1)}
    found = {}
    for mine, other in ((0, -1), (1, -1), (0, 1), (1, 0)):
        found[mine, other] = divergences(model, states[mine], states[other])
        assert found[mine, other].shape == (4 + 1 + 2,)
        np.testing.assert_allclose(
            found[mine, other], expected(readers[mine], readers[other], TEXTS), rtol=0, atol=2e-5
        )
    assert min(values.min() for values in found.values()) > 1e-3, "adapters must differ"
    assert np.abs(found[0, 1] - found[1, 0]).max() > 1e-3, "the direction must show"


def test_nothing_lies_between_equals(banked: tuple[Any, AdapterBank]) -> None:
    model, bank = banked
    states = response_states(model, bank, TEXTS, [0], budget=1000)
    assert divergences(model, states[0], states[0]).tolist() == [0] * 7


def test_what_is_no_number_shows(banked: tuple[Any, AdapterBank]) -> None:
    model, bank = banked
    states = response_states(model, bank, TEXTS, [0, -1], budget=1000)
    states[0][2] = float("nan")
    assert np.isnan(divergences(model, states[0], states[-1])).tolist() == [i == 2 for i in range(7)]
