"""The jobs of `bench.engine`, on all sides: with the engine, in plain loops, and the strongest baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import plain, work
from bench.baselines import Baseline, learning, llama
from bench.machine import Limits
from bench.sides import QUERIES, USERS, Bench
from bench.texts import texts
from spring.engine.lessons import Lesson, plan_batches
from spring.engine.queries import Query
from spring.engine.texts import Text

TEXTS = 400


@dataclass(frozen=True)
class Job:
    """One job on all sides. A side does its work and tells how many useful tokens it was."""

    name: str
    source: str
    size: str
    plain: Callable[[], int]
    engine: Callable[[], tuple[int, float]]  # useful tokens; seconds that the machine needs at least
    baselines: Sequence[Baseline]
    useful: Callable[[Any], int]  # tokens in what a baseline gives


def every(items: Sequence[Any], step: int, size: Callable[[Any], int]) -> list[Any]:
    """Every `step`-th item in order of size, from the middle of the first `step` on."""
    return sorted(items, key=size)[step // 2 :: step]


def length(query: Query) -> int:
    """Tokens of a query's prompts."""
    return sum(len(prompt) for prompt, _ in query.paths)


# --- the jobs ----------------------------------------------------------------------------------------------


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

    others = bench.scorers(rows)
    return Job("score", source, f"{TEXTS} responses", by_one, engine, others, lambda _: sum(map(len, rows)))


def own_scoring_job(bench: Bench, source: str, machine: Limits) -> Job:
    """400 responses, each under the adapter of one of 32 users."""
    states = bench.train(bench.lessons(source), bench.recipe)
    rows = [replace(text, slot=i % USERS) for i, text in enumerate(texts(bench.prompter, source, TEXTS))]
    some = every(rows, 8, len)

    def engine() -> tuple[int, float]:
        bench.score(rows, states)
        lora = 2 * bench.shape.lora * sum(len(row) - 1 for row in rows)
        return sum(map(len, rows)), (work.scoring(bench.shape, rows) + lora) / machine.flops

    def by_one() -> int:
        used = sorted({text.slot for text in some})
        named = {str(slot): states[slot] for slot in used}
        wrapped = plain.with_adapters(bench.plain, bench.recipe.lora, named)
        for text in some:
            wrapped.set_adapter(str(text.slot))
            plain.score(wrapped, [text])
        wrapped.unload()
        return sum(map(len, some))

    others = bench.scorers(rows, states)
    size = f"{TEXTS} responses, {USERS} adapters"
    return Job("score-own", source, size, by_one, engine, others, lambda _: sum(map(len, rows)))


def training_job(bench: Bench, source: str, machine: Limits) -> Job:
    """32 users, each a drift set of 3 items for 2 epochs."""
    all_lessons = bench.lessons(source)

    def read(chosen: Sequence[Lesson]) -> list[Text]:
        return [text for one in chosen for batch in plan_batches(one, bench.recipe) for text in batch]

    some = every(all_lessons, 8, lambda one: sum(map(len, read([one]))))
    seen = read(all_lessons)

    def engine() -> tuple[int, float]:
        bench.train(all_lessons, bench.recipe)
        return sum(map(len, seen)), work.training(bench.shape, seen) / machine.flops

    def by_user() -> int:
        plain.train(bench.plain, some, bench.recipe)
        return sum(map(len, read(some)))

    others = learning.training(bench, source, all_lessons)
    return Job("train", source, f"{USERS} users", by_user, engine, others, lambda _: sum(map(len, seen)))


def answering(
    bench: Bench, source: str, machine: Limits, *, name: str, kind: str, queries: Sequence[Query]
) -> Job:
    """64 queries of 32 users, each under its user's adapter."""
    states = bench.train(bench.lessons(source), bench.recipe)
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

    others = bench.mixed_decoders(queries, states, bench.decode)
    if bench.takes_llama(queries):
        others += llama.decoding(bench.plain, bench.recipe.lora, states, queries, bench.decode, bench.stop)
    return Job(name, source, f"{QUERIES} {kind}", by_query, engine, others, lambda got: sum(map(len, got)))


def decoding_job(bench: Bench, source: str, machine: Limits) -> Job:
    """Each mixed from two paths, one with two texts as context."""
    queries = bench.queries(source)
    return answering(bench, source, machine, name="generate", kind="two-path queries", queries=queries)


def long_job(bench: Bench, source: str, machine: Limits) -> Job:
    """Each mixed from two paths, one with four long texts as context: prompts of some 1,500 tokens."""
    queries = bench.long_queries(source)
    return answering(bench, source, machine, name="long", kind="long two-path queries", queries=queries)


def single_job(bench: Bench, source: str, machine: Limits) -> Job:
    """Each of one path, the query alone."""
    queries = [replace(query, context_prompt=None) for query in bench.queries(source)]
    return answering(bench, source, machine, name="single", kind="one-path queries", queries=queries)


JOBS: dict[str, Callable[[Bench, str, Limits], Job]] = {
    "score": scoring_job,
    "score-own": own_scoring_job,
    "train": training_job,
    "generate": decoding_job,
    "long": long_job,
    "single": single_job,
}
