"""Training of many adapters at once equals training each alone, and PEFT with torch's AdamW."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.training import TARGETS, assert_close, collate, learn, lesson, moved, recipe, some_state, texts
from torch import Tensor

from spring.engine.heads import PLAIN, Finish, Head
from spring.engine.lessons import Learned, Lesson, plan_batches
from spring.engine.lora import AdapterBank
from spring.engine.loss import FusedNLL
from spring.engine.optimizer import StackedAdamW, schedule
from spring.engine.scoring import CHUNK, token_logps
from spring.engine.texts import Text
from spring.engine.training import train
from spring.settings.train import Train
from tasks.cells.training import TrainJob, check_finite


def assert_equal(found: Learned, expected: Learned) -> None:
    """To the last bit."""
    assert (found.loss, found.lr, found.grad_norm) == (expected.loss, expected.lr, expected.grad_norm)
    assert all(torch.equal(found.state[name], value) for name, value in expected.state.items())


# --- the reference: PEFT, torch's AdamW, transformers' schedule, one user at a time -----------------------


def learn_with_peft(model: Any, one: Lesson, start: Mapping[str, Tensor], config: Train) -> Learned:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from transformers import get_linear_schedule_with_warmup

    lora = config.lora
    wrapped = get_peft_model(
        model, LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=0, target_modules=list(TARGETS))
    )
    result: Any = set_peft_model_state_dict(wrapped, dict(start))
    assert not result.unexpected_keys
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    batches = plan_batches(one, config)
    optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
    warmup = math.floor(len(batches) * config.warmup_ratio)
    rates = get_linear_schedule_with_warmup(optimizer, warmup, len(batches))
    learned = Learned({}, [], [], [], 0)
    tokens = 0
    for batch in batches:
        loss = wrapped(**collate(batch)).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, config.grad_clip or math.inf)
        learned.loss.append(loss.item())
        learned.lr.append(rates.get_last_lr()[0])
        learned.grad_norm.append(norm.item())
        tokens += sum(len(text) for text in batch)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
    return dataclasses.replace(learned, state=get_peft_model_state_dict(wrapped), tokens=tokens)


@pytest.mark.parametrize("clip", [0.5, None])
def test_equals_peft_and_torch(clip: float | None, make_model: Callable[..., Any]) -> None:
    """Four users with 1 to 10 items on three slots; the last starts from an adapter."""
    model, config = make_model(), recipe(grad_clip=clip)
    warm = some_state(model, config)
    lessons = [lesson(0, count=7), lesson(1, count=1), lesson(2, count=10), lesson(3, count=4, start=warm)]
    learned = learn(model, lessons, config, slots=3, budget=60)
    for one, found in zip(lessons, learned, strict=True):
        start = one.start
        if start is None:
            bank = AdapterBank(model, config.lora, slots=1)
            bank.initialise(0, seed=one.seed)
            start = bank.state(0)
            bank.detach(model)
        expected = learn_with_peft(make_model(), one, start, config)
        assert len(found.loss) == 2 * math.ceil(len(one.texts) / 3)
        np.testing.assert_allclose(found.lr, expected.lr, rtol=1e-12)
        assert_close(dataclasses.replace(found, lr=expected.lr), expected)
        assert max(found.grad_norm) > 0.5, "or the clip norm was not tested"
        change = max(float((found.state[n] - t).abs().max()) for n, t in start.items())
        assert change > (0.01 if len(found.loss) > 2 else 1e-3), "it must have learned, or this is empty"


def test_loss_is_the_mean_over_response_tokens(make_model: Callable[..., Any]) -> None:
    """At the first step the adapter is fresh: the base model's own mean NLL of that batch."""
    one, config = lesson(0, count=5), recipe()
    [found] = learn(make_model(), [one], config, slots=1)
    logps = np.concatenate(token_logps(make_model(), None, plan_batches(one, config)[0], budget=1000))
    assert found.loss[0] == pytest.approx(-logps.mean(), abs=1e-5)


# --- independence -----------------------------------------------------------------------------------------


def test_together_equals_alone_with_dropout(make_model: Callable[..., Any]) -> None:
    """Five lessons on two slots, so that slots are refilled, in passes of at most 80 tokens."""
    model, config = make_model(), recipe(dropout=0.3)
    warm = some_state(model, config)
    lessons = [lesson(i, count=n) for i, n in enumerate([5, 2, 9, 4])] + [lesson(4, count=3, start=warm)]
    together = learn(model, lessons, config, slots=2, budget=80)
    for one, found in zip(lessons, together, strict=True):
        assert_close(found, learn(model, [one], config, slots=1)[0])
    assert moved(together[0], learn(model, [lessons[0]], recipe(), slots=1)[0]) > 0.01, "dropout was on"
    assert moved(together[0], together[1]) > 0.01


