"""A model under PEFT's LoRA that reads one row at a time, without padding, batches or caches."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spring.engine.lessons import Lesson, plan_batches
from spring.engine.optimizer import schedule
from spring.engine.queries import Query
from spring.engine.settings import Decoding, Learning, Lora
from spring.engine.texts import Text

State = Mapping[str, Tensor]
FRESH = [[20, 21, 22]]  # read before each row: dynamic rotary frequencies go back to those of short texts


@dataclass
class Choice:
    """A greedily chosen token, and how far ahead of the second it was (nats)."""

    token: int
    ahead: float


class Alone:
    """A model under PEFT's LoRA with the adapter of one slot at a time; slot -1: without any."""

    def __init__(self, model: Any, lora: Lora, layers: Sequence[str], states: Sequence[State]) -> None:
        from peft import LoraConfig, LoraModel

        self.states = states
        self.unused: list[str] = []  # layers that no text went through while training
        config = LoraConfig(
            r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=list(layers), bias="none"
        )
        self.wrapped: Any = LoraModel(model, config, "default").eval()
        self.weights = {  # by the name in a state
            f"base_model.{name.replace('.default.weight', '.weight')}": weight
            for name, weight in self.wrapped.named_parameters()
            if weight.requires_grad
        }

    def put(self, state: State) -> None:
        """Loads one adapter."""
        odd = sorted(state.keys() ^ self.weights.keys())
        assert not odd, f"PEFT puts adapters elsewhere: {len(odd)} names, {odd[0]}"
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[name])

    def logits(self, row: Sequence[int], slot: int) -> Tensor:
        """Logits [T, V] of a row."""
        if slot < 0:
            self.wrapped.disable_adapter_layers()
            logits = self.read(row)
            self.wrapped.enable_adapter_layers()
            return logits
        self.put(self.states[slot])
        return self.read(row)

    def read(self, row: Sequence[int]) -> Tensor:
        """Logits [T, V] of a row under the adapter that is there."""
        with torch.no_grad():
            self.wrapped(input_ids=torch.tensor(FRESH), use_cache=False)
        return self.wrapped(input_ids=torch.tensor([list(row)]), use_cache=False).logits[0].float()

    # --- the three jobs -----------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, text: Text) -> Tensor:
        """log p of every response token."""
        return self._logps(text, self.logits(_read(text), text.slot))

    @staticmethod
    def _logps(text: Text, logits: Tensor) -> Tensor:
        targets = torch.tensor(text.response)
        return logits[len(text.prompt) - 1 :].log_softmax(-1).gather(1, targets[:, None])[:, 0]

    def train(self, lesson: Lesson, config: Learning) -> dict[str, Tensor]:
        """The adapter after a lesson, by torch's AdamW; a batch's gradients add up row by row."""
        assert lesson.start is not None
        self.put(lesson.start)
        weights = list(self.weights.values())
        optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
        batches = plan_batches(lesson, config)
        for step, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = config.lr * schedule(step, len(batches), config.warmup_ratio)
            total = sum(len(text.response) for text in batch)
            for text in batch:
                (-self._logps(text, self.read(_read(text))).sum() / total).backward()
            self._fill()
            torch.nn.utils.clip_grad_norm_(weights, config.grad_clip or math.inf)
            optimizer.step()
            optimizer.zero_grad()
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    def _fill(self) -> None:
        """Layers that are never called have a gradient of zero, and are named."""
        unused = {name: weight for name, weight in self.weights.items() if weight.grad is None}
        self.unused = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in unused})
        for weight in unused.values():
            weight.grad = torch.zeros_like(weight)

    @torch.no_grad()
    def answer(self, query: Query, settings: Decoding, stop: Collection[int]) -> list[Choice]:
        """Greedy tokens of the mixture, the stop token among them; every row is read from its beginning."""
        chosen: list[Choice] = []
        while len(chosen) < settings.max_new_tokens and not (chosen and chosen[-1].token in stop):
            tokens = [one.token for one in chosen]
            score = self.mixed(query, tokens)[-1]
            score[sorted(set(tokens))] *= settings.repetition_penalty
            best = score.topk(2)
            chosen.append(Choice(int(best.indices[0]), float(best.values[0] - best.values[1])))
        return chosen

    def mixed(self, query: Query, tokens: Sequence[int]) -> Tensor:
        """log p [n + 1, V] of the tokens that follow a query's paths, made one as lambda says."""
        parts = [
            self.logits([*prompt, *tokens], query.slot)[-len(tokens) - 1 :].log_softmax(-1) + math.log(weight)
            for prompt, weight in query.paths
        ]
        return torch.logsumexp(torch.stack(parts), 0)

    @torch.no_grad()
    def reference(self, query: Query) -> Tensor:
        """log p of every token of a query's reference under the mixture."""
        logps = self.mixed(query, query.reference[:-1])
        return logps.gather(1, torch.tensor(query.reference)[:, None])[:, 0]


def _read(text: Text) -> tuple[int, ...]:
    """What is read of a text to judge it: its last token predicts nothing, and may lie beyond a limit."""
    return (text.prompt + text.response)[:-1]
