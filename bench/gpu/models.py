"""Random models of the kinds that the paper uses, small and at its size, and random texts of its lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench.projection.paper import ABSTRACTS
from spring.engine.lora import AdapterBank
from spring.engine.queries import Query
from spring.engine.roads import Road
from spring.engine.settings import Lora
from spring.engine.survey import adopt, survey_twin
from spring.engine.texts import Text

Changes = Mapping[str, Any]
ROADS = ("packed", "padded")  # how the engine may read rows (spring/engine/roads.py)
TARGETS = ("q_proj", "v_proj")
STRENGTH = 0.1  # of the B of random adapters: an update is a third of what the layer gives by itself


@dataclass(frozen=True)
class Kind:
    """A model of transformers, and what its configuration has of its own."""

    name: str
    type: str
    small: Changes
    full: Changes


# A window that texts exceed, heads that share keys, norms of queries and keys: all that the large ones have.
SMALL: Changes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 64}
SMALL = {**SMALL, "num_key_value_heads": 2, "vocab_size": 1024, "initializer_range": 0.1}
WINDOWS = ["sliding_attention", "full_attention"]

KINDS = (
    Kind(
        "gemma-3-4b",
        "gemma3_text",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "layer_types": WINDOWS,
            "sliding_window": 24,
            "query_pre_attn_scalar": 64,
        },
        {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 1024,
            "vocab_size": 262208,
        },
    ),
    Kind(
        "qwen-3-4b",
        "qwen3",
        {**SMALL, "num_hidden_layers": 2, "tie_word_embeddings": True},
        {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
            "vocab_size": 151936,
        },
    ),
)


def make(
    kind: str, changes: Changes, device: torch.device, dtype: torch.dtype, *, road: str = ROADS[0]
) -> Any:
    """A frozen model with random weights, read by a road; equal arguments, equal weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, bos_token_id=None, eos_token_id=None, pad_token_id=None, **changes)
    with device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.to(device).requires_grad_(False).eval()
    _turn(model.get_decoder().norm.weight)
    adopt(model, _road(kind, json.dumps(changes), road))
    return model


@cache
def _road(kind: str, changes: str, asked: str) -> Road:
    """Found on a small model on the processor, as when a model is prepared."""
    from transformers import AutoConfig

    return survey_twin(AutoConfig.for_model(kind, **json.loads(changes)), asked=asked)


def _turn(norm: Tensor) -> None:
    """Turns half of the last norm's factors around, whether they are w or 1 + w.

    Where the output layer is the embedding, a random model would say the token that it has just read again.
    """
    signs = 2 * torch.randint(0, 2, norm.shape, generator=torch.Generator().manual_seed(3)) - 1
    norm.copy_(signs.to(norm) - (1 - norm))


def adapters(model: Any, lora: Lora, count: int) -> list[dict[str, Tensor]]:
    """Random adapters that change much: A as in a fresh one, B not zero."""
    bank = AdapterBank(model, lora, slots=1)
    generator = torch.Generator().manual_seed(5)
    found = []
    for seed in range(count):
        bank.initialise(0, seed=seed)
        found.append(
            {
                name: STRENGTH * torch.randn(value.shape, generator=generator) if "lora_B" in name else value
                for name, value in bank.state(0).items()
            }
        )
    bank.detach(model)
    return found


@dataclass(frozen=True)
class Sizes:
    """How much is asked: users at once, and tokens of a prompt, a response and a retrieved context."""

    users: tuple[int, ...]
    prompt: int
    response: int
    context: int
    new: int  # tokens to generate
    long: int  # tokens of a text beyond the window
    items: int = 4  # texts of a user, scored or learned


PAPER = Sizes((1, 8, 32), ABSTRACTS.prompt, ABSTRACTS.response, ABSTRACTS.context, new=64, long=2048)
TINY = Sizes((1, 2), 6, 10, 30, new=6, long=48, items=2)


class Writer:
    """Random texts of a vocabulary; lengths vary by a quarter around what is asked."""

    def __init__(self, vocabulary: int, *, seed: int = 0) -> None:
        self.vocabulary, self.generator = vocabulary, torch.Generator().manual_seed(seed)

    def tokens(self, about: int) -> tuple[int, ...]:
        """Some tokens, at least 2."""
        spread = max(1, about // 4)
        length = about + int(torch.randint(-spread, spread + 1, (), generator=self.generator))
        return self.exactly(max(2, length))

    def exactly(self, length: int) -> tuple[int, ...]:
        """So many tokens; the first few of a vocabulary are left to those with a meaning."""
        drawn = torch.randint(8, self.vocabulary, (length,), generator=self.generator)
        return tuple(drawn.tolist())

    def texts(self, slots: Sequence[int], sizes: Sizes) -> list[Text]:
        """`items` texts for each of these slots."""
        return [
            Text(self.tokens(sizes.prompt), self.tokens(sizes.response), slot)
            for slot in slots
            for _ in range(sizes.items)
        ]

    def queries(self, slots: Sequence[int], sizes: Sizes) -> list[Query]:
        """A two-path query for each of these slots."""
        found = []
        for slot in slots:
            prompt = self.tokens(sizes.prompt)
            found.append(Query(prompt, self.tokens(sizes.context) + prompt, 0.5, slot))
        return found
