"""Passes over tensors: on a processor by the kernels of kernels.py, elsewhere by PyTorch."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor

from spring.engine import kernels
from spring.engine.kernels import F

BOUNDLESS = 1 << 30  # a window that nothing is outside of


def has_kernels(x: Tensor) -> bool:
    """Whether the kernels know a tensor's place and numbers."""
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32)


def array(x: Tensor) -> NDArray:
    """The memory of a tensor as the kernels take it."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def least(p: float) -> int:
    """The least draw of 16 bits that is kept under dropout p, which is met to 1/65536."""
    return round(p * 65536) - 32768


def widen(x: Tensor, drawn: Tensor | None, least: int) -> Tensor:
    """x [N, D] in float32, 0 where `drawn` [N, D] (int16; null: nowhere) is less than `least`."""
    if drawn is None:
        return x.float()
    if not has_kernels(x):
        return x.float() * (drawn >= least)
    out = torch.empty(x.shape)
    kernels.widen_kept(array(x), array(drawn), least, array(out))
    return out


def narrow(x: Tensor, drawn: Tensor | None, least: int, out: Tensor) -> None:
    """Puts x [N, D], of float32, into `out` as `widen` has it."""
    if drawn is not None and has_kernels(out):
        kernels.narrow_kept(array(x), array(drawn), least, array(out))
    else:
        out.copy_(x if drawn is None else x * (drawn >= least))


def add_scaled(x: Tensor, update: Tensor, scaling: float, out: Tensor) -> None:
    """Puts x + scaling * update [N, D], rounded once, into `out`; `update` is of float32."""
    if has_kernels(x):
        kernels.add_scaled(array(x), array(update), F(scaling), array(out))
    else:
        out.copy_(torch.add(x.float(), update, alpha=scaling))


def causal_softmax(scores: Tensor, new: int, scaling: float, window: int | None) -> Tensor:
    """Scores [*, C] of `new` queries by turns -> probabilities in their place."""
    rows = scores.view(-1, new, scores.shape[-1])
    kernels.causal_softmax(array(rows), new, F(scaling), window or BOUNDLESS)
    return scores


def causal_softmax_backward(
    grad: Tensor, probs: Tensor, new: int, scaling: float, window: int | None
) -> Tensor:
    """The gradient of such probabilities -> that of their scores in its place."""
    g, p = (array(x.view(-1, new, x.shape[-1])) for x in (grad, probs))
    kernels.causal_softmax_backward(g, p, new, F(scaling), window or BOUNDLESS)
    return grad


def target_logps(logits: Tensor, targets: Tensor, *, replace: bool = False) -> Tensor:
    """log softmax of logits [n, V] at the targets [n], in float32.

    replace: the probabilities then stand in the logits' place.
    """
    if has_kernels(logits):
        assert logits.is_contiguous() or not replace, "they would stand in the place of a copy"
        out = torch.empty(len(logits))
        kernels.target_logps(array(logits.contiguous()), array(targets), array(out), replace)
        return out
    logps = torch.log_softmax(logits, 1, dtype=torch.float32)
    out = logps.gather(1, targets[:, None])[:, 0]
    if replace:
        logits.copy_(logps.exp_())
    return out
