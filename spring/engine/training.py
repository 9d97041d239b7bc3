"""Training of many adapters at once, each as if it were alone.

Every slot has its own batches, schedule, clip norm, step count and end; a slot that finishes makes room
for the next lesson. Parameters of different slots are disjoint, so the gradient of the summed losses is
each slot's own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as checkpoint_of

from spring.engine.budget import halved, joined
from spring.engine.forward import hidden_states
from spring.engine.layers import decoder_layers
from spring.engine.lessons import Batch, Learned, Lesson, plan
from spring.engine.lora import AdapterBank, rank_of
from spring.engine.loss import FusedNLL
from spring.engine.optimizer import StackedAdamW
from spring.engine.packing import pack_rows
from spring.engine.parallel import each
from spring.engine.roads import head, road_of
from spring.engine.rules import Rule, Start
from spring.engine.scoring import Progress, response_positions, token_batches
from spring.engine.settings import Learning
from spring.engine.texts import Text

Stepped = Callable[[Sequence[float]], object]  # told the losses of a step


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
    config: Learning,
    *,
    budget: int,
    checkpoint: bool = False,
    progress: Progress = lambda _: None,
    stepped: Stepped = lambda _: None,
) -> list[Learned]:
    """Trains one adapter per lesson, `bank.slots` at a time; a batch of at most `budget` tokens is one pass.

    `checkpoint` keeps only each layer's input for the backward pass and computes the rest again. `stepped` is
    told the losses of every step, one of each adapter that took it.
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
            stepped(_step(model, bank, optimizer, running, config, budget, progress))
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
    config: Learning,
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


def _step(
    model: Any,
    bank: AdapterBank,
    optimizer: StackedAdamW,
    running: dict[int, _Slot],
    config: Learning,
    budget: int,
    progress: Progress,
) -> list[float]:
    """One optimizer step of every running slot; their losses (nats per response token)."""
    slots = list(running)
    layers, padded = len(bank.layers), road_of(model).padded
    parts = [part for slot in slots for part in _parts(slot, running[slot], layers, budget, padded=padded)]
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
    return losses


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

    padded = road_of(model).padded
    if padded:
        sizes, counts = [max(len(row.text) for row in part) for part in parts], [len(part) for part in parts]
        passes = list(token_batches(sizes, budget, padded=True, rows=counts))
    else:
        sizes = [sum(len(row.text) for row in part) for part in parts]
        passes = list(token_batches(sizes, joined(bank.flat.device, budget)))
    # the largest first, so that in the end no core waits long for the others
    order = sorted(range(len(passes)), key=lambda i: -sum(sizes[part] for part in passes[i]))
    done = each(run, [passes[i] for i in order], bank.flat.device, one=padded)
    found = [one for _, group in sorted(zip(order, done, strict=True)) for one in group]
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


def _parts(slot: int, state: _Slot, layers: int, budget: int, *, padded: bool) -> list[list[_Row]]:
    """The next batch of a slot, cut if it exceeds the budget."""
    batch = next(state.batches)
    state.rate = batch.rate
    weight = batch.weight / sum(len(text.response) for text in batch.texts)
    rows = []
    for text in batch.texts:
        seed = (state.seed * 1_000_003 + state.texts * layers) % (1 << 62)  # layers count up from it
        rows.append(_Row(slot, text, seed, weight))
        state.texts += 1
    sizes = [len(text) for text in batch.texts]
    return [[rows[i] for i in chosen] for chosen in token_batches(sizes, budget, padded=padded)]


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
    hidden = hidden_states(model, pack, bank, seeds=seeds or None)[response_positions(texts).to(device)]
    nll = FusedNLL.apply(hidden, head(model), targets, weights.to(device))
    own = {slot: list(bank.views(slot)) for slot in dict.fromkeys(slots)}
    views = [view for views in own.values() for view in views]
    grads = iter(torch.autograd.grad(nll.sum(), views, allow_unused=True, materialize_grads=True))
    flat = {slot: torch.cat([next(grads).flatten() for _ in views]) for slot, views in own.items()}
    losses = torch.stack([x.sum() for x in nll.detach().split(counts)]).tolist()
    return [(loss, flat.pop(slot, None)) for loss, slot in zip(losses, slots, strict=True)]


@contextmanager
def checkpointing(model: Any, bank: AdapterBank, *, on: bool) -> Iterator[None]:
    """Inside the block decoder layers keep only their inputs for the backward pass (arXiv 1604.06174)."""
    layers = list(decoder_layers(model)) if on else []

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
