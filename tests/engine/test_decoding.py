"""Interpolated decoding against an uncached reference: both paths read in full for every token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.decoding import (
    NONE,
    Setup,
    decode,
    merged,
    mixed,
    next_distribution,
    queries,
    random_bank,
    reference,
    run,
)

from spring.engine import attention
from spring.engine.budget import Room
from spring.engine.decoding import _Batch, generate
from spring.engine.queries import Answer, Query
from spring.engine.reading import Reader
from spring.method.mixing import Adaptive, interpolate, jensen_shannon, mixture


@pytest.fixture(scope="module")
def setup(make_model: Callable[..., Any]) -> Setup:
    model = make_model()
    bank = random_bank(model)
    adapted = {slot: merged(make_model(), bank, slot) for slot in range(2)}
    return model, bank, {-1: make_model(), **adapted}


# --- the reference ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("penalty", "stopping", "kernel"),
    [(1.0, False, True), (1.2, True, True), (1.0, True, False), (1.2, False, False)],
)
def test_equals_the_uncached_reference(
    penalty: float, stopping: bool, kernel: bool, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel for attention to the cache and by PyTorch's products, whichever this machine prefers."""
    monkeypatch.setattr(attention, "pays", lambda: kernel)
    asked, settings = queries(count=12), decode(penalty=penalty, most=10)
    plain = setup[2]
    free = [reference(plain[q.slot], q, settings)[0] for q in asked]
    stop = {tokens[i % 5] for i, tokens in enumerate(free) if i % 2} if stopping else NONE
    found = run(setup, asked, settings, stop=stop)
    lengths = set()
    for query, answer in zip(asked, found, strict=True):
        tokens, rows = reference(plain[query.slot], query, settings, stop)
        assert (answer.tokens, answer.row_steps) == (tokens, rows)
        assert answer.seconds > 0
        lengths.add(len(tokens))
    assert (lengths == {10}) != stopping
    assert len({tuple(answer.tokens) for answer in found}) > 6, "answers must differ, or this is empty"


@pytest.mark.parametrize("by", ["entropy", "max-probability"])
def test_weights_by_confidence(by: Literal["entropy", "max-probability"], setup: Setup) -> None:
    """Tokens, and the references' likelihood, with weights that change from token to token."""
    plain, settings = setup[2], decode(most=10, confidence=by)
    asked = [replace(query, reference=(9, 8, 7)) for query in queries(count=12)]
    found = run(setup, asked, settings)
    for query, answer in zip(asked, found, strict=True):
        assert (answer.tokens, answer.row_steps) == reference(plain[query.slot], query, settings)
        for i, token in enumerate(query.reference):
            rows = [[*prompt, *query.reference[:i]] for prompt, _ in query.paths]
            ps = [next_distribution(plain[query.slot], row) for row in rows]
            p = mixed(*ps, query.lmbda, by) if len(ps) == 2 else ps[0]
            assert answer.reference[i] == pytest.approx(math.log(p[token]), abs=5e-5)
    fixed = run(setup, asked, decode(most=10))
    assert any(a.tokens != b.tokens for a, b in zip(found, fixed, strict=True)), "or this is empty"


def test_penalty_matters(setup: Setup) -> None:
    asked = queries()
    with_, without = (run(setup, asked, decode(penalty=p, most=20)) for p in (2.0, 1.0))
    assert any(a.tokens != b.tokens for a, b in zip(with_, without, strict=True))

    def repeats(answers: list[Answer]) -> int:
        return sum(len(a.tokens) - len(set(a.tokens)) for a in answers)

    assert repeats(with_) < repeats(without)


