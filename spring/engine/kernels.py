"""Passes over activations on a processor, each in one go where PyTorch takes five or ten (numba).

A small model's layer spends more time on these passes than on its products. Arrays are those of tensors,
bfloat16 as its bits (uint16), and rounding happens where transformers rounds. What is no number stays none:
training that diverged must show.

Shapes: N tokens, D width, C columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# all of fast arithmetic but what would take NaN and infinity for impossible
FAST = {"reassoc", "contract", "arcp", "nsz"}
F, ONE = np.float32, np.float32(1)
INT, FLOAT, SHORT = ir.IntType(32), ir.FloatType(), ir.IntType(16)


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Machine code that holds no lock, kept on disk where that can be."""
    how: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return njit(cache=True, **how)(function)
    except RuntimeError:  # numba finds no folder that it may write to
        return njit(**how)(function)


# --- numbers ----------------------------------------------------------------------------------------------


@intrinsic
def up(context: Any, bits: Any) -> Any:
    """A stored number as float32."""
    if bits == types.float32:
        return types.float32(bits), lambda context, builder, signature, values: values[0]

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        wide = builder.shl(builder.zext(values[0], INT), ir.Constant(INT, 16))
        return builder.bitcast(wide, FLOAT)

    return types.float32(types.uint16), code


@intrinsic
def down(context: Any, array: Any, value: Any) -> Any:
    """A float32 as `array` stores it; bfloat16 to nearest, ties to even."""
    if array.dtype == types.float32:
        return types.float32(array, types.float32), lambda context, builder, signature, values: values[1]

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        wide, half = builder.bitcast(values[1], INT), ir.Constant(INT, 16)
        odd = builder.and_(builder.lshr(wide, half), ir.Constant(INT, 1))
        wide = builder.add(wide, builder.add(odd, ir.Constant(INT, 0x7FFF)))
        return builder.trunc(builder.lshr(wide, half), SHORT)

    return types.uint16(array, types.float32), code


@intrinsic
def power_of_two(context: Any, exponent: Any) -> Any:
    """2 ** exponent of an int32 from -126 to 127."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        biased = builder.add(values[0], ir.Constant(INT, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(INT, 23)), FLOAT)

    return types.float32(types.int32), code


@njit(inline="always", fastmath=FAST)
def exp(x: Any) -> Any:
    """e ** x to two units in the last place, in arithmetic that processors do many of at once.

    The polynomial of the Cephes library (S. L. Moshier, 1989).
    """
    x = F(-87) if x < F(-87) else (F(88) if x > F(88) else x)
    n = np.floor(x * F(1.44269504088896341) + F(0.5))
    r = x - n * F(0.693359375) - n * F(-2.12194440e-4)
    y = F(1.9875691500e-4)
    y = y * r + F(1.3981999507e-3)
    y = y * r + F(8.3334519073e-3)
    y = y * r + F(4.1665795894e-2)
    y = y * r + F(1.6666665459e-1)
    y = y * r + F(5.0000001201e-1)
    return (y * r * r + r + ONE) * power_of_two(np.int32(n))


# --- RMS norm ---------------------------------------------------------------------------------------------


@compiled
def rms_norm(x: Any, weight: Any, eps: Any, out: Any, scale: Any) -> None:
    """x [N, D] over its root mean square, times weight [D] -> out [N, D]; scale [N]: one over the root."""
    for i in range(x.shape[0]):
        total = F(0)
        for j in range(x.shape[1]):
            total += up(x[i, j]) * up(x[i, j])
        scale[i] = ONE / np.sqrt(total / F(x.shape[1]) + eps)
        for j in range(x.shape[1]):
            normed = up(down(out, up(x[i, j]) * scale[i]))
            out[i, j] = down(out, normed * up(weight[j]))


@compiled
def rms_norm_backward(grad: Any, x: Any, weight: Any, scale: Any, out: Any) -> None:
    """The gradient of `rms_norm`'s x [N, D], from that of what it gave."""
    for i in range(x.shape[0]):
        total = F(0)
        for j in range(x.shape[1]):
            total += up(down(out, up(grad[i, j]) * up(weight[j]))) * up(x[i, j])
        mean = total * scale[i] * scale[i] / F(x.shape[1])
        for j in range(x.shape[1]):
            inner = up(down(out, up(grad[i, j]) * up(weight[j])))
            out[i, j] = down(out, (inner - up(x[i, j]) * mean) * scale[i])


