"""Training of many adapters at once, each as if it were alone.

Every slot has its own batches, schedule, clip norm, step count and end; a slot that finishes makes room
for the next lesson. Parameters of different slots are disjoint, so the gradient of the summed losses is
each slot's own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_of

from spring.engine.attention import head, hidden_states
from spring.engine.budget import halved
from spring.engine.lora import AdapterBank, rank_of
from spring.engine.optimizer import StackedAdamW, schedule
from spring.engine.packing import pack_rows, whole
from spring.engine.parallel import each
from spring.engine.rules import Rule, Start
from spring.engine.scoring import CHUNK, Progress, Text, response_positions, token_batches
from spring.engine.turns import Turn
from spring.train_params import Train

Draw = Callable[[int, torch.Generator], Iterator[list[int]]]  # batch after batch, indices of so many items


@dataclass(frozen=True)
class Lesson:
    """What one adapter learns: its texts, where it starts, and its seed."""

    texts: Sequence[Text]
    start: Mapping[str, Tensor] | None  # null: a fresh adapter
    seed: int
    replay: Sequence[Text] = ()  # of the buffer; drawn into every batch by `replay_share`
    turns: Sequence[Turn] = ()  # text by text in this order; empty: seeded epochs of whole batches
    draw: Draw | None = None  # of what is replayed; null: uniformly
    carried: Mapping[str, Tensor] = field(default_factory=dict)  # left by the rule of the lesson before, [P]


@dataclass(frozen=True)
class Learned:
    """A trained adapter under PEFT's names, and its learning curve, one entry per step."""

    state: dict[str, Tensor]
    loss: list[float]  # mean NLL per response token of the step's batch, times the batch's weight
    lr: list[float]
    grad_norm: list[float]  # before clipping
    tokens: int  # prompt and response tokens seen
    penalty: list[float] = field(default_factory=list)  # of `train.rule`, before each step
    carried: dict[str, Tensor] = field(default_factory=dict)  # for the rule of the next lesson, [P] each


@dataclass(frozen=True)
class Batch:
    """The texts of one optimizer step."""

    texts: list[Text]
    weight: float  # of their loss
    rate: float  # share of the learning rate


@dataclass
class _Slot:
    """A lesson in progress."""

    lesson: int
    batches: Iterator[Batch]
    steps: int
    seed: int
    rule: Rule
    step: int = 0
    rate: float = 0.0  # share of the learning rate at this step
    texts: int = 0  # seen so far
    tokens: int = 0
    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)


def train(
    model: Any,
    bank: AdapterBank,
    lessons: Sequence[Lesson],
    config: Train,
    *,
    budget: int,
    checkpoint: bool = False,
    progress: Progress = lambda _: None,
) -> list[Learned]:
    """Trains one adapter per lesson, `bank.slots` at a time, at most `budget` tokens in one pass.

    `checkpoint` keeps only each layer's input for the backward pass and computes the rest again.
    """
    learned: dict[int, Learned] = {}
    waiting = list(range(len(lessons)))[::-1]
    running: dict[int, _Slot] = {}
    optimizer = StackedAdamW(bank.flat, config)
    with bank.training(), checkpointing(model, bank, on=checkpoint):
        while waiting or running:
            for slot in range(bank.slots):
                if slot not in running and waiting:
                    running[slot] = _begin(bank, optimizer, slot, waiting.pop(), lessons, config)
            _step(model, bank, optimizer, running, config, budget, progress)
            done = {slot: state for slot, state in running.items() if state.step == state.steps}
            if config.rule is not None and config.rule.observes:
                _observe(model, bank, done, lessons, budget, progress)
            for slot, state in done.items():
                learned[state.lesson] = _finish(bank, slot, state)
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
    lesson, rule = lessons[number], Rule()
    if lesson.start is None:
        bank.initialise(slot, seed=lesson.seed)
    elif config.rule is not None and config.rule.grows:
        bank.extend(slot, lesson.start, seed=lesson.seed)
    else:
        bank.load_state(slot, lesson.start)
    if config.rule is not None:
        rank = rank_of(lesson.start) if lesson.start is not None else 0
        carried = {name: value.to(bank.flat.device) for name, value in lesson.carried.items()}
        rule = config.rule.begin(Start(bank.flat[slot], rank, carried, bank.split))
    optimizer.reset(slot)
    batches = plan(lesson, config)
    assert batches, "a lesson needs at least one text"
    return _Slot(number, iter(batches), len(batches), lesson.seed, rule)


def _finish(bank: AdapterBank, slot: int, state: _Slot) -> Learned:
    """What a slot has learned, and what its rule carries on."""
    carried = {name: value.cpu() for name, value in state.rule.finish(bank.flat[slot]).items()}
    return Learned(
        bank.state(slot), state.loss, state.lr, state.grad_norm, state.tokens, state.penalty, carried
    )


