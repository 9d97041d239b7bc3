"""The update of all slots at once, as GPUs have it, against the one run by run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from spring.engine.lora import AdapterBank
from spring.engine.lowrank import Route
from spring.engine.packing import pack_rows
from spring.engine.settings import Lora
from spring.engine.spread import keep, mix, spread_out

CPU = torch.device("cpu")
LENGTHS, SLOTS = [3, 1, 4, 2, 5], [1, 0, -1, 1, 2]


def bank_of(make_model: Callable[..., Any], dropout: float) -> AdapterBank:
    config = Lora(r=4, alpha=8, dropout=dropout, target_modules=("q_proj", "v_proj"))
    bank = AdapterBank(make_model(), config, slots=3)
    bank.flat.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return bank


def test_it_is_the_same_as_run_by_run(make_model: Callable[..., Any]) -> None:
    """Values and gradients; a row of the base model stands between, two rows share a slot."""
    bank = bank_of(make_model, 0.0)
    layer = next(iter(bank.layers.values()))
    pack = pack_rows([[1] * n for n in LENGTHS], SLOTS, device=CPU)
    runs = bank._plan(pack, None)
    together = Route(runs.runs, None, None, pack.laid, spread_out(LENGTHS, SLOTS, None, CPU))
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(1, pack.laid, 32, generator=generator) for _ in range(2))
    found = []
    for route in (runs, together):
        with bank.training(), bank.using(route):
            inputs = x.clone().requires_grad_()
            y = layer(inputs)
            views = [view for slot in range(3) for view in (layer.a[slot], layer.b[slot])]
            found.append([y, *torch.autograd.grad((y * weight[..., : y.shape[-1]]).sum(), [inputs, *views])])
    assert (found[0][0] - layer.base(x)).abs().max() > 0.1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_rows_mask_is_its_own(make_model: Callable[..., Any]) -> None:
    """Whoever else is in the batch; other seeds and other layers have other masks."""
    bank = bank_of(make_model, 0.5)
    first, second = list(bank.layers.values())[:2]
    x = torch.rand(1, 9, 32, generator=torch.Generator().manual_seed(1)) + 1

    def run(layer: Any, lengths: list[int], slots: list[int], seeds: list[int]) -> Tensor:
        spread = spread_out(lengths, slots, seeds, CPU)
        with bank.using(Route([(0, 0, 1)], None, None, sum(lengths), spread)), torch.no_grad():
            return layer(x[:, : sum(lengths)])[0] - layer.base(x[:, : sum(lengths)])[0]

    alone = run(first, [4], [1], [10])
    torch.testing.assert_close(run(first, [4, 5], [1, 0], [10, 20])[:4], alone, rtol=0, atol=1e-5)
    moved = run(first, [4, 4], [-1, 1], [0, 10])[4:]
    assert not torch.allclose(moved, alone)  # other tokens
    x[:, 4:8] = x[:, :4].clone()
    torch.testing.assert_close(run(first, [4, 4], [-1, 1], [0, 10])[4:], alone, rtol=0, atol=1e-5)
    assert not torch.allclose(run(first, [4], [1], [11]), alone, atol=1e-2)
    kept = [keep(torch.full((4,), 10 + n), torch.arange(4), 32, 0.5) for n in (first.number, second.number)]
    assert not torch.equal(*kept)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
def test_dropout_rate(p: float) -> None:
    """200 000 numbers: 5 standard deviations are below 0.006, and neither rows nor columns stand out."""
    kept = keep(torch.arange(200), torch.zeros(200, dtype=torch.long), 1000, p).float()
    assert 1 - kept.mean().item() == pytest.approx(p, abs=0.006)
    assert (kept.mean(0) - (1 - p)).abs().max() < 6 * (p * (1 - p) / 200) ** 0.5
    assert (kept.mean(1) - (1 - p)).abs().max() < 6 * (p * (1 - p) / 1000) ** 0.5
    first, second = kept[:, :-1].flatten(), kept[:, 1:].flatten()
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.012


def test_mix_is_splitmix64() -> None:
    """The first numbers of its reference implementation from the seed 1234567, as 64 bits without a sign."""
    golden, found = 0x9E3779B97F4A7C15, []
    for step in (1, 2, 3):
        state = (1234567 + step * golden) % (1 << 64)
        signed = state - (1 << 64) if state >= 1 << 63 else state
        found.append(int(mix(torch.tensor([signed]))) % (1 << 64))
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
