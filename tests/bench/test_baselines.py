"""Baselines give what the engine gives, on a tiny model: greedy tokens, log-likelihoods, adapters."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from kit.decoding import LORA, decode, random_bank, run
from kit.training import learn, lesson, recipe, some_state

from bench.agreement import work
from bench.baselines import learning, llama, padded, poly
from bench.differences import apart_in_weights
from spring.engine.lora import AdapterBank
from spring.engine.packaged import unpermute
from spring.engine.queries import Query
from spring.engine.scoring import token_logps
from spring.engine.texts import Text

STOP = frozenset(range(200, 216))


def prompt(random: np.random.Generator, most: int) -> tuple[int, ...]:
    return tuple(random.integers(8, 320, random.integers(2, most)).tolist())


def asked(paths: int) -> list[Query]:
    """Queries of different lengths under two adapters and the base model."""
    random = np.random.default_rng(0)
    found = []
    for i in range(9):
        own = prompt(random, 15)
        found.append(Query(own, prompt(random, 16) + own, 0.4 if paths == 2 else 0.0, i % 3 - 1))
    return found


def attached(model: Any) -> tuple[AdapterBank, list[dict[str, torch.Tensor]]]:
    """A bank of two adapters, and these under PEFT's names."""
    bank = random_bank(model)
    return bank, [bank.state(slot) for slot in range(2)]


@pytest.mark.parametrize("paths", [1, 2])
@pytest.mark.parametrize("kind", [padded, poly])
def test_mixed_batches_generate_what_the_engine_does(kind: Any, paths: int, make_model: Any) -> None:
    """With a penalty, adapters that matter, rows that stop early, and batches of 4, 9 and 64 rows."""
    if kind is poly:
        pytest.importorskip("polylora")
    model, other, settings = make_model(), make_model(), decode(most=14)
    bank, states = attached(model)
    ours = [answer.tokens for answer in run((model, bank, {}), asked(paths), settings, stop=STOP)]
    assert len({tuple(tokens) for tokens in ours}) >= 8, "answers must differ, or this is empty"
    assert len(set(map(len, ours))) > 1, "some must stop early"
    baselines = kind.decoding(other, LORA, states, asked(paths), settings, STOP, rows=(4, 9, 64))
    assert work(baselines) == [ours] * 3
    assert [name for name, _ in other.named_modules()] == [name for name, _ in make_model().named_modules()]


@pytest.mark.parametrize("slots", [0, 2])
def test_padded_scores_are_the_engines(slots: int, make_model: Any) -> None:
    model, other, random = make_model(), make_model(), np.random.default_rng(1)
    bank, states = attached(model)
    if not slots:
        bank.detach(model)
    texts = [Text(prompt(random, 20), prompt(random, 9), i % 3 - 1 if slots else -1) for i in range(11)]
    ours = token_logps(model, bank if slots else None, texts, budget=64)
    for theirs in work(padded.scoring(other, LORA, states[:slots], texts, rows=(4, 64))):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4)


def test_padded_lessons_teach_what_the_engine_does(make_model: Any) -> None:
    """One user after another on one wrapped model: nothing of the first is left in the second."""
    config = recipe(dropout=0.0)
    start = some_state(make_model(), config)
    lessons = [lesson(number, count=count, start=start) for number, count in enumerate((5, 7, 4))]
    other = make_model()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    theirs = learning.learn(other, lessons, config)
    for ours, state in zip(learn(make_model(), lessons, config, slots=3), theirs, strict=True):
        assert apart_in_weights(ours.state, state, start) < 1e-3
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_processes_side_by_side_share_all_lessons_evenly() -> None:
    lessons = [lesson(number, count=count) for number, count in enumerate((9, 1, 4, 4, 2))]
    one, two = learning.shares(lessons, recipe())
    assert sorted([*one, *two]) == [0, 1, 2, 3, 4]

    def tokens(numbers: list[int]) -> int:
        return sum(len(text) for number in numbers for text in lessons[number].texts)

    assert abs(tokens(one) - tokens(two)) <= 0.25 * tokens([0, 1, 2, 3, 4])


@pytest.mark.long
def test_a_process_that_ends_early_is_told() -> None:
    with (
        pytest.raises(RuntimeError, match="not 'ready'"),
        learning.side_by_side([], recipe(), device="cpu", dtype="none", source="personas"),
    ):
        pass


# --- llama.cpp --------------------------------------------------------------------------------------------


def test_adapters_as_files_of_llama_cpp(tmp_path: Any, make_model: Any) -> None:
    """Names, the scale, and rows of q and k in pairs: head 0 of 8 rows is 0, 4, 1, 5, 2, 6, 3, 7."""
    _, [state, _] = attached(make_model())
    llama.write_adapter(state, LORA, {"q_proj": 4, "k_proj": 2}, tmp_path / "adapter.gguf")
    found = GGUFReader(tmp_path / "adapter.gguf")
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in found.tensors}
    assert found.fields["adapter.lora.alpha"].contents() == LORA.alpha
    assert len(tensors) == len(state) == 8
    prefix = "base_model.model.model.layers.1.self_attn"
    assert torch.equal(tensors["blk.1.attn_v.weight.lora_b"], state[f"{prefix}.v_proj.lora_B.weight"])
    q = state[f"{prefix}.q_proj.lora_B.weight"]
    assert torch.equal(tensors["blk.1.attn_q.weight.lora_b"][:8], q[[0, 4, 1, 5, 2, 6, 3, 7]])
    assert torch.equal(unpermute(tensors["blk.1.attn_q.weight.lora_b"], 4), q)


@pytest.mark.long
@pytest.mark.skipif(not importlib.util.find_spec("llama_cpp"), reason="llama-cpp-python is not installed")
def test_llama_cpp_generates_what_the_engine_does(real_model: Any, real_folder: Any) -> None:
    """The packaged weights in float32, two adapters and none, users in turns."""
    model, settings = real_model.model, decode(most=8)
    bank, states = attached(model)
    random = np.random.default_rng(0)
    queries = [
        Query(tuple(random.integers(1000, 9000, 12 + i).tolist()), None, 0.0, i % 3 - 1) for i in range(6)
    ]
    ours = [answer.tokens for answer in run((model, bank, {}), queries, settings)]
    bank.detach(model)
    assert work(llama.decoding(model, LORA, states, queries, settings, frozenset(), exact=True)) == [ours]
