"""Training of many adapters at once, each as if it were alone.

Every slot has its own batches, schedule, clip norm, step count and end; a slot that finishes makes room
for the next lesson. Parameters of different slots are disjoint, so the gradient of the summed losses is
each slot's own gradient. The optimizer is AdamW (arXiv 1711.05101) on the stacked parameters [S, P],
operation by operation as torch.optim.AdamW; the schedule is linear with warm-up as in transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spring.engine.lora import AdapterBank
from spring.engine.packing import head, hidden_states, pack_rows
from spring.engine.parallel import each
from spring.engine.scoring import CHUNK, Progress, Text, response_positions, token_batches
from spring.params import Train

BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(frozen=True)
class Lesson:
    """What one adapter learns: its texts, where it starts, and its seed."""

    texts: Sequence[Text]
    start: Mapping[str, Tensor] | None  # null: a fresh adapter
    seed: int
    replay: Sequence[Text] = ()  # of the buffer; drawn into every batch by `replay_share`


@dataclass(frozen=True)
class Learned:
    """A trained adapter under PEFT's names, and its learning curve, one entry per step."""

    state: dict[str, Tensor]
    loss: list[float]  # mean NLL per response token of the step's batch
    lr: list[float]
    grad_norm: list[float]  # before clipping
    tokens: int  # prompt and response tokens seen


@dataclass
class _Slot:
    """A lesson in progress."""

    lesson: int
    batches: Iterator[list[Text]]
    steps: int
    seed: int
    step: int = 0
    tokens: int = 0
    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)


def train(
    model: Any,
    bank: AdapterBank,
    lessons: Sequence[Lesson],
    config: Train,
    *,
    budget: int,
    progress: Progress = lambda _: None,
) -> list[Learned]:
    """Trains one adapter per lesson, `bank.slots` at a time, at most `budget` tokens in one pass."""
    learned: dict[int, Learned] = {}
    waiting = list(range(len(lessons)))[::-1]
    running: dict[int, _Slot] = {}
    with bank.training() as grad:
        optimizer = StackedAdamW(bank.flat, grad, config)
        while waiting or running:
            for slot in range(bank.slots):
                if slot not in running and waiting:
                    running[slot] = _begin(bank, optimizer, slot, waiting.pop(), lessons, config)
            _step(model, bank, optimizer, running, config, budget, progress)
            for slot, state in list(running.items()):
                if state.step == state.steps:
                    learned[state.lesson] = Learned(
                        bank.state(slot), state.loss, state.lr, state.grad_norm, state.tokens
                    )
                    del running[slot]
    return [learned[i] for i in range(len(lessons))]


def _begin(
    bank: AdapterBank,
    optimizer: StackedAdamW,
    slot: int,
    number: int,
    lessons: Sequence[Lesson],
    config: Train,
) -> _Slot:
    lesson = lessons[number]
    if lesson.start is None:
        bank.initialise(slot, seed=lesson.seed)
    else:
        bank.load_state(slot, lesson.start)
    optimizer.reset(slot)
    batches = plan_batches(lesson, config)
    assert batches, "a lesson needs at least one text"
    return _Slot(number, iter(batches), len(batches), lesson.seed)


def plan_batches(lesson: Lesson, config: Train) -> list[list[Text]]:
    """All batches of a lesson: each epoch has every text once, in seeded order, and replayed texts beside."""
    generator = torch.Generator().manual_seed(lesson.seed)
    replayed = round(config.replay_share * config.batch_size) if lesson.replay else 0
    fresh = config.batch_size - replayed
    if fresh < 1:
        raise ValueError(
            f"train.replay_share {config.replay_share} leaves no room for new items in a batch of "
            f"{config.batch_size}; lower it or raise train.batch_size"
        )
    batches = []
    for _ in range(config.epochs):
        order = torch.randperm(len(lesson.texts), generator=generator).tolist()
        for start in range(0, len(order), fresh):
            batch = [lesson.texts[i] for i in order[start : start + fresh]]
            drawn = torch.randperm(len(lesson.replay), generator=generator)[:replayed].tolist()
            batches.append(batch + [lesson.replay[i] for i in drawn])
    return batches


def _step(
    model: Any,
    bank: AdapterBank,
    optimizer: StackedAdamW,
    running: dict[int, _Slot],
    config: Train,
    budget: int,
    progress: Progress,
) -> None:
    """One optimizer step of every running slot."""
    slots = list(running)
    batches = {slot: next(running[slot].batches) for slot in slots}
    sizes = {slot: sum(len(text) for text in batches[slot]) for slot in slots}
    optimizer.grad.zero_()

    def pass_over(group: list[int]) -> None:
        chosen = [slots[i] for i in group]
        seeds = {slot: _dropout_seed(running[slot], bank) for slot in chosen}
        losses = _backward(model, bank, {slot: batches[slot] for slot in chosen}, seeds)
        for slot, loss in zip(chosen, losses, strict=True):
            running[slot].loss.append(loss)
        progress(sum(sizes[slot] for slot in chosen))

    each(pass_over, token_batches([sizes[slot] for slot in slots], budget), bank.flat.device)
    rates = [config.lr * schedule(running[s].step, running[s].steps, config.warmup_ratio) for s in slots]
    norms = optimizer.step(slots, rates)
    for slot, rate, norm in zip(slots, rates, norms, strict=True):
        state = running[slot]
        state.step += 1
        state.tokens += sizes[slot]
        state.lr.append(rate)
        state.grad_norm.append(norm)


