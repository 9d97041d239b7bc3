"""One model on two sides that share its weights: with the engine, and with transformers and PEFT alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.plain import collate, score, with_adapters
from bench.plain import generate as generate_plainly
from spring.engine.budget import decoding_room, scoring_tokens
from spring.engine.decoding import generate
from spring.engine.keeping import passes_for
from spring.engine.lessons import Learned, Lesson, plan_batches
from spring.engine.lora import AdapterBank
from spring.engine.optimizer import schedule
from spring.engine.queries import Answer, Query
from spring.engine.rules import Rule, Start
from spring.engine.scoring import token_logps
from spring.engine.settings import Decoding, Learning, Lora
from spring.engine.texts import Text
from spring.engine.training import train

State = Mapping[str, Tensor]


class Sides:
    """A model with the adapters `states` on both sides, slot i being PEFT's adapter str(i).

    PEFT is given the first `plain` of them, null: all. given: what the engine gets instead, where a test
    wants the sides to differ.
    """

    def __init__(
        self,
        model: Any,
        lora: Lora,
        states: Sequence[State],
        *,
        memory_gb: float,
        plain: int | None = None,
        given: Sequence[State] | None = None,
    ) -> None:
        self.model, self.lora, self.states, self.memory_gb = model, lora, states, memory_gb
        self.given, self.dropping = given or states, lora.dropout > 0
        first = {str(i): state for i, state in enumerate(states[:plain])}
        self.peft = with_adapters(twin(model), lora, first)
        self.bank = AdapterBank(model, lora, slots=len(states))
        self.load()

    def seat(self, slots: int) -> None:
        """As many slots in the engine as there are users."""
        self.bank.detach(self.model)
        self.bank = AdapterBank(self.model, self.lora, slots=slots)
        self.load()

    def load(self) -> None:
        """The adapters as they were at first, on both sides."""
        from peft import set_peft_model_state_dict

        for slot in range(self.bank.slots):
            self.bank.load_state(slot, self.given[slot])
        set_peft_model_state_dict(self.peft, dict(self.states[0]), adapter_name="0")

    @contextmanager
    def dropout(self, p: float) -> Iterator[None]:
        """Inside the block adapters train with dropout p; for p > 0 each side draws in its own way."""
        before = self.bank.config, self.dropping
        self.bank.config, self.dropping = self.lora.model_copy(update={"dropout": p}), p > 0
        try:
            yield
        finally:
            self.bank.config, self.dropping = before

    def close(self) -> None:
        """The model as it was."""
        self.bank.detach(self.model)
        self.peft.unload()

    # --- the engine ---------------------------------------------------------------------------------------

    def score(self, texts: Sequence[Text]) -> list[np.ndarray]:
        """log p of every response token."""
        budget = scoring_tokens(self.model, self.memory_gb)
        return token_logps(self.model, self.bank, texts, budget=budget)

    def learn(
        self, lessons: Sequence[Lesson], config: Learning, *, checkpoint: bool = False
    ) -> list[Learned]:
        """One adapter for each lesson, all at once; those of the bank are gone after it.

        checkpoint: activations are computed again for the backward pass, as where memory is short.
        """
        passes = passes_for(self.model, self.bank, lessons, self.memory_gb, checkpoint=checkpoint)
        return train(
            self.model, self.bank, lessons, config, budget=passes.tokens, checkpoint=passes.checkpoint
        )

    def answer(self, queries: Sequence[Query], settings: Decoding) -> list[Answer]:
        """Responses to all queries; no token ends one."""
        room, budget = decoding_room(self.model, self.memory_gb), scoring_tokens(self.model, self.memory_gb)
        return generate(self.model, self.bank, queries, settings, stop=(), room=room, budget=budget)

    # --- PEFT alone ---------------------------------------------------------------------------------------

    def score_plainly(self, texts: Sequence[Text]) -> list[np.ndarray]:
        """The same, one text at a time."""
        found = []
        for text in texts:
            with self._under(text.slot):
                found.append(score(self.peft, [text])[0].numpy())
        return found

    @contextmanager
    def _under(self, slot: int) -> Iterator[None]:
        if slot < 0:
            with self.peft.disable_adapter():
                yield
            return
        if self.peft.active_adapter != str(slot):
            self.peft.set_adapter(str(slot))
        yield

    def learn_plainly(self, lessons: Sequence[Lesson], config: Learning) -> list[Steps]:
        """The same, one user after another, in the place of the first adapter."""
        from peft import set_peft_model_state_dict

        found = []
        for lesson in lessons:
            assert lesson.start is not None
            set_peft_model_state_dict(self.peft, dict(lesson.start), adapter_name="0")
            self.peft.set_adapter("0")
            there = dict(self.peft.named_parameters())
            weights = [there[name.removesuffix("weight") + "0.weight"] for name in lesson.start]
            self.peft.train(self.dropping)
            gradient, losses = _steps(self.peft, weights, lesson, config)
            self.peft.eval()
            learned = {n: w.detach().to("cpu", copy=True) for n, w in zip(lesson.start, weights, strict=True)}
            found.append(Steps(learned, gradient, losses))
        return found

    def answer_plainly(self, queries: Sequence[Query], settings: Decoding) -> list[list[int]]:
        """The same, one query after another, each with two caches."""
        return generate_plainly(self.peft, queries, settings, stop=())

    @torch.inference_mode()
    def regrets(self, query: Query, tokens: Sequence[int], settings: Decoding) -> list[float]:
        """By how many nats each token of an answer was less likely than the best one; without any cache."""
        paths = []
        with self._under(query.slot):
            for prompt, weight in query.paths:
                row = torch.tensor([[*prompt, *tokens[:-1]]], device=self.model.device)
                logits = self.peft(row, use_cache=False).logits[0, len(prompt) - 1 :]
                paths.append(logits.float().log_softmax(-1) + math.log(weight))
        scores = torch.stack(paths).logsumexp(0)  # [n, V]
        for i, row in enumerate(scores):
            row[list(set(tokens[:i]))] *= settings.repetition_penalty
        chosen = scores.gather(1, torch.tensor(tokens, device=scores.device)[:, None])[:, 0]
        return (scores.amax(1) - chosen).tolist()


@dataclass(frozen=True)
class Steps:
    """What a plain loop learned: the adapter, the first step's gradient [P], and the losses."""

    state: dict[str, Tensor]
    gradient: Tensor
    loss: list[float]


