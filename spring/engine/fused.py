"""Norms and feed-forward blocks of a model on a processor, computed by the kernels of kernels.py.

The model stays transformers' own. A module is taken over only if the kernels give what it gives, on numbers
drawn for the purpose: whatever is called RMSNorm or has a gate and computes otherwise stays as it is. Of
modules that are alike but for their weights, one is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from spring.engine import kernels
from spring.engine.kernels import F
from spring.engine.parallel import one_core
from spring.engine.passes import array, has_kernels

ROWS = 16  # of the numbers that decide
PLAIN = (bool, int, float, str, NoneType)
SPREADS = (3.0, 1e-3, 1e3)  # small ones show where epsilon is, large ones a limit (DeepSeek 4, gpt-oss)


def fuse(model: nn.Module) -> int:
    """Takes over what can be taken over of a frozen model; gives the number of modules."""
    taken, known = 0, dict[Hashable, bool]()
    with one_core():
        for module in model.modules():
            for fits, ours in ((is_norm, norm), (is_swiglu, feed_forward)):
                width = fits(module)
                if not width:
                    continue
                like = (fits, *_settings(module))
                found = known[like] if like in known else agrees(module, partial(ours, module), width)
                if all(bool(weight.any()) for weight in module.parameters()):  # zeros say nothing of others
                    known[like] = found
                if found:
                    module.forward = partial(ours, module)
                    taken += 1
    return taken


def _settings(module: nn.Module) -> Iterator[Hashable]:
    """What a module computes by, beside its weights: equal for modules of equal code and settings."""
    for part in module.modules():
        yield id(type(part))
        for name, value in vars(part).items():
            if not name.startswith("_"):
                yield name, value if isinstance(value, PLAIN) else id(value)
    for name, weight in module.named_parameters():
        yield name, weight.shape, weight.dtype, weight.device
    yield from (id(buffer) for buffer in module.buffers())


def agrees(module: nn.Module, ours: Callable[[Tensor], Tensor], width: int) -> bool:
    """Whether both give the same for x [ROWS, width] of every size, but for a last bit here and there.

    What takes more than x, or x of another shape, only looks like one of ours.
    """
    weight = next(module.parameters())
    if not has_kernels(weight):
        return False
    drawn = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(0))
    near = 8 * torch.finfo(weight.dtype).eps
    for spread in SPREADS:
        x = (spread * drawn).to(weight.dtype)
        try:
            with torch.no_grad():
                theirs, found = module(x).float(), ours(x).float()
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False
        if not bool(((theirs - found).abs() <= near * theirs.abs().amax()).all()):
            return False
    return True


# --- RMS norm (arXiv 1910.07467) --------------------------------------------------------------------------


def is_norm(module: nn.Module) -> int:
    """The width of what may be an RMS norm as Llama has it; else 0."""
    names = [name for name, _ in module.named_parameters()]
    fits = type(module).__name__.endswith("RMSNorm") and names == ["weight"] and epsilon(module) is not None
    return len(module.weight) if fits else 0  # type: ignore[arg-type]


def epsilon(module: nn.Module) -> float | None:
    """What a norm adds to the mean square."""
    return getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)


def norm(module: Any, x: Tensor) -> Tensor:
    """x [*, D] normed."""
    return RMSNorm.apply(x, module.weight, epsilon(module))


class RMSNorm(torch.autograd.Function):
    """A frozen norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [*, D], weight [D] -> [*, D]."""
        rows = x.reshape(-1, x.shape[-1])
        out, scale = torch.empty_like(rows), torch.empty(len(rows))
        kernels.rms_norm(array(rows), array(weight), F(eps), array(out), array(scale))
        ctx.save_for_backward(rows, weight, scale)
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of x."""
        rows, weight, scale = ctx.saved_tensors
        out, grad = torch.empty_like(rows), grads[0].reshape(rows.shape)
        kernels.rms_norm_backward(array(grad), array(rows), array(weight), array(scale), array(out))
        return out.view(grads[0].shape), None, None


# --- SwiGLU (arXiv 2002.05202) ----------------------------------------------------------------------------


def is_swiglu(module: nn.Module) -> int:
    """The width of what may be a feed-forward block as Llama has it; else 0."""
    layers = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(layer, nn.Linear) for layer in layers):
        return 0
    return layers[0].in_features  # type: ignore[union-attr]


def feed_forward(module: Any, x: Tensor) -> Tensor:
    """x [*, D] -> [*, D]; whatever stands for the three layers now, adapters included."""
    return module.down_proj(SwiGLU.apply(module.gate_proj(x), module.up_proj(x)))


class SwiGLU(torch.autograd.Function):
    """silu(gate) * value."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        """[*, D] each."""
        gate, value = gate.contiguous(), value.contiguous()
        out = torch.empty_like(gate)
        kernels.swiglu(*(array(x.view(-1)) for x in (gate, value, out)))
        ctx.save_for_backward(gate, value)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of both."""
        gate, value = ctx.saved_tensors
        of_gate, of_value = torch.empty_like(gate), torch.empty_like(value)
        tensors = (grads[0].contiguous(), gate, value, of_gate, of_value)
        kernels.swiglu_backward(*(array(x.view(-1)) for x in tensors))
        return of_gate, of_value
