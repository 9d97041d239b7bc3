"""Kernels against PyTorch, and which modules of a model they stand in for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spring.engine import fused, kernels
from spring.engine.fused import RMSNorm, SwiGLU, fuse
from spring.engine.passes import add_scaled, array, causal_softmax, causal_softmax_backward, narrow, widen

DTYPES = [torch.float32, torch.bfloat16]
NEAR = {torch.float32: 1e-5, torch.bfloat16: 0.02}


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """What a function gives, and the gradients of its inputs under fixed weights of its output."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    grads = torch.autograd.grad(out, leaves, drawn(*out.shape, dtype=out.dtype))
    return [out.detach(), *grads]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As transformers' Llama."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 5, 33), (7, 64), (1, 1, 1)])
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight = 3 * drawn(*shape, dtype=dtype), drawn(shape[-1], dtype=dtype)
    found = with_gradients(lambda x: RMSNorm.apply(x, weight, 1e-3), x)
    for one, other in zip(found, with_gradients(lambda x: rms_norm(x, weight, 1e-3), x), strict=True):
        torch.testing.assert_close(one, other, rtol=NEAR[dtype], atol=NEAR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu(dtype: torch.dtype) -> None:
    """And far out on both sides, where e^x leaves float32."""
    gate, value = 5 * drawn(1, 9, 37, dtype=dtype), drawn(1, 9, 37, dtype=dtype)
    gate[0, 0, :4] = torch.tensor([-300.0, -89, 89, 300])
    found = with_gradients(SwiGLU.apply, gate, value)
    expected = with_gradients(lambda gate, value: F.silu(gate) * value, gate, value)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=NEAR[dtype], atol=NEAR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_causal_softmax(window: int | None, dtype: torch.dtype) -> None:
    """Two heads' 5 new tokens behind 2 known ones; a window counts the token itself."""
    scores = 4 * drawn(2, 5, 7, dtype=dtype)
    behind = torch.arange(2, 7)[:, None] - torch.arange(7)
    seen = (behind >= 0) & (behind < (window or 7))

    def plain(scores: Tensor) -> Tensor:
        return (scores.float() * 0.3).masked_fill(~seen, float("-inf")).softmax(2).to(dtype)

    expected, gradient = with_gradients(plain, scores)
    found = causal_softmax(scores.clone(), 5, 0.3, window)
    torch.testing.assert_close(found, expected, rtol=NEAR[dtype], atol=NEAR[dtype])
    assert (found[:, ~seen] == 0).all()
    grad = drawn(2, 5, 7, dtype=dtype)  # as `with_gradients` draws it
    found = causal_softmax_backward(grad, found, 5, 0.3, window)
    torch.testing.assert_close(found, gradient, rtol=NEAR[dtype], atol=NEAR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_passes_of_low_rank_updates(dtype: torch.dtype) -> None:
    """1 in 4 of the draws is below the least; rounding is that of one copy."""
    x, update = drawn(4, 6, dtype=dtype), drawn(4, 6)
    draws = torch.arange(24, dtype=torch.int16).view(4, 6)
    kept = draws >= 6
    assert torch.equal(widen(x, draws, 6), x.float() * kept)
    assert torch.equal(widen(x, None, 6), x.float())
    out = torch.full_like(x, 9)
    narrow(update, draws, 6, out)
    assert torch.equal(out, (update * kept).to(dtype))
    add_scaled(x, update, 0.5, out)
    torch.testing.assert_close(out, (x.float() + 0.5 * update).to(dtype), rtol=1e-6, atol=1e-6)


def test_exponentials() -> None:
    """To two units in the last place over all that float32 holds; silu(x) = x / (1 + e^-x)."""
    x = torch.linspace(-85, 85, 100_001)
    out = torch.empty_like(x)
    kernels.swiglu(array(x), array(torch.ones_like(x)), array(out))
    torch.testing.assert_close(out.double(), x.double() * torch.sigmoid(x.double()), rtol=4e-7, atol=1e-37)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_shows(bad: float, dtype: torch.dtype) -> None:
    """Training that diverged must be seen to have."""
    x = torch.ones(2, 8, dtype=dtype)
    x[0, 3] = bad
    one = torch.ones_like(x)
    normed = RMSNorm.apply(x, one[0], 1e-5)
    assert normed[0].isnan().any() and normed[1].isfinite().all()
    assert not SwiGLU.apply(x, one)[0, 3].isfinite() and SwiGLU.apply(x, one)[1].isfinite().all()
    scores = x.view(1, 2, 8).clone()
    assert not causal_softmax(scores, 2, 1.0, None)[0, 0].isfinite().all()


# --- models -----------------------------------------------------------------------------------------------


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(2, 14).view(2, 6)).logits


@pytest.mark.parametrize("kind", ["llama", "qwen3", "granite"])
def test_a_model_computes_the_same(kind: str, make_model: Callable[..., Any]) -> None:
    model = make_model(kind)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.uniform_(0.5, 1.5)
    before, layers = logits(model), model.config.num_hidden_layers
    norms = 4 if kind == "qwen3" else 2  # of queries and keys, too
    assert fuse(model) == (norms + 1) * layers + 1
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)