def _dropout_seed(state: _Slot, bank: AdapterBank) -> int:
    """Differs per lesson, step and layer; layers count up from it."""
    return (state.seed * 1_000_003 + state.step * len(bank.layers)) % (1 << 62)


def _backward(
    model: Any, bank: AdapterBank, batches: Mapping[int, Sequence[Text]], seeds: Mapping[int, int]
) -> list[float]:
    """Adds each slot's gradient of its mean NLL per response token; gives the losses."""
    device = bank.flat.device
    rows = [text for batch in batches.values() for text in batch]
    slots = [slot for slot, batch in batches.items() for _ in batch]
    pack = pack_rows([(text.prompt + text.response)[:-1] for text in rows], slots, device=device)
    counts = [sum(len(text.response) for text in batch) for batch in batches.values()]
    weights = torch.cat([torch.full((n,), 1 / n, device=device) for n in counts])
    targets = torch.tensor([token for text in rows for token in text.response], device=device)
    with bank.routed(pack, seeds):
        hidden = hidden_states(model, pack)
        nll = FusedNLL.apply(hidden[response_positions(rows).to(device)], head(model), targets, weights)
        nll.sum().backward()
    return [x.sum().item() for x in nll.detach().split(counts)]


class FusedNLL(torch.autograd.Function):
    """Weighted NLL of frozen-head logits, chunk by chunk, without keeping any logits.

    The head has no gradient, so d NLL / d hidden = w (softmax - onehot) W is computed on the way forward.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: Any, targets: Tensor, weights: Tensor) -> Tensor:
        """hidden [n, D], targets [n], weights [n] -> weighted NLL [n]."""
        grads, values = [], []
        for h, t, w in zip(hidden.split(CHUNK), targets.split(CHUNK), weights.split(CHUNK), strict=True):
            logp = torch.log_softmax(layer(h), 1, dtype=torch.float32)
            values.append(-logp.gather(1, t[:, None])[:, 0] * w)
            expected = logp.exp_().to(h.dtype) @ layer.weight  # [n, D]
            grads.append(((expected - layer.weight[t]) * w[:, None]).to(h.dtype))
        ctx.save_for_backward(torch.cat(grads))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Scales the stored gradient."""
        (stored,) = ctx.saved_tensors
        return (stored * grads[0][:, None]).to(stored.dtype), None, None, None


def schedule(step: int, steps: int, warmup_ratio: float) -> float:
    """Share of the learning rate at `step` (from 0) of `steps`: linear warm-up, then linear decay to 0.

    As in transformers, whose first step of a warm-up has rate 0; [ours] warm-up steps are rounded down, so
    that a lesson of fewer than 10 steps (a drift set is one or two batches) spends none at rate 0.
    """
    warmup = math.floor(steps * warmup_ratio)
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (steps - step) / max(1, steps - warmup))


class StackedAdamW:
    """AdamW on stacked parameters [S, P] with a learning rate, step count and clip norm per slot.

    Slots are stepped one after another: a slot's numbers never depend on who else is there.
    """

    def __init__(self, weights: Tensor, grad: Tensor, config: Train) -> None:
        self.weights, self.grad, self.config = weights, grad, config
        self.first = torch.zeros_like(weights)
        self.second = torch.zeros_like(weights)
        self.count = [0] * len(weights)

    def reset(self, slot: int) -> None:
        """A fresh optimizer for one slot."""
        self.first[slot] = 0
        self.second[slot] = 0
        self.count[slot] = 0

    @torch.no_grad()
    def step(self, slots: Sequence[int], rates: Sequence[float]) -> list[float]:
        """One step of each slot from `grad`; gives the gradient norms before clipping."""
        norms = []
        for slot, rate in zip(slots, rates, strict=True):
            grad, weights = self.grad[slot], self.weights[slot]
            norm = grad.norm().item()
            norms.append(norm)
            if self.config.grad_clip is not None:
                grad.mul_(min(1.0, self.config.grad_clip / (norm + 1e-6)))
            self.count[slot] += 1
            count = self.count[slot]
            weights.mul_(1 - rate * self.config.weight_decay)
            self.first[slot].lerp_(grad, 1 - BETAS[0])
            self.second[slot].mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            denominator = (self.second[slot].sqrt() / math.sqrt(1 - BETAS[1] ** count)).add_(EPS)
            weights.addcdiv_(self.first[slot], denominator, value=-rate / (1 - BETAS[0] ** count))
        return norms
