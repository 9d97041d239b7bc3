"""Log-likelihoods of responses against brute force over full logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spring.engine import scoring
from spring.engine.budget import CPU_TOKENS, Room, decoding_room, scoring_tokens
from spring.engine.lora import AdapterBank
from spring.engine.passes import target_logps
from spring.engine.scoring import (
    CHUNK,
    response_positions,
    shared_beginnings,
    token_batches,
    token_logps,
)
from spring.engine.settings import Lora
from spring.engine.texts import Text

LORA = Lora(r=4, alpha=12, dropout=0.3, target_modules=("q_proj", "v_proj"))
TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def texts(*, count: int, seed: int, slots: Sequence[int] = (-1,)) -> list[Text]:
    """Random prompts and responses of 1 to 20 tokens."""
    generator = np.random.default_rng(seed)

    def tokens() -> tuple[int, ...]:
        return tuple(generator.integers(0, 320, generator.integers(1, 21)).tolist())

    return [Text(tokens(), tokens(), int(generator.choice(slots))) for _ in range(count)]


def brute_force(model: Any, text: Text) -> np.ndarray:
    """log-softmax of the plain model's logits over the whole row, read at the response."""
    row = torch.tensor([text.prompt + text.response])
    with torch.no_grad():
        logps = model(row).logits[0].log_softmax(-1)
    at = range(len(text.prompt) - 1, len(text) - 1)
    return np.array([logps[i, row[0, i + 1]].item() for i in at])


def random_bank(model: Any, *, slots: int) -> AdapterBank:
    bank = AdapterBank(model, LORA, slots=slots)
    bank.flat.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    return bank


def merged(model: Any, bank: AdapterBank, slot: int) -> Any:
    """A plain model with one slot's update added to its weights: W + B A alpha / r."""
    for name, layer in bank.layers.items():
        weight = model.get_submodule(name).weight
        weight += layer.b[slot].detach() @ layer.a[slot].detach() * 3  # 12 / 4
    return model


def test_equals_brute_force(make_model: Callable[..., Any]) -> None:
    """Responses of one token, prompts of one token, and more response tokens than one chunk of logits."""
    rows = [*texts(count=20, seed=0), Text((5,), (6,)), Text((5, 6, 7), (8,)), Text((5,), (6, 7) * CHUNK)]
    rows.insert(0, rows.pop())
    found = token_logps(make_model(), None, rows, budget=10_000)
    plain = make_model(max_position_embeddings=1024)
    for row, logps in zip(rows, found, strict=True):
        assert logps.dtype == np.float32 and len(logps) == len(row.response)
        np.testing.assert_allclose(logps, brute_force(plain, row), rtol=0, atol=5e-5)


def test_base_and_adapted_rows_in_one_batch(make_model: Callable[..., Any]) -> None:
    model = make_model()
    bank = random_bank(model, slots=2)
    rows = texts(count=12, seed=1, slots=(-1, 0, 1))
    found = token_logps(model, bank, rows, budget=10_000)
    plain = {-1: make_model(), 0: merged(make_model(), bank, 0), 1: merged(make_model(), bank, 1)}
    for row, logps in zip(rows, found, strict=True):
        np.testing.assert_allclose(logps, brute_force(plain[row.slot], row), rtol=0, atol=5e-5)
    moved = [
        np.abs(x - brute_force(plain[-1], r)).max() for r, x in zip(rows, found, strict=True) if r.slot >= 0
    ]
    assert len(moved) > 3 and min(moved) > 0.01, "the adapters must matter, or the test is empty"


def test_common_beginnings_are_read_once(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of a slot begin alike, one of them is nothing else; another slot begins otherwise."""
    model = make_model()
    bank = random_bank(model, slots=2)
    start, other = tuple(range(10, 22)), tuple(range(40, 55))
    rows = [replace(text, prompt=start + text.prompt, slot=0) for text in texts(count=5, seed=4)]
    rows += [Text(start, (7, 8), slot=0), *texts(count=2, seed=6)]
    rows += [replace(text, prompt=other + text.prompt, slot=1) for text in texts(count=4, seed=5)]
    read: list[int] = []
    real = scoring.pack_rows

    def count(rows: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(sum(map(len, rows)))
        return real(rows, *args, **kwargs)

    monkeypatch.setattr(scoring, "pack_rows", count)
    found = token_logps(model, bank, rows, budget=10_000)
    assert sum(read) == sum(len(row) - 1 for row in rows) - 5 * 11 - 3 * 15
    plain = {-1: make_model(), 0: merged(make_model(), bank, 0), 1: merged(make_model(), bank, 1)}
    for row, logps in zip(rows, found, strict=True):
        np.testing.assert_allclose(logps, brute_force(plain[row.slot], row), rtol=0, atol=5e-5)


def test_beginnings_by_hand() -> None:
    """Two prompts of a slot share 9 of 10 tokens; the next slot's two only 7; the last has one alone."""
    nine, seven = (1,) * 9, (2,) * 7
    rows = [Text((*nine, 5), (1,), 0), Text((*nine, 6, 6), (1,), 0)]
    rows += [Text((*seven, 5, 9), (1,), 1), Text((*seven, 6, 9), (1,), 1), Text((1,) * 20, (1,), 2)]
    assert shared_beginnings(rows) == [9, 9, 0, 0, 0]


@given(seed=st.integers(0, 10**6), budget=st.integers(1, 200), count=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_any_batching_gives_the_same_in_the_same_order(
    seed: int, budget: int, count: int, make_model: Callable[..., Any]
) -> None:
    """Batched = one by one: a row's numbers do not depend on the others."""
    model = make_model()
    bank = random_bank(model, slots=2)
    rows = texts(count=count, seed=seed, slots=(-1, 0, 1))
    found = token_logps(model, bank, rows, budget=budget)
    for row, logps in zip(rows, found, strict=True):
        np.testing.assert_allclose(logps, token_logps(model, bank, [row], budget=1)[0], **TOLERANCE)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_token_batches(sizes: list[int], budget: int) -> None:
    """Consecutive, complete, within budget unless alone, and never ended before the next would overflow."""
    batches = list(token_batches(sizes, budget))
    assert [i for batch in batches for i in batch] == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or sum(sizes[i] for i in batch) <= budget
    for batch, following in pairwise(batches):
        assert sum(sizes[i] for i in batch) + sizes[following[0]] > budget


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 4)), max_size=30), st.integers(1, 300))
def test_padded_batches_count_every_row_as_the_longest(parts: list[tuple[int, int]], budget: int) -> None:
    """The same of parts of several rows each, which stay together: what a pass lays out is within budget."""
    sizes, rows = [size for size, _ in parts], [count for _, count in parts]
    batches = list(token_batches(sizes, budget, padded=True, rows=rows))
    assert [i for batch in batches for i in batch] == list(range(len(parts)))

    def laid(batch: list[int]) -> int:
        return max(sizes[i] for i in batch) * sum(rows[i] for i in batch)

    assert all(len(batch) == 1 or laid(batch) <= budget for batch in batches)
    assert all(laid([*batch, following[0]]) > budget for batch, following in pairwise(batches))


