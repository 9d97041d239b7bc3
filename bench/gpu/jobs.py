"""What is timed: the paper's work on a model of its size, for one user and for many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from bench import work
from bench.gpu.checks import Check, apart
from bench.gpu.models import Sizes, Writer
from bench.gpu.sides import Sides, Watched
from bench.gpu.timing import Job
from bench.machine import Limits
from spring.engine.lessons import Lesson, plan_batches
from spring.engine.roads import road_of, set_road
from spring.engine.settings import Decoding, Learning
from spring.engine.texts import Text
from spring.method.mixing import Mixture

PLAIN = 2  # adapters that PEFT has
SHARE = {torch.float32: 1e-2, torch.bfloat16: 0.2}  # of the spread: deep models in both sides' own rounding
NATS = {torch.float32: 0.05, torch.bfloat16: 0.5}


@dataclass(frozen=True)
class Bench:
    """A model on both sides, what is asked of it, and what the card can do."""

    kind: str
    layers: str  # which ones have adapters, in words
    sides: Sides
    sizes: Sizes
    shape: work.Shape
    machine: Limits

    @property
    def weights(self) -> float:
        """Seconds to read all weights once."""
        return (self.shape.linear + self.shape.head) * self.shape.itemsize / self.machine.bytes

    @property
    def learning(self) -> Learning:
        """A drift set, twice."""
        return Learning(
            lora=self.sides.lora,
            lr=1e-4,
            weight_decay=0.01,
            warmup_ratio=0.0,
            epochs=2,
            batch_size=self.sizes.items,
            grad_clip=1.0,
            replay_share=0.0,
        )

    @property
    def decoding(self) -> Decoding:
        """Answers of a fixed length, mixed as in Eq. 8."""
        return Decoding(repetition_penalty=1.2, max_new_tokens=self.sizes.new, join=Mixture())

    @property
    def writer(self) -> Writer:
        """The same texts again and again."""
        return Writer(self.sides.model.config.vocab_size)

    def texts(self, users: int) -> list[Text]:
        """Texts of so many users."""
        return self.writer.texts(range(users), self.sizes)

    def lessons(self, users: int) -> list[Lesson]:
        """A lesson of each."""
        texts = self.texts(users)
        own = [[text for text in texts if text.slot == slot] for slot in range(users)]
        return [Lesson(some, self.sides.states[slot], seed=slot) for slot, some in enumerate(own)]


# --- both sides agree -------------------------------------------------------------------------------------


def agreement(bench: Bench) -> Iterator[Check]:
    """That both sides do the same work, in the format that is timed; nothing is timed if they do not."""
    sides, dtype = bench.sides, bench.sides.model.dtype

    def found(what: str, error: float, bound: float) -> Check:
        return Check(what, bench.kind, str(dtype).removeprefix("torch."), "-", error, bound)

    users = min(PLAIN, max(bench.sizes.users))
    texts = bench.texts(users)
    some = [texts[0], texts[-1]]
    scores = [scored for scored, text in zip(sides.score(texts), texts, strict=True) if text in some]
    yield found(f"{bench.layers}: scores", apart(scores, sides.score_plainly(some)), SHARE[dtype])
    watched = Watched()
    lessons, once = bench.lessons(1), bench.learning.model_copy(update={"epochs": 1})
    with sides.dropout(0.0):
        sides.learn(lessons, once.model_copy(update={"rule": watched}))
        [steps] = sides.learn_plainly(lessons, once)
    sides.load()
    error = apart([watched.seen[0].cpu()], [steps.gradient.float().cpu()])
    yield found(f"{bench.layers}: gradient", error, SHARE[dtype])
    short = bench.decoding.model_copy(update={"max_new_tokens": min(16, bench.sizes.new)})
    queries = bench.writer.queries(range(users), bench.sizes)
    answers = sides.answer(queries, short)
    worst = max(max(sides.regrets(q, a.tokens, short)) for q, a in zip(queries, answers, strict=True))
    yield found(f"{bench.layers}: nats short of the best token", worst, NATS[dtype])


# --- the jobs ---------------------------------------------------------------------------------------------


def scoring(bench: Bench, users: int) -> Job:
    """Every user's texts under the own adapter."""
    texts, own = bench.texts(users), bench.texts(1)
    least = max(work.scoring(bench.shape, texts) / bench.machine.flops, bench.weights)

    return Job(
        "score",
        users,
        lambda: bench.sides.score(texts),
        lambda: bench.sides.score_plainly(own),
        sum(map(len, texts)),
        sum(map(len, own)),
        least,
    )


def scoring_long(bench: Bench, users: int) -> Job:
    """Texts beyond the window of Gemma's layers, one a user."""
    exactly = bench.writer.exactly
    texts = [
        Text(exactly(bench.sizes.long - bench.sizes.response), exactly(bench.sizes.response), slot)
        for slot in range(users)
    ]
    least = max(work.scoring(bench.shape, texts) / bench.machine.flops, bench.weights)
    return Job(
        f"score texts of {bench.sizes.long}",
        users,
        lambda: bench.sides.score(texts),
        lambda: bench.sides.score_plainly(texts[:1]),
        sum(map(len, texts)),
        len(texts[0]),
        least,
    )


def training(bench: Bench, users: int) -> Job:
    """Every user's drift set, two epochs, all users at once."""
    lessons, config = bench.lessons(users), bench.learning
    seen = [[text for batch in plan_batches(x, config) for text in batch] for x in lessons]
    texts = [text for some in seen for text in some]
    steps = len(plan_batches(lessons[0], config))
    least = max(work.training(bench.shape, texts) / bench.machine.flops, 2 * steps * bench.weights)
    return Job(
        f"train {bench.layers}",
        users,
        lambda: bench.sides.learn(lessons, config),
        lambda: bench.sides.learn_plainly(lessons[:1], config),
        sum(map(len, texts)),
        sum(map(len, seen[0])),
        least,
    )


def answering(bench: Bench, users: int) -> Job:
    """A two-path answer for every user."""
    queries = bench.writer.queries(range(users), bench.sizes)
    rows = [(len(prompt), bench.sizes.new) for query in queries for prompt, _ in query.paths]
    return Job(
        "generate",
        users,
        lambda: bench.sides.answer(queries, bench.decoding),
        lambda: bench.sides.answer_plainly(queries[:1], bench.decoding),
        users * bench.sizes.new,
        bench.sizes.new,
        work.decoding_seconds(bench.shape, bench.machine, rows),
    )


def padded(make: Callable[[Bench, int], Job], bench: Bench, users: int) -> Job:
    """The same job on the engine's other road, which most models do not need: rows with padding."""
    job, model = make(bench, users), bench.sides.model

    def engine() -> None:
        before = road_of(model)
        set_road(model, replace(before, padded=True))
        try:
            job.engine()
        finally:
            set_road(model, before)

    return replace(job, name=f"{job.name}, padded road", engine=engine)
