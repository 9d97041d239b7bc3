"""That the engine on this device computes what PEFT alone computes there, row by row.

What is compared with is PEFT in float32 on the same weights; errors are shares of the spread of its numbers.
In float32 the engine may be off by `FLOAT32`: more than the order of sums explains is an error, and so is
tf32. In bfloat16 it may be off by `TIMES` what PEFT itself is in bfloat16, which the same run shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench.gpu.models import ROADS, TARGETS, TINY, Kind, Writer, adapters, make
from bench.gpu.sides import Sides, State, Watched, widened
from spring.engine import trials
from spring.engine.lessons import Lesson
from spring.engine.queries import Query
from spring.engine.settings import Decoding, Learning, Lora
from spring.engine.texts import Text
from spring.method.mixing import Mixture

FLOAT32 = 1e-4  # tf32 is off by 3e-4 and more
TIMES, FEW = 3, 2  # of PEFT's own error, which is at least so many units in the last place
NATS = {
    torch.float32: 1e-3,
    torch.bfloat16: 0.1,
}  # a chosen token may be less likely than the best by so much
SLOTS, DROPOUT = 3, 0.2
LORA = Lora(r=8, alpha=16, dropout=0.0, target_modules=TARGETS)
LEARNING = Learning(
    lora=LORA,
    lr=1e-3,
    weight_decay=0.01,
    warmup_ratio=0.0,
    epochs=1,
    batch_size=TINY.items,
    grad_clip=1.0,
    replay_share=0.0,
)
DECODING = Decoding(repetition_penalty=1.2, max_new_tokens=12, join=Mixture())


@dataclass(frozen=True)
class Check:
    """One comparison: an error, what it may be at most, and that of PEFT in the same format."""

    check: str
    model: str
    dtype: str
    road: str
    error: float
    bound: float
    peft: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the error is a number within its bound."""
        return self.error <= self.bound  # not so for NaN