def test_response_positions_by_hand() -> None:
    """Rows of 3 + 2 and 1 + 1 tokens, the last token of each left out: rows at 0..3 and 4.

    The first row's responses are predicted at its positions 2 and 3, the second row's at 4.
    """
    assert response_positions([Text((1, 2, 3), (4, 5)), Text((6,), (7,))]).tolist() == [2, 3, 4]


def test_target_logps_by_hand() -> None:
    """softmax of (0, log 3) is (1/4, 3/4)."""
    logits = torch.tensor([[0.0, np.log(3)], [0.0, np.log(3)]])
    found = target_logps(logits, torch.tensor([0, 1])).exp()
    torch.testing.assert_close(found, torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_take_the_place_of_logits(dtype: torch.dtype) -> None:
    """As log_softmax and its exponential in float32; a logit that is no number shows."""
    logits = (5 * torch.randn(3, 301, generator=torch.Generator().manual_seed(0))).to(dtype)
    targets = torch.tensor([0, 300, 7])
    logps = torch.log_softmax(logits, 1, dtype=torch.float32)
    found = target_logps(probs := logits.clone(), targets, replace=True)
    torch.testing.assert_close(found, logps[range(3), targets], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        probs, logps.exp().to(dtype), rtol=1e-2 if dtype != torch.float32 else 1e-5, atol=1e-8
    )
    assert torch.equal(target_logps(kept := logits.clone(), targets), found) and torch.equal(kept, logits)
    logits[1, 5] = float("nan")
    assert target_logps(logits, targets).isnan().tolist() == [False, True, False]


def test_no_texts(tiny: Any) -> None:
    assert token_logps(tiny, None, [], budget=10) == []


def test_budgets_by_hand(tiny: Any) -> None:
    """A megabyte. Widths 32 and 48, 2 layers, 2 key heads of 8, vocabulary 320, 4 bytes a number.

    Scoring (12 * 32 + 4 * 48) * 4 * 2 = 4608 bytes a token; decoding 2 * 2 * 2 * 8 * 4 = 256 bytes of cache a
    token, 750000 of them, and logits of 16 * 320 bytes a row.
    """
    assert (scoring_tokens(tiny, 1e-3), scoring_tokens(tiny, 1e3)) == (217, CPU_TOKENS)
    assert decoding_room(tiny, 1e-3) == Room(2929, per_row=20)
    assert (scoring_tokens(tiny, 1e-9), decoding_room(tiny, 1e-9)) == (64, Room(0, per_row=20))


def test_budgets_of_other_architectures(make_model: Callable[..., Any]) -> None:
    """Gemma 3 with vision keeps its sizes in `text_config`; OPT has no key-value heads of its own."""
    from transformers import Gemma3Config

    text = make_model("gemma3_text", head_dim=8)
    vision = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}
    whole = SimpleNamespace(
        config=Gemma3Config(text_config=text.config.to_dict(), vision_config=vision),
        dtype=text.dtype,
        device=text.device,
    )
    for model in (text, whole):
        assert scoring_tokens(model, 1e-3) == 217 and decoding_room(model, 1e-3) == Room(2929, 20)
    old = make_model("opt")
    del old.config.num_key_value_heads  # the tests' sizes name them
    assert decoding_room(old, 1e-3) == Room(1464, 10)  # 4 heads: twice the cache


@pytest.mark.slow
def test_default_model(real_model: Any, real_folder: Any) -> None:
    """SmolLM2-135M in float32 against the plain model."""
    from transformers import AutoModelForCausalLM

    encode = real_model.tokenizer.encode
    rows = [
        Text(tuple(encode(p)), tuple(encode(r)))
        for p, r in [("The sky is", " blue."), ("One, two,", " three")]
    ]
    plain = AutoModelForCausalLM.from_pretrained(real_folder, dtype=torch.float32)
    found = token_logps(real_model.model, None, rows, budget=100)
    for row, logps in zip(rows, found, strict=True):
        np.testing.assert_allclose(logps, brute_force(plain, row), rtol=0, atol=1e-3)
    assert found[1][0] > -2, "of 49152 tokens, three follows two in more than one of eight cases"
