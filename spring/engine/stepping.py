"""Attention of each row's newest token to all that its row holds, on a processor (numba).

Batched products are made for many queries a key; here there are G, the heads that share a key's. Each key and
value is read once, those of a row's own tokens alone, and the rows are shared out among the cores. Rounding
happens where transformers' `eager` attention rounds.

Shapes: n rows, H heads of queries, K of keys, G = H / K, C room for tokens, d and e widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from spring.engine.kernels import FAST, ONE, F, compiled, down, exp, largest, up
from spring.engine.passes import BOUNDLESS, array

SPLIT = 2**18  # numbers of keys from which on more than one core is worth it
inside: Callable[..., Any] = njit(nogil=True, fastmath=FAST, error_model="numpy")


@inside
def score(query: Any, keys: Any, scaling: Any, scores: Any) -> None:
    """Query [G, d] times keys [T, d] -> scores [G, T], scaled."""
    for t in range(keys.shape[0]):
        key = keys[t]
        for g in range(query.shape[0]):
            total, one = F(0), query[g]
            for j in range(one.size):
                total += one[j] * up(key[j])
            scores[g, t] = up(down(keys, total)) * scaling


@inside
def softmax(scores: Any, like: Any) -> None:
    """Scores [G, T] -> probabilities in their place, as `like` would store them."""
    for g in range(scores.shape[0]):
        row = scores[g]
        most, total = largest(row), F(0)
        for t in range(row.size):
            row[t] = exp(row[t] - most)
        for t in range(row.size):
            total += row[t]
        share = ONE / total
        for t in range(row.size):
            row[t] = up(down(like, row[t] * share))


@inside
def mix(weights: Any, values: Any, out: Any) -> None:
    """Weights [G, T] times values [T, e] -> out [G, e]; four tokens at a time, to touch `out` less often."""
    tokens, width = values.shape
    fours = tokens - tokens % 4
    out[:] = F(0)
    for t in range(0, fours, 4):
        a, b, c, d = values[t], values[t + 1], values[t + 2], values[t + 3]
        for g in range(out.shape[0]):
            total, w = out[g], weights[g, t : t + 4]
            for j in range(width):
                total[j] += w[0] * up(a[j]) + w[1] * up(b[j]) + w[2] * up(c[j]) + w[3] * up(d[j])
    for t in range(fours, tokens):
        for g in range(out.shape[0]):
            for j in range(width):
                out[g, j] += weights[g, t] * up(values[t, j])


@compiled
def attend_rows(query: Any, keys: Any, values: Any, ends: Any, scaling: Any, window: int, out: Any) -> None:
    """query [n, H, d], keys [n, K, C, d], values [n, K, C, e], ends [n]: tokens of a row -> out [n, H, e]."""
    heads, group = keys.shape[1], query.shape[1] // keys.shape[1]
    scores = np.empty((group, keys.shape[2]), F)
    asked, found = np.empty((group, keys.shape[3]), F), np.empty((group, values.shape[3]), F)
    for i in range(keys.shape[0]):
        start, stop = max(0, ends[i] - window), ends[i]
        seen = scores[:, : stop - start]
        for k in range(heads):
            for g in range(group):
                for j in range(asked.shape[1]):
                    asked[g, j] = up(query[i, k * group + g, j])
            score(asked, keys[i, k, start:stop], scaling, seen)
            softmax(seen, values)
            mix(seen, values[i, k, start:stop], found)
            for g in range(group):
                for j in range(found.shape[1]):
                    out[i, k * group + g, j] = down(out, found[g, j])


def attend(
    query: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int], scaling: float, window: int | None
) -> Tensor:
    """One new token per row, query [H, n, d], keys [n, K, C, d] and values [n, K, C, e] -> [n, H, e]."""
    query, keys, values = query.transpose(0, 1).contiguous(), keys.contiguous(), values.contiguous()
    out = query.new_empty(*query.shape[:2], values.shape[3])
    arrays = [array(query), array(keys), array(values), np.array(lengths, np.int64)]
    threads = min(torch.get_num_threads(), len(lengths)) if keys.numel() >= SPLIT else 1
    bounds = [len(lengths) * part // threads for part in range(threads + 1)]

    def work(part: tuple[int, int]) -> None:
        rows = slice(*part)
        attend_rows(*(x[rows] for x in arrays), F(scaling), window or BOUNDLESS, array(out)[rows])

    mine, *others = pairwise(bounds)
    waiting = [_pool().submit(work, part) for part in others]
    work(mine)
    for one in waiting:
        one.result()
    return out


def pays() -> bool:
    """Whether this is faster than PyTorch's batched products here (docs/performance.md).

    With AVX2 alone it is. With AVX-512 they read at the memory's rate, in float32, and this does not; what it
    does where bfloat16 is fast has not been measured.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor()
