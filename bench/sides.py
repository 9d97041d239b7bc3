"""The model with the engine and in plain loops, its prompts, and what both are asked: for `bench.jobs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from bench import plain, work
from bench.baselines import Baseline, padded, poly
from bench.texts import lessons, retrieved, texts
from spring.engine.budget import decoding_room, scoring_tokens
from spring.engine.decoding import generate
from spring.engine.keeping import passes_for
from spring.engine.lessons import Lesson
from spring.engine.lora import AdapterBank
from spring.engine.model import BaseModel, load
from spring.engine.packaged import PACKAGED
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
USERS, ITEMS, QUERIES, NEW_TOKENS = 32, 3, 64, 64
LONG = 350  # tokens of each of the four texts that a long query is given
Weights = Mapping[str, Tensor]


class Bench:
    """The model on both sides, the prompts, and the settings of the default experiment."""

    def __init__(self, device: str, dtype: str) -> None:
        self.params, self.asked = load_params(), (device, dtype)
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

    def score(self, rows: Sequence[Text], states: Sequence[Weights] = ()) -> list[Any]:
        """The engine's log-likelihoods; slot i is `states[i]`, and without any the base model reads all."""
        budget = scoring_tokens(self.model, self.params.model.memory_gb)
        if not states:
            return token_logps(self.model, None, rows, budget=budget)
        bank = self.bank(states)
        found = token_logps(self.model, bank, rows, budget=budget)
        bank.detach(self.model)
        return found

    def bank(self, states: Sequence[Weights]) -> AdapterBank:
        """The engine's slots, slot i with `states[i]`."""
        bank = AdapterBank(self.model, self.recipe.lora, slots=len(states))
        for slot, state in enumerate(states):
            bank.load_state(slot, state)
        return bank

    def train(self, lessons: Sequence[Lesson], recipe: Train, *, slots: int = 16) -> list[Weights]:
        """The engine's adapters, `slots` at a time as in the stages."""
        bank = AdapterBank(self.model, recipe.lora, slots=min(slots, len(lessons)))
        passes = passes_for(self.model, bank, lessons, self.params.model.memory_gb)
        learned = train(self.model, bank, lessons, recipe, budget=passes.tokens, checkpoint=passes.checkpoint)
        bank.detach(self.model)
        return [one.state for one in learned]

    def generate(self, queries: Sequence[Query], states: Sequence[Weights], decode: Decoding) -> list[Answer]:
        """The engine's answers; slot i is `states[i]`."""
        bank = self.bank(states)
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

    def long_queries(self, source: str) -> list[Query]:
        """The same, with four texts of LONG tokens each as context."""
        given = retrieved(self.prompter, source, 4 * QUERIES, LONG)
        return [
            replace(query, context_prompt=sum(given[4 * i : 4 * i + 4], ()) + query.prompt)
            for i, query in enumerate(self.queries(source))
        ]

    def scorers(self, texts: Sequence[Text], states: Sequence[Weights] = (), **how: Any) -> list[Baseline]:
        """The baselines that score."""
        return padded.scoring(self.plain, self.recipe.lora, states, texts, **how)

    def mixed_decoders(
        self, queries: Sequence[Query], states: Sequence[Weights], decode: Decoding, **how: Any
    ) -> list[Baseline]:
        """The baselines that answer queries of one or two paths."""
        given = (self.plain, self.recipe.lora, states, queries, decode, self.stop)
        return [*padded.decoding(*given, **how), *poly.decoding(*given, **how)]

    def takes_llama(self, queries: Sequence[Query]) -> bool:
        """Whether llama.cpp can do this: it has one path, the packaged model's weights, and a processor."""
        single = all(len(query.paths) == 1 for query in queries)
        return single and self.params.model.id == PACKAGED and self.base.device.type == "cpu"
