"""All sides of `bench.engine` compute the same, in float32: asserted before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench import plain
from bench.baselines import Baseline, learning, llama
from bench.differences import apart_in_logp, apart_in_weights
from bench.jobs import TEXTS, every, length
from bench.sides import Bench, Weights
from bench.texts import texts
from spring.engine.queries import Query

NATS = 1e-3  # of one token's log-likelihood
WAY = 0.01  # of the way that training went
FEW = 4  # rows of a baseline's batch, so that there are several


def check(device: str, source: str, *, baselines: bool = True, lessons: int = 2) -> dict[str, float]:
    """Asserts that all sides compute the same, of so many lessons; gives the largest differences."""
    bench = Bench(device, "float32")
    rows = every(texts(bench.prompter, source, TEXTS), 60, len)
    ours = bench.score(rows)
    logp = apart_in_logp(ours, plain.score(bench.plain, rows))
    if baselines:
        logp = max(logp, *(apart_in_logp(ours, found) for found in work(bench.scorers(rows, rows=(FEW,)))))
    lora = bench.recipe.lora.model_copy(update={"dropout": 0.0})  # masks are drawn in different ways
    recipe = bench.recipe.model_copy(update={"lora": lora, "lr": 1e-3})
    taken = bench.lessons(source)[:lessons]
    states = bench.train(taken, recipe)
    sides = [plain.train(bench.plain, taken, recipe)]
    if baselines:
        sides.append(learning.learn(bench.plain, taken, recipe))
    weights = max(
        apart_in_weights(mine, theirs, lesson.start or {})
        for side in sides
        for lesson, mine, theirs in zip(taken, states, side, strict=True)
    )
    assert weights < WAY, f"trained weights differ by {weights} of the way they went"
    asked = [replace(q, slot=i % lessons) for i, q in enumerate(every(bench.queries(source), 16, length))]
    check_answers(bench, asked, states, baselines=baselines)
    if baselines:
        check_answers(bench, [replace(q, context_prompt=None) for q in asked], states, baselines=True)
        owned = [replace(row, slot=i % 3 - 1) for i, row in enumerate(rows)]
        own = bench.score(owned, states)
        logp = max(
            logp, *(apart_in_logp(own, got) for got in work(bench.scorers(owned, states, rows=(FEW,))))
        )
    assert logp < NATS, f"log-likelihoods differ by {logp} nats"
    return {"logp_nats": logp, "weights_relative": weights}


def check_answers(
    bench: Bench, asked: Sequence[Query], states: Sequence[Weights], *, baselines: bool
) -> None:
    """Asserts that all sides generate the same tokens."""
    short = bench.decode.model_copy(update={"max_new_tokens": 24})
    answers = [answer.tokens for answer in bench.generate(asked, states, short)]
    assert len({tuple(tokens) for tokens in answers}) == len(answers), "answers must differ, or this is empty"
    assert answers == bench.generate_plainly(asked, states, short), "generated tokens differ"
    if not baselines:
        return
    others = bench.mixed_decoders(asked, states, short, rows=(FEW,))
    if bench.takes_llama(asked):
        others += llama.decoding(bench.plain, bench.recipe.lora, states, asked, short, bench.stop, exact=True)
    for other, found in zip(others, work(others), strict=True):
        assert answers == found, f"generated tokens differ: {other.name}"


def work(baselines: Sequence[Baseline]) -> list[Any]:
    """What baselines give."""
    found = []
    for baseline in baselines:
        with baseline.ready() as go:
            found.append(go())
    return found