@dataclass(frozen=True)
class Case:
    """A small random model in one format, with what is asked of it."""

    kind: str
    dtype: torch.dtype
    road: str
    sides: Sides
    exact: Sides  # PEFT in float32
    texts: list[Text]
    queries: list[Query]

    @property
    def rounding(self) -> float:
        """How far two ways of computing the same may be apart."""
        return FLOAT32 if self.dtype == torch.float32 else 8 * torch.finfo(self.dtype).eps

    def found(self, check: str, error: float, bound: float, peft: float | None = None) -> Check:
        """A comparison under this case's name."""
        return Check(check, self.kind, _name(self.dtype), self.road, error, bound, peft)

    def compared(self, check: str, ours: Any, theirs: Any, exact: Any) -> Check:
        """Whether `ours` is as near to `exact` as the format lets it be, where `theirs` is PEFT in it."""
        if self.dtype == torch.float32:
            return self.found(check, apart(ours, exact), FLOAT32)
        peft = apart(theirs, exact)
        return self.found(
            check, apart(ours, exact), TIMES * max(peft, FEW * torch.finfo(self.dtype).eps), peft
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def case(
    kind: Kind,
    device: torch.device,
    dtype: torch.dtype,
    *,
    road: str = ROADS[0],
    spoil: Callable[[State], State] | None = None,
) -> Case:
    """A case with mixed adapters; `spoil` changes what the engine gets of the last one."""
    model = make(kind.type, kind.small, device, dtype, road=road)
    exact = widened(model)
    states = adapters(model, LORA, SLOTS)
    given = [*states[:-1], spoil(states[-1])] if spoil else None
    sides = Sides(model, LORA, states, memory_gb=1.0, given=given)
    writer = Writer(kind.small["vocab_size"])
    texts = writer.texts([0, 2, -1, 1, 0, 2], TINY)
    return Case(
        kind.name,
        dtype,
        road,
        sides,
        Sides(exact, LORA, states, memory_gb=1.0),
        texts,
        writer.queries([0, 2, 1], TINY),
    )


def apart(one: Any, other: Any) -> float:
    """Root mean square of a difference, over the spread of the second."""
    a, b = (np.concatenate([np.asarray(x, dtype=np.float64).ravel() for x in side]) for side in (one, other))
    return float(np.sqrt(np.square(a - b).mean()) / b.std())


# --- what is checked --------------------------------------------------------------------------------------


def scoring(case: Case) -> list[Check]:
    """Likelihoods of rows under mixed adapters and under none, in one batch, against one at a time."""
    ours, theirs = case.sides.score(case.texts), case.sides.score_plainly(case.texts)
    exact = case.exact.score_plainly(case.texts)
    bare = case.exact.score_plainly([replace(text, slot=-1) for text in case.texts])
    assert apart(bare, exact) > 0.1, "adapters must matter, or this is empty"
    return [case.compared("scores under mixed adapters", ours, theirs, exact)]


def training(case: Case) -> list[Check]:
    """The first step's gradient and loss of several lessons at once; in float32 the weights after it."""
    lessons = lessons_of(case)
    theirs = [replace(x, start=s) for x, s in zip(lessons, case.sides.states, strict=True)]
    watched = Watched()
    ours = case.sides.learn(lessons, LEARNING.model_copy(update={"rule": watched}))
    plain, exact = case.sides.learn_plainly(theirs, LEARNING), case.exact.learn_plainly(theirs, LEARNING)
    for side in (case.sides, case.exact):
        side.load()
    gradients = [[step.gradient.float().cpu() for step in steps] for steps in (plain, exact)]
    seen = [gradient.cpu() for gradient in watched.seen[:SLOTS]]
    losses = [[step.loss[:1] for step in steps] for steps in (plain, exact)]
    found = [
        case.compared("gradient of a training step", seen, *gradients),
        case.compared("loss of a training step", [one.loss[:1] for one in ours], *losses),
    ]
    if case.dtype == torch.float32:  # elsewhere Adam makes steps of equal length out of what rounding left
        ways = [
            [_way(state, lesson.start or {}) for state, lesson in zip(states, theirs, strict=True)]
            for states in ([one.state for one in ours], [one.state for one in exact])
        ]
        found.append(case.found("weights after a training step", apart(*ways), 100 * FLOAT32))
    return found


def lessons_of(case: Case) -> list[Lesson]:
    """The texts of every slot, to be learned from where the engine's adapter is."""
    return [
        Lesson([text for text in case.texts if text.slot == slot], state, seed=slot)
        for slot, state in enumerate(case.sides.given)
    ]


def dropping(case: Case) -> list[Check]:
    """One lesson's gradient under dropout: among three, alone, and with activations computed again."""
    lessons = lessons_of(case)

    def gradient(some: list[Lesson], p: float, *, checkpoint: bool = False) -> list[torch.Tensor]:
        watched = Watched()
        with case.sides.dropout(p):
            case.sides.learn(some, LEARNING.model_copy(update={"rule": watched}), checkpoint=checkpoint)
        return [watched.seen[0].cpu()]

    among, bound = gradient(lessons, DROPOUT), case.rounding
    assert apart(gradient(lessons, 0.0), among) > 2 * bound, "dropout must matter, or this is empty"
    alone, again = gradient(lessons[:1], DROPOUT), gradient(lessons, DROPOUT, checkpoint=True)
    case.sides.load()
    return [
        case.found("dropout: gradient among others, against alone", apart(among, alone), bound),
        case.found("dropout: gradient of activations computed again", apart(again, among), bound),
    ]


def _way(state: State, start: State) -> torch.Tensor:
    return torch.cat([(state[name] - start[name]).flatten() for name in start])


def answering(case: Case) -> list[Check]:
    """Two-path answers of mixed adapters: every token against PEFT without a cache; in float32 all tokens."""
    ours = [answer.tokens for answer in case.sides.answer(case.queries, DECODING)]
    theirs = case.sides.answer_plainly(case.queries, DECODING)
    assert len({tuple(tokens) for tokens in ours}) == len(ours), "answers must differ, or this is empty"
    assert min(len(set(tokens)) for tokens in ours) > 4, (
        "answers must not repeat themselves, or this is empty"
    )
    worst, peft = (
        max(max(case.exact.regrets(*pair, DECODING)) for pair in zip(case.queries, side, strict=True))
        for side in (ours, theirs)
    )
    bound = max(NATS[case.dtype], 0.0 if case.dtype == torch.float32 else TIMES * peft)
    found = [case.found("tokens of two paths: nats short of the best", worst, bound, peft)]
    if case.dtype == torch.float32:
        other = sum(a != b for a, b in zip(ours, theirs, strict=True))
        found.append(case.found("answers of two paths that differ", float(other), 0.0))
    return found


def caching(case: Case) -> list[Check]:
    """The same rows read at once and token by token behind a cache, which one row leaves early."""
    rows, slots = [[*text.prompt, *text.response] for text in case.texts], [text.slot for text in case.texts]
    model, bank = case.sides.model, case.sides.bank
    found = trials.answer(model, rows, slots, bank)
    at_once = trials.score(model, rows, slots, bank)
    behind = zip(found, at_once, rows, strict=True)
    wanted = [logits[len(row) - trials.NEW - 1 :][: len(steps)] for steps, logits, row in behind]
    error = apart([x.cpu() for x in found], [x.cpu() for x in wanted])
    return [case.found("token by token behind a cache, against at once", error, case.rounding)]


def neighbours(case: Case) -> list[Check]:
    """A row's scores when every other row of its batch says something else, of the same length."""
    writer = Writer(case.sides.model.config.vocab_size, seed=1)
    own, *others = case.texts
    changed = [replace(x, response=writer.exactly(len(x.response))) for x in others]
    before, after = case.sides.score([own, *others])[0], case.sides.score([own, *changed])[0]
    return [case.found("a row whose neighbours change", float(np.abs(before - after).max()), 0.0)]


def twice(case: Case) -> list[Check]:
    """The same, twice: scores and answers to the last bit, gradients, summed in any order, to rounding."""
    scores = [np.concatenate(case.sides.score(case.texts)) for _ in range(2)]
    answers = [[a.tokens for a in case.sides.answer(case.queries, DECODING)] for _ in range(2)]
    lesson = [Lesson(case.texts[:2], case.sides.given[0], seed=0)]
    gradients = []
    for _ in range(2):
        watched = Watched()
        case.sides.learn(lesson, LEARNING.model_copy(update={"rule": watched}))
        gradients.append([watched.seen[0].cpu()])
    case.sides.load()
    bound = FLOAT32 if case.dtype == torch.float32 else 2 * torch.finfo(case.dtype).eps
    return [
        case.found("scores twice", float(np.abs(scores[0] - scores[1]).max()), 0.0),
        case.found("answers twice", float(answers[0] != answers[1]), 0.0),
        case.found("gradients twice", apart(*gradients), bound),
    ]


CHECKS: Sequence[Callable[[Case], list[Check]]] = (
    scoring,
    training,
    dropping,
    answering,
    caching,
    neighbours,
    twice,
)