def plan(lesson: Lesson, config: Train) -> list[Batch]:
    """All steps of a lesson: its turns, or its epochs at equal weight under the schedule."""
    if lesson.turns:
        assert not lesson.replay, "params refuse replay beside an order of the lesson's own"
        return [
            Batch([lesson.texts[turn.text]], turn.weight, turn.rate)
            for turn in lesson.turns
            for _ in range(turn.steps)
        ]
    batches = plan_batches(lesson, config)
    return [
        Batch(texts, 1.0, schedule(step, len(batches), config.warmup_ratio))
        for step, texts in enumerate(batches)
    ]


def plan_batches(lesson: Lesson, config: Train) -> list[list[Text]]:
    """Whole batches: each epoch has every text once, in seeded order, and replayed texts beside."""
    generator = torch.Generator().manual_seed(lesson.seed)
    replayed = round(config.replay_share * config.batch_size) if lesson.replay else 0
    fresh = config.batch_size - replayed
    assert fresh > 0, "params refuse a replay share that leaves no room for new items"
    draws = (lesson.draw or uniform(len(lesson.replay)))(replayed, generator) if replayed else None
    batches = []
    for _ in range(config.epochs):
        order = torch.randperm(len(lesson.texts), generator=generator).tolist()
        for start in range(0, len(order), fresh):
            batch = [lesson.texts[i] for i in order[start : start + fresh]]
            drawn = next(draws) if draws is not None else []
            batches.append(batch + [lesson.replay[i] for i in drawn])
    return batches


def uniform(items: int) -> Draw:
    """Draws from so many items, each as likely as the others."""

    def draw(count: int, generator: torch.Generator) -> Iterator[list[int]]:
        while True:
            yield torch.randperm(items, generator=generator)[:count].tolist()

    return draw


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
    parts = [part for slot in slots for part in _parts(slot, running[slot], len(bank.layers), budget)]
    grads = torch.zeros(len(slots), bank.width, device=bank.flat.device)
    losses, tokens = [0.0] * len(slots), [0] * len(slots)
    for row, loss, grad in _gradients(model, bank, parts, budget, progress):  # in order: sums are the same
        i = slots.index(row.slot)
        losses[i] += loss
        tokens[i] += len(row.text)
        if grad is not None:
            grads[i] += grad
    bank.regularise(slots, grads)
    rates = [config.lr * running[slot].rate for slot in slots]
    for slot, grad in zip(slots, grads, strict=True):
        running[slot].penalty.append(running[slot].rule.penalise(bank.flat[slot], grad))
    norms = optimizer.step(slots, grads, rates)
    for slot, loss, count, rate, norm in zip(slots, losses, tokens, rates, norms, strict=True):
        state = running[slot]
        state.step += 1
        state.tokens += count
        state.loss.append(loss)
        state.lr.append(rate)
        state.grad_norm.append(norm)
        state.rule.stepped(bank.flat[slot])


def _observe(
    model: Any,
    bank: AdapterBank,
    done: dict[int, _Slot],
    lessons: Sequence[Lesson],
    budget: int,
    progress: Progress,
) -> None:
    """Shows each rule the gradient of every new text by itself; a pass has one text of each slot."""
    texts = {slot: lessons[state.lesson].texts for slot, state in done.items()}
    for turn in range(max(map(len, texts.values()), default=0)):
        now = {slot: mine[turn] for slot, mine in texts.items() if turn < len(mine)}
        parts = [[_Row(slot, text, None, 1 / len(text.response))] for slot, text in now.items()]
        for row, _, grad in _gradients(model, bank, parts, budget, progress):
            assert grad is not None, "a slot has one row in a pass"
            done[row.slot].rule.observe(grad)
            done[row.slot].tokens += len(row.text)


def _gradients(
    model: Any, bank: AdapterBank, parts: Sequence[list[_Row]], budget: int, progress: Progress
) -> list[tuple[_Row, float, Tensor | None]]:
    """Every row in order, its share of the loss and, with a slot's first row in a pass, the gradient [P]."""

    def run(chosen: list[int]) -> list[_Found]:
        rows = [row for i in chosen for row in parts[i]]
        found = halved(lambda some: _backward(model, bank, some), rows)
        progress(sum(len(row.text) for row in rows))
        return found

    passes = token_batches([sum(len(row.text) for row in part) for part in parts], budget)
    found = [one for group in each(run, passes, bank.flat.device) for one in group]
    rows = [row for part in parts for row in part]
    return [(row, loss, grad) for row, (loss, grad) in zip(rows, found, strict=True)]