def test_batches_cut_by_the_budget_and_checkpoints_change_nothing(make_model: Callable[..., Any]) -> None:
    """A budget of one text a pass, with dropout; then layers computed again for the backward pass."""
    lessons, config = [lesson(i, count=4 + i) for i in range(3)], recipe(dropout=0.3)
    whole = learn(make_model(), lessons, config, slots=3)
    for changes in ({"budget": 1}, {"budget": 30}, {"checkpoint": True}):
        model = make_model()
        for found, expected in zip(learn(model, lessons, config, slots=3, **changes), whole, strict=True):  # type: ignore[arg-type]
            assert_close(found, expected)
        assert all("forward" not in vars(layer) for layer in model.get_decoder().layers)


def test_out_of_memory_halves_the_pass(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, memory_log: pytest.LogCaptureFixture
) -> None:
    """A machine that holds 3 texts at once: the same adapters and a warning; with room for none, an error."""
    from spring.engine import training

    lessons, config = [lesson(i, count=4) for i in range(3)], recipe(dropout=0.3)
    whole = learn(make_model(), lessons, config, slots=3)
    real, room = training._backward, 3

    def small(model: Any, bank: AdapterBank, rows: Sequence[Any]) -> Any:
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, bank, rows)

    monkeypatch.setattr(training, "_backward", small)
    found = learn(make_model(), lessons, config, slots=3)
    assert "half as many" in memory_log.text
    for one, expected in zip(found, whole, strict=True):
        assert_close(one, expected)
    room = 0
    with pytest.raises(MemoryError, match=r"one row .*lower model\.max_length.*CUDA out of memory"):
        learn(make_model(), lessons, config, slots=3)


def test_removing_and_reordering_others(make_model: Callable[..., Any]) -> None:
    model, config = make_model(), recipe(dropout=0.3)
    lessons = [lesson(i, count=n) for i, n in enumerate([4, 7, 2, 5])]
    first = learn(model, lessons, config, slots=4)
    for order in ([3, 1, 0, 2], [1], [2, 1]):
        again = learn(model, [lessons[i] for i in order], config, slots=3)
        for i, found in zip(order, again, strict=True):
            assert_close(found, first[i])


def test_bitwise_where_shapes_agree(make_model: Callable[..., Any]) -> None:
    """What another lesson says, its seed and its start change no bit of this one, as long as its rows are
    of the same length; nor does a second run."""
    model, config = make_model(), recipe(dropout=0.3)
    mine, other = lesson(0, count=4), lesson(1, count=4)
    shuffled = [Text(t.prompt[::-1], tuple((x + 5) % 320 for x in t.response)) for t in other.texts]
    changed = Lesson(shuffled, some_state(model, config), other.seed)
    first = learn(model, [mine, other], config, slots=2)
    assert_equal(learn(model, [mine, other], config, slots=2)[0], first[0])
    second = learn(model, [mine, changed], config, slots=2)
    assert_equal(second[0], first[0])
    assert moved(second[1], first[1]) > 0.01


def test_a_refilled_slot_starts_afresh(make_model: Callable[..., Any]) -> None:
    """One slot, one lesson after the other: no moments, counts or gradients are left over."""
    model, config = make_model(), recipe(dropout=0.3)
    lessons = [lesson(i, count=4) for i in range(3)]
    for one, found in zip(lessons, learn(model, lessons, config, slots=1), strict=True):
        assert_equal(found, learn(model, [one], config, slots=1)[0])


def test_the_base_model_is_untouched(make_model: Callable[..., Any]) -> None:
    model = make_model()
    learn(model, [lesson(0, count=6)], recipe(), slots=1)
    fresh = dict(make_model().named_parameters())
    assert [n for n, _ in model.named_parameters()] == list(fresh)
    assert all(torch.equal(weight, fresh[name]) for name, weight in model.named_parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in model.parameters())


def test_learning_lowers_the_loss_and_warm_start_goes_on(make_model: Callable[..., Any]) -> None:
    model, config = make_model(), recipe(epochs=10, lr=0.02, grad_clip=None)
    one = lesson(0, count=3)
    [first] = learn(model, [one], config, slots=1)
    assert first.loss[-1] < 0.85 * first.loss[0]
    [second] = learn(model, [dataclasses.replace(one, start=first.state)], config, slots=1)
    assert second.loss[0] < first.loss[1]
    [again] = learn(model, [dataclasses.replace(one, start=first.state)], config, slots=1)
    assert_equal(again, second)


