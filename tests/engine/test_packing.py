"""Rows packed without padding come out as each row alone through the plain model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spring.engine.attention import ATTENTION, RowAttention
from spring.engine.cache import JOINED, KeyValueCache, PackedBlock
from spring.engine.forward import hidden_states
from spring.engine.packing import pack_rows
from spring.engine.roads import head, road_of

CPU = torch.device("cpu")
RAGGED = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 3], [9], [20, 21, 22, 23, 24, 25], [100] * 9]
WINDOWED = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, **WINDOWED},
    "qwen3": {"head_dim": 16},  # heads wider than hidden_size / heads
    "gemma3_text": {"head_dim": 8, **WINDOWED},
    "phi3": {},  # one projection for queries, keys and values
    "olmo2": {},
    "gpt_neox": {},
    "qwen3_moe": {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
}


def alone(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits [N, V] of the plain model, one row at a time."""
    with torch.no_grad():
        return torch.cat([model(torch.tensor([list(row)])).logits[0] for row in rows])


def packed(model: Any, rows: Sequence[Sequence[int]], cache: KeyValueCache | None = None) -> Tensor:
    """Logits [N, V] of all rows in one pack."""
    with torch.no_grad():
        return head(model)(hidden_states(model, pack_rows(rows, [-1] * len(rows), device=CPU, cache=cache)))


@pytest.mark.parametrize("kind", KINDS)
def test_pack_equals_each_row_alone(kind: str, make_model: Callable[..., Any]) -> None:
    """Ragged lengths with a one-token row; the window of 5 is shorter than most rows."""
    plain, model = (make_model(kind, **KINDS[kind]) for _ in range(2))
    expected = alone(plain, RAGGED)
    assert not road_of(model).padded
    torch.testing.assert_close(packed(model, RAGGED), expected, rtol=0, atol=1e-5)
    assert model.config._attn_implementation == ATTENTION
    assert plain.config._attn_implementation == "sdpa"
    assert expected.std() > 0.5  # 1e-5 is small next to the logits


def test_rows_do_not_see_each_other(tiny: Any) -> None:
    """What one row holds changes nothing in the others, to the last bit."""
    other = [RAGGED[0][::-1], [77], *RAGGED[2:]]
    assert torch.equal(packed(tiny, RAGGED)[13:], packed(tiny, other)[13:])
    assert not torch.allclose(packed(tiny, RAGGED)[:13], packed(tiny, other)[:13])


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3_text"])
def test_rows_that_follow_another(kind: str, make_model: Callable[..., Any]) -> None:
    """Two rows begin with the same 6 tokens, which stand in the pack once; a third stands by itself."""
    plain, model = (make_model(kind, **KINDS[kind]) for _ in range(2))
    start, ends, other = [5, 6, 7, 8, 9, 10], [[11, 12, 13, 14], [15]], [20, 21, 22]
    pack = pack_rows([start, *ends, other], [-1] * 4, device=CPU, before=[-1, 0, 0, -1])
    assert pack.position_ids[0, : 6 + 4 + 1 + 3].tolist() == [*range(6), *range(6, 10), 6, *range(3)]
    with torch.no_grad():
        found = head(model)(hidden_states(model, pack)).split(pack.lengths)
    for end, logits in zip(ends, found[1:3], strict=True):
        torch.testing.assert_close(logits, alone(plain, [start + end])[6:], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[3], alone(plain, [other]), rtol=0, atol=1e-5)


def test_a_window_matters(make_model: Callable[..., Any]) -> None:
    """Otherwise the windowed kinds above would prove nothing."""
    narrow, wide = make_model("mistral", sliding_window=5), make_model("mistral", sliding_window=None)
    narrow, wide = packed(narrow, RAGGED), packed(wide, RAGGED)
    torch.testing.assert_close(narrow[:5], wide[:5], rtol=0, atol=1e-5)
    assert (narrow[5:12] - wide[5:12]).abs().max() > 0.1


def test_few_sizes_of_products(make_model: Callable[..., Any]) -> None:
    """Kernels are kept for every size: 1 to 64 tokens must give two of them."""
    model = make_model()
    sizes = set()
    layer = model.model.layers[0].mlp.up_proj
    layer.register_forward_hook(lambda _, inputs, out: sizes.add(inputs[0].shape[1]))
    for tokens in range(1, 65):
        pack = pack_rows([list(range(tokens))], [-1], device=CPU)
        with torch.no_grad():
            assert len(hidden_states(model, pack)) == tokens
    assert sizes == {32, 64}


