"""The jobs of `bench.engine`, each on both sides: with the engine and in plain loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from bench import plain, work
from bench.machine import Limits
from bench.texts import lessons, texts
from spring.engine.budget import decoding_room, scoring_tokens, training_tokens
from spring.engine.decoding import generate
from spring.engine.lessons import Lesson, plan_batches
from spring.engine.lora import AdapterBank
from spring.engine.model import BaseModel, load
from spring.engine.queries import Answer, Query
from spring.engine.scoring import token_logps
from spring.engine.settings import Decoding
from spring.engine.texts import Text
from spring.engine.training import train
from spring.method.prompts import Prompter
from spring.settings.train import Train
from tasks.files import DATA
from tasks.params import load_params

MODEL = DATA / "model"
TEXTS, USERS, ITEMS, QUERIES, NEW_TOKENS = 400, 32, 3, 64, 64
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Job:
    """One job on both sides. A side does its work and tells how many useful tokens it was."""

    name: str
    source: str
    size: str
    plain: Callable[[], int]
    engine: Callable[[], tuple[int, float]]  # useful tokens; seconds that the machine needs at least


class Bench:
    """The model on both sides, the prompts, and the settings of the default experiment."""

    def __init__(self, device: str, dtype: str) -> None:
        self.params = load_params()
        self.base: BaseModel = load(MODEL, device=device, dtype=dtype)
        self.model = self.base.model
        self.plain = plain.load(MODEL, self.model.dtype, self.base.device)
        self.prompter = Prompter(self.base.tokenizer, self.params.prompts, self.params.model.max_length)
        recipe, decode = self.params.arms["spring"].train, self.params.arms["spring"].decode
        assert recipe is not None
        self.recipe: Train = recipe
        self.decode = decode.decoding.model_copy(update={"max_new_tokens": NEW_TOKENS})
        self.shape = work.shape_of(self.model, recipe.lora)
        self.stop = {self.prompter.end, self.base.tokenizer.eos_token_id}

    def score(self, rows: Sequence[Text]) -> list[Any]:
        """The engine's log-likelihoods."""
        budget = scoring_tokens(self.model, self.params.model.memory_gb)
        return token_logps(self.model, None, rows, budget=budget)

    def train(self, lessons: Sequence[Lesson], recipe: Train, *, slots: int = 16) -> list[Weights]:
        """The engine's adapters, `slots` at a time as in the stages."""
        bank = AdapterBank(self.model, recipe.lora, slots=min(slots, len(lessons)))
        budget = training_tokens(self.model, self.params.model.memory_gb)
        learned = train(self.model, bank, lessons, recipe, budget=budget)
        bank.detach(self.model)
        return [one.state for one in learned]

    def generate(self, queries: Sequence[Query], states: Sequence[Weights], decode: Decoding) -> list[Answer]:
        """The engine's answers; slot i is `states[i]`."""
        bank = AdapterBank(self.model, self.recipe.lora, slots=len(states))
        for slot, state in enumerate(states):
            bank.load_state(slot, state)
        gigabytes = self.params.model.memory_gb
        answers = generate(
            self.model,
            bank,
            queries,
            decode,
            stop=self.stop,
            room=decoding_room(self.model, gigabytes),
            budget=scoring_tokens(self.model, gigabytes),
        )
        bank.detach(self.model)
        return answers

    def generate_plainly(
        self, queries: Sequence[Query], states: Sequence[Weights], decode: Decoding
    ) -> list[list[int]]:
        """The same, query by query."""
        named = {str(slot): state for slot, state in enumerate(states)}
        wrapped = plain.with_adapters(self.plain, self.recipe.lora, named)
        found = plain.generate(wrapped, queries, decode, stop=self.stop)
        wrapped.unload()
        return found

    def lessons(self, source: str) -> list[Lesson]:
        """What each user learns; all start from one fresh adapter."""
        bank = AdapterBank(self.model, self.recipe.lora, slots=1)
        bank.initialise(0, seed=0)
        start = bank.state(0)
        bank.detach(self.model)
        sets = lessons(self.prompter, source, USERS, ITEMS)
        return [Lesson(own, start, seed=i) for i, own in enumerate(sets)]

    def queries(self, source: str) -> list[Query]:
        """Two queries a user with an open gate: the context is two other texts, of any writer."""
        rows = texts(self.prompter, source, 3 * QUERIES)
        found = []
        for i in range(QUERIES):
            first, second, third = rows[3 * i : 3 * i + 3]
            context = second.prompt + second.response + third.prompt + third.response + first.prompt
            found.append(Query(first.prompt, context, 0.5, i % USERS))
        return found


def every(items: Sequence[Any], step: int, size: Callable[[Any], int]) -> list[Any]:
    """Every `step`-th item in order of size, from the middle of the first `step` on."""
    return sorted(items, key=size)[step // 2 :: step]


def length(query: Query) -> int:
    """Tokens of a query's prompts."""
    return sum(len(prompt) for prompt, _ in query.paths)


# --- the three jobs ----------------------------------------------------------------------------------------


def scoring_job(bench: Bench, source: str, machine: Limits) -> Job:
    """400 responses under the base model."""
    rows = texts(bench.prompter, source, TEXTS)
    some = every(rows, 8, len)

    def engine() -> tuple[int, float]:
        bench.score(rows)
        return sum(map(len, rows)), work.scoring(bench.shape, rows) / machine.flops

    def by_one() -> int:
        plain.score(bench.plain, some)
        return sum(map(len, some))

    return Job("score", source, f"{TEXTS} responses", by_one, engine)


def training_job(bench: Bench, source: str, machine: Limits) -> Job:
    """32 users, each a drift set of 3 items for 2 epochs."""
    all_lessons = bench.lessons(source)

    def read(chosen: Sequence[Lesson]) -> list[Text]:
        return [text for one in chosen for batch in plan_batches(one, bench.recipe) for text in batch]

    some = every(all_lessons, 8, lambda one: sum(map(len, read([one]))))

    def engine() -> tuple[int, float]:
        bench.train(all_lessons, bench.recipe)
        seen = read(all_lessons)
        return sum(map(len, seen)), work.training(bench.shape, seen) / machine.flops

    def by_user() -> int:
        plain.train(bench.plain, some, bench.recipe)
        return sum(map(len, read(some)))

    return Job("train", source, f"{USERS} users", by_user, engine)


def decoding_job(bench: Bench, source: str, machine: Limits) -> Job:
    """64 queries of 32 users, each mixed from two paths under the user's adapter."""
    states = bench.train(bench.lessons(source), bench.recipe)
    queries = bench.queries(source)
    some = every(queries, 16, length)

    def engine() -> tuple[int, float]:
        answers = bench.generate(queries, states, bench.decode)
        rows = [
            (len(prompt), min(len(answer.tokens) + 1, bench.decode.max_new_tokens))  # the stop token, too
            for query, answer in zip(queries, answers, strict=True)
            for prompt, _ in query.paths
        ]
        useful = sum(len(answer.tokens) for answer in answers)
        return useful, work.decoding_seconds(bench.shape, machine, rows)

    def by_query() -> int:
        used = sorted({query.slot for query in some})
        asked = [replace(query, slot=used.index(query.slot)) for query in some]
        found = bench.generate_plainly(asked, [states[slot] for slot in used], bench.decode)
        return sum(map(len, found))

    return Job("generate", source, f"{QUERIES} two-path queries", by_query, engine)


JOBS: dict[str, Callable[[Bench, str, Limits], Job]] = {
    "score": scoring_job,
    "train": training_job,
    "generate": decoding_job,
}