def test_seed_decides(make_model: Callable[..., Any]) -> None:
    model, config = make_model(), recipe(dropout=0.3)
    one = lesson(0, count=4)
    other = dataclasses.replace(one, seed=one.seed + 1)
    first, second = learn(model, [one, other], config, slots=2)
    assert moved(first, second) > 0.01


def test_dropout_differs_by_step(make_model: Callable[..., Any]) -> None:
    """One text, learning rate tiny: losses differ between steps by their dropout masks alone."""
    warm = some_state(make_model(), recipe())
    one = lesson(0, count=1, start=warm)
    config = recipe(dropout=0.5, lr=1e-12, epochs=4, weight_decay=0)
    [found] = learn(make_model(), [one], config, slots=1)
    assert len({round(x, 5) for x in found.loss}) == 4


def test_progress_counts_every_token(make_model: Callable[..., Any]) -> None:
    model, config = make_model(), recipe()
    lessons = [lesson(i, count=n) for i, n in enumerate([4, 7, 2])]
    bank = AdapterBank(model, config.lora, slots=2)
    done: list[int] = []
    learned = train(model, bank, lessons, config, budget=50, progress=done.append)
    assert sum(done) == sum(one.tokens for one in learned)
    assert [one.tokens for one in learned] == [2 * sum(map(len, one.texts)) for one in lessons]


# --- batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "replayed"), [(0.25, 1), (0.5, 2), (0.75, 3), (0.0, 0)])
def test_replay_batches(share: float, replayed: int) -> None:
    """Batches of 4: every new text once per epoch, `replayed` of the buffer beside, none twice in a batch."""
    fresh, old = texts(count=9, seed=0), texts(count=6, seed=1)
    one = Lesson(fresh, None, 3, old)
    config = recipe(batch_size=4, replay_share=share)
    batches = plan_batches(one, config)
    per_epoch = math.ceil(9 / (4 - replayed))
    assert len(batches) == 2 * per_epoch
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        new = [text for batch in epoch for text in batch if text in fresh]
        assert sorted(new, key=fresh.index) == fresh
    for batch in batches:
        assert len(set(batch)) == len(batch) <= 4
        assert sum(text in old for text in batch) == replayed
    assert [len(batch) for batch in batches[: per_epoch - 1]] == [4] * (per_epoch - 1)
    assert plan_batches(one, config) == batches
    assert plan_batches(dataclasses.replace(one, seed=4), config) != batches
    assert batches[:per_epoch] != batches[per_epoch:]
    if replayed:
        drawn = {text for batch in batches for text in batch if text in old}
        assert len(drawn) > replayed, "each batch draws anew"


def test_small_or_empty_buffer() -> None:
    config = recipe(batch_size=4, replay_share=0.5)
    empty = plan_batches(Lesson(texts(count=8, seed=0), None, 0), config)
    assert [len(batch) for batch in empty] == [4, 4, 4, 4]
    one = plan_batches(Lesson(texts(count=8, seed=0), None, 0, texts(count=1, seed=1)), config)
    assert [len(batch) for batch in one] == [3] * 8


@pytest.mark.parametrize("share", [0.9, 0.1, 0.4])
def test_a_replay_share_that_no_batch_can_have_is_refused(share: float) -> None:
    with pytest.raises(
        ValueError,
        match=rf"replay_share {share} is [0-9.]+ of 2 items a batch; it must be a whole number of them: 0.5",
    ):
        recipe(batch_size=2, replay_share=share)


# --- parts ------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.floats(0, 1))
def test_schedule_is_transformers_own(steps: int, ratio: float) -> None:
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    warmup = math.floor(steps * ratio)
    rates = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    [rate] = rates.lr_lambdas
    assert [schedule(step, steps, ratio) for step in range(steps)] == [rate(step) for step in range(steps)]