@given(rows=st.lists(st.lists(st.integers(0, 319), min_size=1, max_size=9), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_lengths(rows: list[list[int]], make_model: Callable[..., Any]) -> None:
    torch.testing.assert_close(packed(make_model(), rows), alone(make_model(), rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3_text"])
def test_cache_equals_whole_rows(kind: str, make_model: Callable[..., Any]) -> None:
    """Prompts first, then token by token; beyond 64 tokens the cache grows; then rows leave and join."""
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, 320, n).tolist() for n in (62, 1, 30, 7)]
    model, plain = (make_model(kind, **KINDS[kind]) for _ in range(2))
    cache = KeyValueCache()
    packed(model, rows, cache)

    def add_one() -> None:
        tokens = [[int(generator.integers(320))] for _ in rows]
        found = packed(model, tokens, cache)
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            row += token
            expected = alone(plain, [row])[-1]
            torch.testing.assert_close(found[i], expected, rtol=0, atol=2e-5)

    for _ in range(4):
        add_one()
    cache.keep({2, 0})
    rows = [rows[0], rows[2]]
    add_one()
    fresh = KeyValueCache()
    packed(model, [[8, 9], [4] * 150], fresh)
    cache.admit([fresh.blocks[0].take([0, 1, 0], [10, 11, 12])])  # one of them twice
    named = {0: rows[0], 2: rows[1], 10: [8, 9], 11: [4] * 150, 12: [8, 9]}
    rows = [list(named[row]) for row in cache.rows]
    assert sorted(cache.rows) == sorted(named) and cache.lengths == [len(row) for row in rows]
    add_one()
    add_one()


def made(*lengths: int, first: int) -> PackedBlock:
    """A block of rows first, first + 1, ...; every number in it is its row's."""
    rows = list(range(first, first + len(lengths)))
    values = torch.tensor(rows).view(-1, 1, 1, 1).expand(-1, 1, max(lengths), 1).float()
    return PackedBlock(rows, list(lengths), max(lengths), {0: (values, -values)})


def contents(block: PackedBlock) -> list[float]:
    keys, values = block.layers[0]
    assert torch.equal(keys, -values) and keys.shape[2] == block.capacity
    return keys[:, 0, 0, 0].tolist()


def test_blocks_by_hand() -> None:
    """Small blocks join where the longest row has at most 64 and a quarter beyond the shortest."""
    cache = KeyValueCache()
    cache.admit([made(100, 150, first=0), made(189, first=2), made(190, first=3), made(10, first=4)])
    assert [block.rows for block in cache.blocks] == [[4], [0, 1, 2], [3]]
    assert [block.capacity for block in cache.blocks] == [10, 189, 190]
    assert contents(cache.blocks[1]) == [0, 1, 2]
    cache.admit([made(*[12] * JOINED, first=10)])
    assert [len(block.rows) for block in cache.blocks] == [1, JOINED, 3, 1]


def test_leaving_rows_touch_their_own_block_alone() -> None:
    cache = KeyValueCache()
    cache.admit([made(10, 20, 30, first=0), made(500, 510, first=3), made(5000, first=5)])
    untouched = cache.blocks[1].layers[0][0]
    cache.keep({0, 2, 3, 4})
    assert [block.rows for block in cache.blocks] == [[0, 2], [3, 4]]
    assert cache.lengths == [10, 30, 500, 510] and contents(cache.blocks[0]) == [0, 2]
    assert cache.blocks[1].layers[0][0] is untouched


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("heads", [4, 2])
def test_gradients_are_those_of_torch(heads: int, window: int | None) -> None:
    """Queries, keys and values of rows of 7, 1 and 12 tokens, against scaled_dot_product_attention."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 20, 8), (heads, 20, 8), (heads, 20, 8)]
    q, k, v = (torch.randn(s, generator=generator, requires_grad=True) for s in shapes)
    weight = torch.randn(4, 20, 8, generator=generator)
    spans = [(0, 7), (7, 8), (8, 20)]
    out = RowAttention.apply(q, k, v, [(span, (0, 0)) for span in spans], 0.3, window)
    found = torch.autograd.grad((out * weight).sum(), (q, k, v))
    rows = []
    for start, stop in spans:
        n = stop - start
        behind = torch.arange(n)[:, None] - torch.arange(n)[None]
        mask = (behind >= 0) & (behind < (window or n))
        row = (x[None, :, start:stop] for x in (q, k, v))
        rows.append(F.scaled_dot_product_attention(*row, attn_mask=mask, scale=0.3, enable_gqa=True)[0])
    expected = torch.cat(rows, 1)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    for one, other in zip(found, torch.autograd.grad((expected * weight).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_pad_and_unpad_by_hand() -> None:
    """Two rows of 1 and 3 tokens, one head of width 1: [a, b, c, d] -> [[a, 0, 0], [b, c, d]]."""
    pack = pack_rows([[1], [2, 3, 4]], [0, 1], device=CPU)
    assert pack.position_ids[0, :4].tolist() == [0, 0, 1, 2]
    assert pack.row.tolist() == [0, 1, 1, 1]
    x = torch.tensor([10.0, 20, 30, 40]).view(1, 1, 4, 1)
    padded = pack.pad(x)
    assert padded[:, 0, :, 0].tolist() == [[10, 0, 0], [20, 30, 40]]
    assert pack.unpad(padded)[0, :, 0, 0].tolist() == [10, 20, 30, 40]


@pytest.mark.slow
def test_default_model(real_model: Any, real_folder: Any) -> None:
    """SmolLM2-135M in float32: logits spread by about 4, packed ones are off by less than 1e-3."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(real_folder, dtype=torch.float32)
    rows = [[1, *range(200, 240)], [1, 504], [1, *range(900, 911)]]
    torch.testing.assert_close(packed(real_model.model, rows), alone(plain, rows), rtol=0, atol=1e-3)
