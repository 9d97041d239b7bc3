"""Attention of one new token a row, on a processor: against PyTorch's products and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spring.engine import stepping
from spring.engine.stepping import attend


def plainly(
    query: Tensor, keys: Tensor, values: Tensor, lengths: list[int], scaling: float, window: int | None
) -> Tensor:
    """Row after row, head after head; rounded where transformers' `eager` attention rounds."""
    heads, n, _ = query.shape
    group, out = heads // keys.shape[1], query.new_empty(n, heads, values.shape[3])
    for i, stop in enumerate(lengths):
        own = slice(max(0, stop - (window or stop)), stop)
        for h in range(heads):
            k, v = keys[i, h // group, own], values[i, h // group, own]
            scores = (k @ query[h, i]).float() * scaling
            out[i, h] = scores.softmax(0).to(v.dtype) @ v
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(("heads", "groups", "d", "e"), [(6, 3, 8, 8), (3, 1, 5, 7), (4, 4, 16, 3)])
def test_equals_products_row_by_row(
    dtype: torch.dtype,
    window: int | None,
    heads: int,
    groups: int,
    d: int,
    e: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of rows of 1 to 13 tokens in room for 16, whatever stands behind them; on one core and on several."""
    torch.manual_seed(0)
    lengths = [1, 13, 4, 7, 10]
    query = torch.randn(heads, len(lengths), d).to(dtype)
    keys = torch.randn(len(lengths), heads // groups, 16, d).to(dtype)
    values = torch.randn(len(lengths), heads // groups, 16, e).to(dtype)
    for i, stop in enumerate(lengths):
        keys[i, :, stop:] = values[i, :, stop:] = torch.nan
    expected = plainly(query, keys, values, lengths, 0.3, window)
    found = attend(query, keys, values, lengths, 0.3, window)
    close = 1e-6 if dtype == torch.float32 else 0.02  # sums of another order, rounded to 8 bits
    assert torch.allclose(found.float(), expected.float(), atol=close, rtol=close)
    monkeypatch.setattr(stepping, "SPLIT", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(attend(query, keys, values, lengths, 0.3, window), found)


def test_by_hand() -> None:
    """Scores 0 and ln 3: a quarter of the first value and three quarters of the second."""
    query = torch.tensor([[[2.0]]])
    keys, values = torch.tensor([[[[0.0], [math.log(3)]]]]), torch.tensor([[[[4.0], [8.0]]]])
    assert attend(query, keys, values, [2], 0.5, None).item() == pytest.approx(7)
    assert attend(query, keys, values, [1], 0.5, None).item() == pytest.approx(4)
    assert attend(query, keys, values, [2], 0.5, 1).item() == pytest.approx(8)


def test_what_is_no_number_stays_none() -> None:
    keys = torch.zeros(2, 1, 4, 2)
    keys[0, 0, 1, 0] = torch.nan
    found = attend(torch.ones(1, 2, 2), keys, torch.ones(2, 1, 4, 2), [4, 4], 1.0, None)
    assert found[0].isnan().all() and torch.equal(found[1], torch.ones(1, 2))