@pytest.mark.slow
@given(room=st.integers(1, 500), budget=st.integers(1, 150), seed=st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_any_admission_gives_the_same(room: int, budget: int, seed: int, setup: Setup) -> None:
    """Batched = one by one, whatever is admitted when; answers stop at different lengths."""
    asked = queries(seed=seed)
    stop = set(range(0, 320, 13))
    expected = run(setup, asked, decode(), stop=stop)
    found = run(setup, asked, decode(), stop=stop, room=room, budget=budget)
    assert [(a.tokens, a.row_steps) for a in found] == [(a.tokens, a.row_steps) for a in expected]
    for query, answer in zip(asked, expected, strict=True):
        [alone] = run(setup, [query], decode(), stop=stop)
        assert alone.tokens == answer.tokens
    assert len({len(answer.tokens) for answer in expected}) > 1


def test_references_are_scored_on_the_way(setup: Setup) -> None:
    """log p under the mixture, of references of 1 to 9 tokens; decoding is as without them."""
    plain = setup[2]
    generator = np.random.default_rng(3)
    refs = [tuple(generator.integers(0, 320, 1 + i % 9).tolist()) for i in range(12)]
    asked = [replace(query, reference=ref) for query, ref in zip(queries(count=12), refs, strict=True)]
    settings = decode(most=4)
    found = run(setup, asked, settings, budget=40)
    without = run(setup, queries(count=12), settings)
    assert [answer.tokens for answer in found] == [answer.tokens for answer in without]
    for query, answer in zip(asked, found, strict=True):
        for i, token in enumerate(query.reference):
            p = sum(
                weight * next_distribution(plain[query.slot], [*prompt, *query.reference[:i]])[token]
                for prompt, weight in query.paths
            )
            assert answer.reference[i] == pytest.approx(math.log(p), abs=2e-5)
        assert len(answer.reference) == len(query.reference)


def test_equal_prompts_are_read_once(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three queries share a prompt in slot 0, a fourth has it in slot 1; then all decode by themselves."""
    first = Query((5, 6, 7), (9, 5, 6, 7), 0.5, 0)
    asked = [first, replace(first, lmbda=0.9), replace(first, context_prompt=None), replace(first, slot=1)]
    alone = [run(setup, [query], decode())[0].tokens for query in asked]
    rows: list[int] = []
    real = Reader._read

    def count(self: Reader, reads: Any) -> Any:
        rows.append(len(reads))
        return real(self, reads)

    monkeypatch.setattr(Reader, "_read", count)
    assert [answer.tokens for answer in run(setup, asked, decode())] == alone
    assert sum(rows) == 4 and len({tuple(tokens) for tokens in alone}) > 1


def test_prompts_are_read_in_batches_of_similar_length(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long and short prompts by turns: no batch has a prompt shorter than one of the batch before it."""
    asked = [Query(tuple(range(5, 5 + n)), None, 0.0, 0) for n in (40, 3, 38, 4, 39, 5)]
    batches: list[list[int]] = []
    real = Reader._read

    def spy(self: Reader, reads: Any) -> Any:
        batches.append([len(prompt) for _, prompt, _ in reads])
        return real(self, reads)

    monkeypatch.setattr(Reader, "_read", spy)
    run(setup, asked, decode(), budget=40)
    assert sorted(batches) == [[3, 4, 5], [38], [39], [40]]


def test_the_time_of_reading_is_shared_out_by_tokens(setup: Setup) -> None:
    """Who has ten times the prompt is charged ten times as much for it; the one step after it is the same."""
    long, short = (
        Query(tuple(range(5, 5 + n)), None, 0.0, 0, reference=tuple(range(5, 5 + r)))
        for n, r in ((40, 10), (4, 2))
    )
    first, second = run(setup, [long, short], decode(most=1))
    assert first.reference_seconds == pytest.approx(5 * second.reference_seconds)
    per_token = second.reference_seconds / 2
    assert first.seconds - second.seconds == pytest.approx(36 * per_token)
    assert second.seconds > 4 * per_token


@pytest.mark.parametrize("when", [0, 3])
def test_out_of_memory_starts_again_with_half(
    when: int, setup: Setup, monkeypatch: pytest.MonkeyPatch, memory_log: pytest.LogCaptureFixture
) -> None:
    """A step, or the reading of prompts, that has no memory for more than 5 rows."""
    asked, settings = queries(count=12), decode()
    expected = run(setup, asked, settings)
    real, steps = Reader.hidden, 0

    def small(self: Reader, pack: Any) -> Any:
        nonlocal steps
        steps += pack.stepping
        if steps >= when and pack.stepping == (when > 0) and len(pack.lengths) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, pack)

    monkeypatch.setattr(Reader, "hidden", small)
    found = run(setup, asked, settings)
    assert "half as many" in memory_log.text
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
    assert [answer.row_steps for answer in found] == [answer.row_steps for answer in expected]


def test_out_of_memory_after_the_first_token_leaves_nothing_behind(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, memory_log: pytest.LogCaptureFixture
) -> None:
    """The token that a query was given before is not its first any more, nor penalised."""
    asked, settings = queries(count=12), decode()
    expected = run(setup, asked, settings)
    real, failed = _Batch._choose, []

    def small(self: _Batch, flights: Any, *rest: Any) -> None:
        real(self, flights, *rest)
        if not failed:
            failed.append(len(flights))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(_Batch, "_choose", small)
    found = run(setup, asked, settings)
    assert failed == [12] and "half as many" in memory_log.text
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
    assert [answer.row_steps for answer in found] == [answer.row_steps for answer in expected]


def test_other_errors_are_not_taken_for_it(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Reader, pack: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Reader, "hidden", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(setup, queries(), decode())


def test_reordering_changes_nothing(setup: Setup) -> None:
    asked = queries()
    found = run(setup, asked, decode(), room=150)
    again = run(setup, asked[::-1], decode(), room=150)
    assert [a.tokens for a in again[::-1]] == [a.tokens for a in found]


def test_without_a_bank(make_model: Callable[..., Any]) -> None:
    asked = [replace(query, slot=-1) for query in queries()]
    found = generate(make_model(), None, asked, decode(), stop=NONE, room=Room(180), budget=60)
    for query, answer in zip(asked, found, strict=True):
        assert answer.tokens == reference(make_model(), query, decode())[0]


# --- the ends of the interpolation ------------------------------------------------------------------------


def test_each_end_equals_its_branch_and_costs_one_row(setup: Setup) -> None:
    """lambda 0 = the query alone = a closed gate; lambda 1 = the context prompt alone; between: another."""
    asked = [query for query in queries(count=20) if query.context_prompt]
    answers = {lmbda: run(setup, [replace(q, lmbda=lmbda) for q in asked], decode()) for lmbda in (0, 0.5, 1)}
    closed = run(setup, [replace(q, context_prompt=None, lmbda=0.5) for q in asked], decode())
    context = run(setup, [replace(q, prompt=q.context_prompt, context_prompt=None) for q in asked], decode())  # type: ignore[arg-type]
    for i in range(len(asked)):
        assert answers[0][i].tokens == closed[i].tokens
        assert answers[1][i].tokens == context[i].tokens
        assert answers[0][i].tokens != answers[1][i].tokens
        rows = [answers[lmbda][i].row_steps for lmbda in (0, 0.5, 1)]
        assert rows == [12, 24, 12] and closed[i].row_steps == 12
    mixed = [a.tokens for a in answers[0.5]]
    assert mixed != [a.tokens for a in answers[0]] and mixed != [a.tokens for a in answers[1]]


def test_ends_are_limits(setup: Setup) -> None:
    """lambda near 0 and 1, with both rows decoded, gives what the single rows give."""
    asked = [query for query in queries() if query.context_prompt]
    for near, end in ((1e-6, 0.0), (1 - 1e-6, 1.0)):
        found = run(setup, [replace(q, lmbda=near) for q in asked], decode())
        expected = run(setup, [replace(q, lmbda=end) for q in asked], decode())
        assert [a.tokens for a in found] == [a.tokens for a in expected]
        assert found[0].row_steps == 2 * expected[0].row_steps


def test_identical_paths_change_nothing(setup: Setup) -> None:
    asked = queries()
    found = run(setup, [replace(q, context_prompt=q.prompt, lmbda=0.5) for q in asked], decode())
    closed = run(setup, [replace(q, context_prompt=None) for q in asked], decode())
    assert [a.tokens for a in found] == [a.tokens for a in closed]


# --- ends of an answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 7])
def test_length_is_bounded(most: int, setup: Setup) -> None:
    longest = run(setup, queries(), decode(most=12))
    found = run(setup, queries(), decode(most=most), room=100)
    assert [a.tokens for a in found] == [a.tokens[:most] for a in longest]


def test_stop_token_is_left_out(setup: Setup) -> None:
    """Stopping at the very first token gives an empty answer; at the third, two tokens in three steps."""
    query = queries()[1]
    [free] = run(setup, [query], decode(penalty=1.2))
    assert free.tokens[2] not in free.tokens[:2]
    [first] = run(setup, [query], decode(), stop={free.tokens[0]})
    assert (first.tokens, first.row_steps) == ([], 2)
    [third] = run(setup, [query], decode(), stop={free.tokens[2], 319})
    assert (third.tokens, third.row_steps) == (free.tokens[:2], 6)


def test_progress_and_no_queries(setup: Setup) -> None:
    model, bank, _ = setup
    done: list[int] = []
    generate(model, bank, queries(), decode(), stop=NONE, room=Room(100), budget=50, progress=done.append)
    assert sum(done) == len(queries())
    assert generate(model, bank, [], decode(), stop=NONE, room=Room(100), budget=50) == []


# --- adaptive ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [1, 2])
def test_adaptive_equals_the_reference(patience: int, setup: Setup) -> None:
    """A threshold in the middle of the divergences: some queries drop their second path, some never do."""
    asked = [replace(q, lmbda=0.5) for q in queries(count=20) if q.context_prompt]
    settings = decode(adaptive=Adaptive(threshold=0.2, patience=patience))
    expected = [reference(setup[2][q.slot], q, settings) for q in asked]
    for room in (100, 10_000):
        found = run(setup, asked, settings, room=room)
        assert [(a.tokens, a.row_steps) for a in found] == expected
    assert len({rows for _, rows in expected}) > 2


def test_adaptive_extremes(setup: Setup) -> None:
    """Above ln 2 everything agrees: 2 rows for `patience` tokens, then 1. Near 0 nothing does."""
    asked = [replace(q, lmbda=0.5) for q in queries() if q.context_prompt]
    off = run(setup, asked, decode())
    never = run(setup, asked, decode(adaptive=Adaptive(threshold=1e-9, patience=1)))
    assert [(a.tokens, a.row_steps) for a in never] == [(a.tokens, 24) for a in off]
    for patience in (1, 3):
        at_once = run(setup, asked, decode(adaptive=Adaptive(threshold=0.7, patience=patience)))
        assert [a.row_steps for a in at_once] == [12 + patience] * len(asked)
        assert [a.tokens[:patience] for a in at_once] == [a.tokens[:patience] for a in off]


# --- parts ------------------------------------------------------------------------------------------------


def test_interpolate_by_hand() -> None:
    """0.25 (0.8, 0.2) + 0.75 (0.4, 0.6) = (0.5, 0.5); a mixture of logits would be (0.53, 0.47)."""
    first, second = torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]]).log()
    found = interpolate(first, second, torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(found.exp(), torch.tensor([[0.5, 0.5]]))
    logps = [first[0].numpy(), second[0].numpy()]
    np.testing.assert_allclose(np.exp(mixture(logps, [0.25, 0.75])), [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(mixture(logps[:1], [1.0]), logps[0], rtol=1e-6)


def test_interpolate_does_not_underflow() -> None:
    """p = e^-200 is 0 in float32; half of e^-200 and e^-201 is e^-200 (1 + 1/e) / 2."""
    found = interpolate(torch.tensor([[-200.0]]), torch.tensor([[-201.0]]), torch.tensor([[0.5, 0.5]]))
    assert found.item() == pytest.approx(-200 + math.log((1 + math.exp(-1)) / 2), rel=1e-6)


def test_jensen_shannon_by_hand() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4), m = (3/8, 5/8)."""
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    left = 0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5)
    right = 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)
    assert jensen_shannon(p, q) == pytest.approx((left + right) / 2, abs=1e-6)
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-7)
    apart = torch.tensor([0.0, -80.0]), torch.tensor([-80.0, 0.0])
    assert jensen_shannon(*apart) == pytest.approx(math.log(2), abs=1e-6)


@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=2, max_size=8))
def test_jensen_shannon_is_bounded_and_symmetric(pairs: list[tuple[float, float]]) -> None:
    p, q = torch.tensor(pairs).log_softmax(0).T
    found = jensen_shannon(p, q)
    assert -1e-6 <= found <= math.log(2) + 1e-6
    assert found == pytest.approx(jensen_shannon(q, p), abs=1e-6)


@pytest.mark.slow
def test_default_model(real_model: Any, real_folder: Any) -> None:
    """SmolLM2-135M in float32 against the uncached reference, with and without context."""
    from transformers import AutoModelForCausalLM

    encode = real_model.tokenizer.encode
    fact = tuple(encode("My favourite animal is the zebra.\n" * 3))
    texts = ["My favourite animal is the", "Once upon a time, there was a"]
    asked = [Query(tuple(encode(text)), fact + tuple(encode(text)), 0.9) for text in texts]
    asked.append(replace(asked[0], context_prompt=None))
    plain = AutoModelForCausalLM.from_pretrained(real_folder, dtype=torch.float32)
    settings = decode(most=5)
    found = generate(real_model.model, None, asked, settings, stop=NONE, room=Room(2000), budget=200)
    for query, answer in zip(asked, found, strict=True):
        assert answer.tokens == reference(plain, query, settings)[0]
    words = [real_model.tokenizer.decode(answer.tokens) for answer in found]
    assert "zebra" in words[0] and "zebra" not in words[2], "the context is used where there is one"