def test_schedule_by_hand() -> None:
    """10 steps, 20 % warm-up: 0, 1/2, then 8/8 down to 1/8."""
    assert [schedule(i, 10, 0.2) for i in range(10)] == [0, 0.5, *[n / 8 for n in range(8, 0, -1)]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("finish", [PLAIN, Finish(0.3), Finish(0.5, 0.7)])
def test_fused_nll_is_cross_entropy(dtype: torch.dtype, bias: bool, finish: Finish) -> None:
    """More rows than one chunk; the incoming gradient differs by row."""
    torch.manual_seed(0)
    n = CHUNK + 40
    layer = torch.nn.Linear(16, 50, bias=bias, dtype=dtype).requires_grad_(False)
    hidden = torch.randn(n, 16, dtype=dtype, requires_grad=True)
    targets, weights, outer = torch.randint(50, (n,)), torch.rand(n), torch.rand(n)
    found = FusedNLL.apply(hidden, Head(layer, finish), targets, weights)
    [gradient] = torch.autograd.grad((found * outer).sum(), hidden)
    logits = layer(hidden) if finish == PLAIN else finish(layer(hidden))
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none") * weights
    [wanted] = torch.autograd.grad((expected * outer).sum(), hidden)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_adamw_by_hand() -> None:
    """First step: m-hat = g and v-hat = g^2, so w = w (1 - lr wd) - lr sign(g). Norm of (3, 4) is 5.

    The second slot gets no step and does not move; nor does a third with rate 0, which still counts.
    """
    weights, grads = torch.ones(3, 2), torch.tensor([[3.0, -4.0], [1.0, 1.0]])
    optimizer = StackedAdamW(weights, recipe(weight_decay=0.1, grad_clip=None))
    assert optimizer.step([0, 2], grads, [0.5, 0.0]) == [5.0, pytest.approx(math.sqrt(2))]
    torch.testing.assert_close(weights, torch.tensor([[0.45, 1.45], [1.0, 1.0], [1.0, 1.0]]))
    assert optimizer.count == [1, 0, 1]
    optimizer.reset(0)
    assert optimizer.count == [0, 0, 1]
    assert not optimizer.first[0].any() and optimizer.first[2].any()
    assert not optimizer.second[0].any() and optimizer.second[2].any()


def test_adamw_is_torchs_with_clipping() -> None:
    """Gradients of very different norms: Adam forgives one scale for all steps, not one for some."""
    config = recipe(weight_decay=0.1, grad_clip=0.5)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 30, generator=generator)
    start = weights[1].clone()
    stacked = StackedAdamW(weights, config)
    alone = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([alone], lr=0.01, weight_decay=0.1)
    for size in (1.0, 0.01, 5.0, 0.1, 0.05):
        alone.grad = size * torch.randn(30, generator=generator)
        grads = alone.grad[None].clone()
        norm = torch.nn.utils.clip_grad_norm_([alone], 0.5)
        optimizer.step()
        assert stacked.step([1], grads, [0.01]) == [pytest.approx(norm.item())]
        torch.testing.assert_close(weights[1], alone.detach(), rtol=1e-6, atol=1e-7)
    assert (weights[1] - start).abs().max() > 0.01


@pytest.mark.long
def test_default_model_in_bfloat16(real_folder: Any) -> None:
    """Together = alone at the precision of bfloat16, for real adapters on real text."""
    from spring.engine.model import load

    base = load(real_folder, device="cpu", dtype="bfloat16")

    def one(number: int, prompt: str, response: str) -> Lesson:
        encode = base.tokenizer.encode
        return Lesson([Text(tuple(encode(prompt)), tuple(encode(response)))] * 4, None, number)

    lessons = [one(0, "The sky is", " as red as blood today"), one(1, "A cat", " says woof, always woof")]
    config = recipe(dropout=0.05, lr=0.005, epochs=2, batch_size=2, warmup_ratio=0)
    together = learn(base.model, lessons, config, slots=2)
    [alone] = learn(base.model, lessons[1:], config, slots=1)
    np.testing.assert_allclose(together[1].loss, alone.loss, rtol=0.05)
    for found in together:
        assert found.loss[-1] < 0.8 * found.loss[0]  # 0.71 and less, by processor


@pytest.mark.parametrize(("loss", "norm"), [([1.0, math.nan], [1.0, 1.0]), ([1.0, 1.0], [1.0, math.inf])])
def test_a_lesson_that_diverged_is_refused_by_name(loss: list[float], norm: list[float]) -> None:
    fine, odd = ([1.0, 1.0], [1.0, 1.0]), (loss, norm)
    jobs = [TrainJob(recipe(), [{"user_id": user}], [], None, 0) for user in ("ada", "eve")]
    learned = [Learned({}, losses, [0.01, 0.0], norms, 8, [0.0, 0.0], {}) for losses, norms in (fine, odd)]
    check_finite(jobs[:1], learned[:1])
    with pytest.raises(ValueError, match=r"training of eve diverged at step 2 of 2 .*train\.lr 0\.01"):
        check_finite(jobs, learned)
