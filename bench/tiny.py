"""A tiny model and tokenizer that need no network: random weights, a vocabulary of a few sentences."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from spring.engine.roads import Road, road_of, set_road
from spring.engine.survey import survey

VOCABULARY = 320
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # logits spread by about 1, so that attention and adapters show in them
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = [
    "Generate an abstract for the title Adapters that keep up with their users.",
    "Here is what this user wrote before: we propose a method, and we show that it works.",
    "You are an abstract writer. In the same way: user assistant system",
]


def make_model(kind: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """A tiny causal model of any kind, random weights in float32; equal arguments, equal weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**SIZES, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.requires_grad_(False).eval()
    said = str(model.config.to_json_string())
    if said not in _surveyed:
        survey(surveyed := copy.deepcopy(model))
        _surveyed[said] = road_of(surveyed), surveyed.spring_layers
    set_road(model, *_surveyed[said])
    return model


_surveyed: dict[str, tuple[Road, tuple[str, ...]]] = {}  # road and layers, by configuration


def make_tokenizer(sentences: Sequence[str] = SENTENCES, *, size: int = VOCABULARY) -> Any:
    """Byte-level BPE of what is in `sentences`, with a ChatML template.

    Pad token = eos token = end of turn, as in SmolLM2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain.train_from_iterator(sentences, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    made.chat_template = CHAT
    return made


def save_tiny(folder: Path, sentences: Sequence[str] = SENTENCES, *, size: int = VOCABULARY) -> None:
    """A folder that `model.id` can name, for prompts of up to 4,096 tokens."""
    make_model(max_position_embeddings=4096, vocab_size=size).save_pretrained(folder)
    make_tokenizer(sentences, size=size).save_pretrained(folder)