# --- SwiGLU -----------------------------------------------------------------------------------------------


@compiled
def swiglu(gate: Any, value: Any, out: Any) -> None:
    """silu(gate) * value, [N D] each."""
    for i in range(out.size):
        x = up(gate[i])
        out[i] = down(out, up(down(out, x / (ONE + exp(-x)))) * up(value[i]))


@compiled
def swiglu_backward(grad: Any, gate: Any, value: Any, of_gate: Any, of_value: Any) -> None:
    """The gradients of gate and value, [N D] each."""
    for i in range(grad.size):
        x, g = up(gate[i]), up(grad[i])
        s = ONE / (ONE + exp(-x))
        of_value[i] = down(grad, g * up(down(grad, x * s)))
        of_gate[i] = down(grad, up(down(grad, g * up(value[i]))) * s * (ONE + x * (ONE - s)))


# --- attention --------------------------------------------------------------------------------------------


@njit(nogil=True, fastmath=True)
def largest(row: Any) -> Any:
    """The largest of a row; with NaN among them any."""
    most = up(row[0])
    for j in range(row.size):
        most = max(most, up(row[j]))
    return most


@compiled
def causal_softmax(scores: Any, new: int, scaling: Any, window: int) -> None:
    """Scores [n, new, C] -> probabilities in their place; query t sees keys up to C - new + t.

    window: how many of the last ones it sees, itself included.
    """
    columns = scores.shape[2]
    weights = np.empty(columns, F)
    for i in range(scores.shape[0]):
        for t in range(new):
            stop = columns - new + t + 1
            start = max(0, stop - window)
            row, scratch = scores[i, t, start:stop], weights[: stop - start]
            most, total = largest(row), F(0)
            for j in range(row.size):
                scratch[j] = exp((up(row[j]) - most) * scaling)
            for j in range(row.size):
                total += scratch[j]
            share = ONE / total
            for j in range(row.size):
                row[j] = down(row, scratch[j] * share)
            clear(scores[i, t, :start])
            clear(scores[i, t, stop:])


@compiled
def causal_softmax_backward(grad: Any, probs: Any, new: int, scaling: Any, window: int) -> None:
    """The gradient of probabilities [n, new, C] -> that of scores in its place."""
    columns = grad.shape[2]
    for i in range(grad.shape[0]):
        for t in range(new):
            stop = columns - new + t + 1
            start = max(0, stop - window)
            g, p = grad[i, t, start:stop], probs[i, t, start:stop]
            total = F(0)
            for j in range(g.size):
                total += up(g[j]) * up(p[j])
            for j in range(g.size):
                g[j] = down(g, (up(g[j]) - total) * up(p[j]) * scaling)
            clear(grad[i, t, :start])
            clear(grad[i, t, stop:])


@njit(nogil=True)
def clear(row: Any) -> None:
    """Zeros."""
    for j in range(row.size):
        row[j] = 0


# --- the output layer -------------------------------------------------------------------------------------


@compiled
def target_logps(logits: Any, targets: Any, out: Any, replace: bool) -> None:
    """log softmax of logits [N, V] at the targets [N] -> out [N].

    replace: the probabilities then stand in the logits' place.
    """
    for i in range(logits.shape[0]):
        row = logits[i]
        most, at, total = largest(row), up(row[targets[i]]), F(0)
        for j in range(row.size):
            total += exp(up(row[j]) - most)
        out[i] = at - most - np.log(total)
        if replace:
            share = ONE / total
            for j in range(row.size):
                row[j] = down(row, exp(up(row[j]) - most) * share)


# --- low-rank updates -------------------------------------------------------------------------------------


@compiled
def widen_kept(x: Any, drawn: Any, least: int, out: Any) -> None:
    """x [N, D] in float32, 0 where `drawn` [N, D] is less than `least`."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = up(x[i, j]) if drawn[i, j] >= least else F(0)


@compiled
def narrow_kept(x: Any, drawn: Any, least: int, out: Any) -> None:
    """x [N, D] in float32 as `out` stores it, 0 where `drawn` [N, D] is less than `least`."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = down(out, x[i, j] if drawn[i, j] >= least else F(0))


@compiled
def add_scaled(x: Any, update: Any, scaling: Any, out: Any) -> None:
    """x + scaling * update, [N, D] each; update in float32."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = down(out, up(x[i, j]) + update[i, j] * scaling)