def test_norms_of_another_kind_stay(make_model: Callable[..., Any]) -> None:
    """Gemma's norms add 1 to their weight, and its blocks have another function: nothing is taken over."""
    model = make_model("gemma3_text", head_dim=8)
    before = logits(model)
    assert fuse(model) == 0
    assert torch.equal(logits(model), before)


def test_what_computes_otherwise_stays() -> None:
    """By name a norm, or a block with a gate; and weights that the kernels do not know."""

    class OffRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return rms_norm(x, self.weight, self.eps) * 1.001

    class Clipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.down_proj(F.silu(self.gate_proj(x)).clamp(max=1) * self.up_proj(x))

    class Routed(Clipped):
        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            return super().forward(x) * weights

    class Limited(Clipped):
        def forward(self, x: Tensor) -> Tensor:
            gate, value = self.gate_proj(x).clamp(max=10), self.up_proj(x).clamp(-10, 10)
            return self.down_proj(F.silu(gate) * value)

    class EpsilonOutsideRMSNorm(OffRMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return self.weight * (x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps))

    for dtype in DTYPES:
        others = nn.ModuleList([OffRMSNorm(), Clipped(), Routed(), Limited(), EpsilonOutsideRMSNorm()])
        assert fuse(others.to(dtype)) == (dtype == torch.bfloat16), "1.001 is no other number there"
    assert fuse(nn.ModuleList([nn.RMSNorm(8, eps=1e-6).double()])) == 0
    assert fuse(nn.ModuleList([nn.RMSNorm(8, eps=1e-6)])) == 1, "PyTorch's own is one"


class ScaledRMSNorm(nn.Module):
    """An RMS norm, times a number of its own."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.weight, self.eps, self.scale = nn.Parameter(torch.ones(8)), 1e-6, scale

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps) * self.scale


class Gated(nn.Module):
    """A feed-forward block with SiLU, doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def test_one_is_tried_of_modules_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one class, but with other numbers in it or in another buffer, each is tried."""
    tried, agrees = [], fused.agrees
    monkeypatch.setattr(
        fused, "agrees", lambda module, *others: tried.append(module) or agrees(module, *others)
    )
    norms = nn.ModuleList(ScaledRMSNorm(scale) for scale in (1, 1, 2, 1))
    own = ScaledRMSNorm(1)
    own.register_buffer("scale_of_old", torch.ones(1))
    norms[3].weight.data.fill_(5)
    assert fuse(nn.ModuleList([norms, own])) == 4
    assert [module.scale for module in tried] == [1, 2, 1]
    assert tried[0] is norms[0] and tried[2] is own


def test_a_block_of_zeros_says_nothing_of_others() -> None:
    """Layers that were put in later begin with zeros, and would agree whatever they compute."""
    first, second = Gated(), Gated()
    nn.init.zeros_(first.down_proj.weight)
    assert fuse(nn.ModuleList([first, second])) == 1
    assert "forward" not in vars(second)