@dataclass(frozen=True)
class _Row:
    """One text of one slot's batch."""

    slot: int
    text: Text
    seed: int | None  # of its dropout; null: none, for all rows of a pass alike
    weight: float  # of each response token in the batch's mean


_Found = tuple[float, Tensor | None]  # a row's share of the loss; with a slot's first row, the gradient [P]


def _parts(slot: int, state: _Slot, layers: int, budget: int) -> list[list[_Row]]:
    """The next batch of a slot, cut if it exceeds the budget; the cut does not depend on other slots."""
    batch = next(state.batches)
    state.rate = batch.rate
    weight = batch.weight / sum(len(text.response) for text in batch.texts)
    rows = []
    for text in batch.texts:
        seed = (state.seed * 1_000_003 + state.texts * layers) % (1 << 62)  # layers count up from it
        rows.append(_Row(slot, text, seed, weight))
        state.texts += 1
    return [
        [rows[i] for i in chosen] for chosen in token_batches([len(text) for text in batch.texts], budget)
    ]


def _backward(model: Any, bank: AdapterBank, rows: Sequence[_Row]) -> list[_Found]:
    """Each row's share of its slot's loss (mean NLL per response token), and the slots' gradients."""
    device = bank.flat.device
    texts, slots = [row.text for row in rows], [row.slot for row in rows]
    pack = pack_rows(
        [(text.prompt + text.response)[:-1] for text in texts],
        slots,
        device=device,
        prompts=[text.prompt for text in texts],
        users=[text.user for text in texts],
    )
    counts = [len(text.response) for text in texts]
    weights = torch.cat([torch.full((n,), row.weight) for n, row in zip(counts, rows, strict=True)])
    targets = torch.tensor([token for text in texts for token in text.response], device=device)
    seeds = [row.seed for row in rows if row.seed is not None]
    assert len(seeds) in (0, len(rows)), "dropout is for all rows of a pass or for none"
    with bank.routed(pack, seeds or None):
        hidden = hidden_states(model, pack)[response_positions(texts).to(device)]
        nll = FusedNLL.apply(hidden, head(model), targets, weights.to(device))
        own = {slot: list(bank.views(slot)) for slot in dict.fromkeys(slots)}
        views = [view for views in own.values() for view in views]
        grads = iter(torch.autograd.grad(nll.sum(), views, allow_unused=True, materialize_grads=True))
    flat = {slot: torch.cat([next(grads).flatten() for _ in views]) for slot, views in own.items()}
    losses = [x.sum().item() for x in nll.detach().split(counts)]
    return [(loss, flat.pop(slot, None)) for loss, slot in zip(losses, slots, strict=True)]


@contextmanager
def checkpointing(model: Any, bank: AdapterBank, *, on: bool) -> Iterator[None]:
    """Inside the block decoder layers keep only their inputs for the backward pass (arXiv 1604.06174)."""
    stacks = [part for part in model.get_decoder().children() if isinstance(part, nn.ModuleList)]
    layers = list(stacks[0]) if on else []

    def wrapped(forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            route = bank.route  # the backward pass may run in another thread

            def again(*args: Any, **kwargs: Any) -> Any:
                with bank.using(route):
                    return forward(*args, **kwargs)

            return checkpoint_of(again, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

        return run

    try:
        for layer in layers:
            layer.forward = wrapped(layer.forward)
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own is seen again


class FusedNLL(torch.autograd.Function):
    """Weighted NLL of frozen-head logits, chunk by chunk, without keeping any logits.

    The head has no gradient, so d NLL / d hidden = w (softmax - onehot) W is computed on the way forward.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: Any, targets: Tensor, weights: Tensor) -> Tensor:
        """hidden [n, D], targets [n], weights [n] -> weighted NLL [n]."""
        grads, values, n = [], [], len(targets)
        hidden = F.pad(hidden, (0, 0, 0, whole(n) - n))  # what is added has no weight
        targets, weights = (F.pad(x, (0, whole(n) - n)) for x in (targets, weights))
        for h, t, w in zip(hidden.split(CHUNK), targets.split(CHUNK), weights.split(CHUNK), strict=True):
            logp = torch.log_softmax(layer(h), 1, dtype=torch.float32)
            values.append(-logp.gather(1, t[:, None])[:, 0] * w)
            expected = logp.exp_().to(h.dtype) @ layer.weight  # [n, D]
            grads.append(((expected - layer.weight[t]) * w[:, None]).to(h.dtype))
        ctx.save_for_backward(torch.cat(grads)[:n])
        return torch.cat(values)[:n]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Scales the stored gradient."""
        (stored,) = ctx.saved_tensors
        return (stored * grads[0][:, None]).to(stored.dtype), None, None, None
