"""The benchmark: what it takes for the least work, what all sides compute, and how they are timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import work
from bench.baselines import Baseline
from bench.differences import apart_in_weights
from bench.engine import compared, rate, strongest, timed
from bench.jobs import Job, every
from bench.machine import Limits
from bench.texts import retrieved, texts
from spring.engine.settings import Lora
from spring.engine.texts import Text
from spring.method.prompts import Prompter
from tasks.params import load_params

ROOT = Path(__file__).parents[2]

SHAPE = work.Shape(linear=100, head=10, layers=2, heads=4, kv_heads=2, head_dim=8, lora=6, itemsize=2)


def test_the_shape_of_a_model(tiny: Any) -> None:
    """Width 32, 2 key heads of 8, inner width 48, vocabulary 320, 2 layers; LoRA of rank 4 on q and v."""
    lora = Lora(r=4, alpha=8, dropout=0, target_modules=("q_proj", "v_proj"))
    found = work.shape_of(tiny, lora)
    assert found.linear == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert (found.head, found.layers, found.heads, found.kv_heads) == (320 * 32, 2, 4, 2)
    assert found.lora == 2 * 4 * ((32 + 32) + (32 + 16))
    assert (found.head_dim, found.itemsize) == (8, 4)


def test_operations_by_hand() -> None:
    """5 tokens, logits at 2: products 2 * 100 * 5, attention 2 * 2 * 4 * 8 * 25, output layer 2 * 10 * 2.

    Backwards: the same products, attention twice, and 4 * 6 * 5 for the gradients of the adapter.
    """
    assert SHAPE.forward(5, 2) == 1000 + 3200 + 40
    assert SHAPE.backward(5, 2) == 1000 + 6400 + 40 + 120
    text = Text((1, 2, 3, 4), (5, 6))  # the last token predicts nothing
    assert work.scoring(SHAPE, [text, text]) == 2 * 4240
    assert work.training(SHAPE, [text]) == 4240 + 2 * 6 * 5 + 7560


def test_decoding_by_hand() -> None:
    """Rows of 5 + 3 and 5 + 2 tokens at 1 operation and 1 byte a second.

    Prompts 2 * (1000 + 3200 + 20). The second token of both: products 2 * 116 * 2 = 464 against weights of
    220 bytes, then 128 bytes of cache for each of 6 + 6 tokens. The third of the first: 232, and 7 * 128.
    """
    seconds = work.decoding_seconds(SHAPE, Limits(flops=1, bytes=1), [(5, 3), (5, 2)])
    assert seconds == 2 * 4220 + (464 + 128 * 12) + (232 + 128 * 7)
    slow_memory = work.decoding_seconds(SHAPE, Limits(flops=1, bytes=0.1), [(5, 2)])
    assert slow_memory == pytest.approx(4220 + 2200 + 1280 * 6)


def test_a_sample_is_spread_over_sizes() -> None:
    assert every([9, 1, 5, 3, 7, 2, 8, 4], 4, lambda size: size) == [3, 8]


def test_how_far_adapters_are_apart() -> None:
    """3 and 4 from the start of (0, 0) to (3, 4): a way of 5; the other ends 1 beside it."""
    one, other = ({"a": torch.tensor([3.0, y])} for y in (4.0, 5.0))
    assert apart_in_weights(one, other, {"a": torch.zeros(2)}) == pytest.approx(0.2)


def test_baselines_are_timed_beside_the_engine() -> None:
    """Useful tokens over seconds, without what a baseline prepares; ratios round by round."""

    @contextmanager
    def ready() -> Iterator[Callable[[], list[list[int]]]]:
        time.sleep(0.5)
        yield lambda: [[1, 2, 3], [4]]

    def count(found: list[list[int]]) -> int:
        return sum(map(len, found))

    other = Baseline("another", ready)
    job = Job("generate", "personas", "2 queries", lambda: 1, lambda: (8, 0.0), [other], count)
    assert rate(other, job, torch.device("cpu")) > 4 / 0.4
    found = timed(job, torch.device("cpu"), 2, baselines=True)
    assert found["baselines"].keys() == {"another"}
    assert timed(job, torch.device("cpu"), 1, baselines=False)["baselines"] == {}
    assert compared([8.0, 9.0, 20.0], [4.0, 3.0, 5.0]) == {
        "tokens_per_second": 4.0,
        "ratio": 3.0,
        "ratios": [2.0, 3.0, 4.0],
    }
    row = found | {"tokens_per_second": 9.0, "baselines": {"another": compared([8.0, 9.0], [4.0, 3.0])}}
    assert strongest([row]).splitlines()[-1] == "| generate | personas | another | 4 | 9 | 2.5 (2.0 to 3.0) |"


def test_long_contexts_are_cut_out_of_what_all_wrote(tokenizer: Any) -> None:
    params = load_params(ROOT / "params.yaml")
    prompter = Prompter(tokenizer, params.prompts, params.model.max_length)
    found = retrieved(prompter, "personas", 5, 350)
    assert [len(context) for context in found] == [350] * 5
    assert len(set(found)) == 5
    first = texts(prompter, "personas", 1)[0].response
    assert found[0][: len(first)] == first


@pytest.mark.long
def test_both_sides_agree(real_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the default model: scores, adapters after two steps of two texts, tokens of two mixed paths."""
    from bench import agreement, sides

    monkeypatch.setattr(sides, "MODEL", real_folder)
    monkeypatch.setattr(sides, "ITEMS", 2)
    found = agreement.check("cpu", "personas", baselines=False, lessons=1)
    assert found["logp_nats"] > 0, "two ways of computing never agree to the last bit"