def twin(model: Any) -> Any:
    """A second model on the same weights, with transformers' own attention."""
    shared = {id(weight): weight for weight in model.parameters()}
    found = copy.deepcopy(model, shared)
    found.set_attn_implementation("sdpa")
    return found


def widened(model: Any) -> Any:
    """The same weights as numbers of float32, with transformers' own attention."""
    found = copy.deepcopy(model).float()
    found.set_attn_implementation("sdpa")
    return found


def _steps(model: Any, weights: list[Tensor], lesson: Lesson, config: Learning) -> tuple[Tensor, list[float]]:
    """All steps of a lesson; the first gradient [P] and the losses."""
    optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
    batches, losses = plan_batches(lesson, config), []
    first = torch.empty(0)
    for step, batch in enumerate(batches):
        rows = {name: rows.to(model.device) for name, rows in collate(batch).items()}
        loss = model(**rows, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            first = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
        if config.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(weights, config.grad_clip)
        optimizer.param_groups[0]["lr"] = config.lr * schedule(step, len(batches), config.warmup_ratio)
        optimizer.step()
        losses.append(loss.item())
    return first, losses


# --- what the engine's training is asked for its gradients with --------------------------------------------


class _Watch(Rule):
    def __init__(self, seen: list[Tensor]) -> None:
        self.seen = seen

    def penalise(self, weights: Tensor, grad: Tensor) -> float:
        self.seen.append(grad.clone())
        return 0.0


@dataclass
class Watched:
    """A method that changes nothing and keeps every gradient [P], slot by slot at each step."""

    grows: ClassVar[bool] = False
    observes: ClassVar[bool] = False
    carries: ClassVar[bool] = False
    seen: list[Tensor] = field(default_factory=list)

    def begin(self, start: Start) -> Rule:
        """A rule that looks on."""
        return _Watch(self.seen)
