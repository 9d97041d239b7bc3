"""Training of many adapters at once, each as if it were alone.

Every slot has its own batches, schedule, clip norm, step count and end; a slot that finishes makes room
for the next lesson. Parameters of different slots are disjoint, so the gradient of the summed losses is
each slot's own gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_of

from spring.engine.attention import head, hidden_states
from spring.engine.budget import halved
from spring.engine.lora import AdapterBank
from spring.engine.optimizer import StackedAdamW, schedule
from spring.engine.packing import pack_rows
from spring.engine.parallel import each
from spring.engine.scoring import CHUNK, Progress, Text, response_positions, token_batches
from spring.params import Train


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
    texts: int = 0  # seen so far
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
    assert fresh > 0, "params refuse a replay share that leaves no room for new items"
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
    parts = [part for slot in slots for part in _parts(slot, running[slot], len(bank.layers), budget)]

    def run(chosen: list[int]) -> list[_Found]:
        rows = [row for i in chosen for row in parts[i]]
        found = halved(lambda some: _backward(model, bank, some), rows)
        progress(sum(len(row.text) for row in rows))
        return found

    passes = token_batches([sum(len(row.text) for row in part) for part in parts], budget)
    found = [one for group in each(run, passes, bank.flat.device) for one in group]
    grads = torch.zeros(len(slots), bank.width, device=bank.flat.device)
    losses, tokens = [0.0] * len(slots), [0] * len(slots)
    rows = [row for part in parts for row in part]
    for row, (loss, grad) in zip(rows, found, strict=True):  # in order, so that sums are the same each time
        i = slots.index(row.slot)
        losses[i] += loss
        tokens[i] += len(row.text)
        if grad is not None:
            grads[i] += grad
    bank.regularise(slots, grads)
    rates = [config.lr * schedule(running[s].step, running[s].steps, config.warmup_ratio) for s in slots]
    norms = optimizer.step(slots, grads, rates)
    for slot, loss, count, rate, norm in zip(slots, losses, tokens, rates, norms, strict=True):
        state = running[slot]
        state.step += 1
        state.tokens += count
        state.loss.append(loss)
        state.lr.append(rate)
        state.grad_norm.append(norm)


@dataclass(frozen=True)
class _Row:
    """One text of one slot's batch."""

    slot: int
    text: Text
    seed: int  # of its dropout
    weight: float  # of each response token in the batch's mean


_Found = tuple[float, Tensor | None]  # a row's share of the loss; with a slot's first row, the gradient [P]


def _parts(slot: int, state: _Slot, layers: int, budget: int) -> list[list[_Row]]:
    """The next batch of a slot, cut if it exceeds the budget; the cut does not depend on other slots."""
    batch = next(state.batches)
    weight = 1 / sum(len(text.response) for text in batch)
    rows = []
    for text in batch:
        seed = (state.seed * 1_000_003 + state.texts * layers) % (1 << 62)  # layers count up from it
        rows.append(_Row(slot, text, seed, weight))
        state.texts += 1
    return [[rows[i] for i in chosen] for chosen in token_batches([len(text) for text in batch], budget)]


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
    with bank.routed(pack, [row.seed for row in rows]):
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
