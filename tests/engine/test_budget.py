"""Out of memory: what PyTorch really raises under a limit of the system, and how it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count

import pytest
import torch

from spring.engine import budget
from spring.engine.budget import (
    Shape,
    TooLargeError,
    decoding_room,
    halved,
    out_of_memory,
    scoring_tokens,
    warn_of_memory,
)
from spring.engine.twins import twin

# One child per limit, forked after the model has run once: what it was given is the limit above what it has.
LIMITED = """
import json, os, resource, sys
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from spring.engine.budget import TooLargeError
from spring.engine.roads import Road, set_road
from spring.engine.scoring import Text, token_logps

torch.set_num_threads(1)
sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4}
config = AutoConfig.for_model("llama", vocab_size=8000, **sizes)
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
set_road(model, Road())
texts = [Text(tuple(range(5, 60 + i)), tuple(range(5, 100))) for i in range(12)]
token_logps(model, None, texts[:1], budget=1 << 14)
whole = token_logps(model, None, texts, budget=1 << 10)
page, place = os.sysconf("SC_PAGE_SIZE"), {"AS": 0, "DATA": 5}
for kind in place:
    for megabytes in (4, 8, 16, 24, 32):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        has = int(open("/proc/self/statm").read().split()[place[kind]]) * page
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (has + megabytes * 10**6,) * 2)
        try:
            found = token_logps(model, None, texts, budget=1 << 14)
            near = all(np.allclose(f, w, atol=0.2) for f, w in zip(found, whole))
            said = "as without a limit" if near else "other numbers"
        except TooLargeError as error:
            said = "one row does not fit"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(1, (json.dumps([kind, megabytes, said]) + "\\n").encode())
        os._exit(0)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")
def test_whatever_pytorch_raises_for_want_of_memory_is_recognised() -> None:
    """Ten real limits: every one halves until it fits, or ends in words; bfloat16 goes through oneDNN."""
    command = [sys.executable, "-W", "ignore", "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 5  # under a few limits the library itself crashes
    said = {what for _, _, what in found}
    assert said <= {"as without a limit", "one row does not fit"}, found
    assert "as without a limit" in said
    assert "half as many" in done.stderr  # although Python's warnings are off
    assert "Lower model.memory_gb" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    ],
)
def test_the_words_of_every_allocator(error: BaseException) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), RuntimeError("mat1 and mat2 shapes cannot be multiplied")]
)
def test_other_errors_pass_through(error: RuntimeError) -> None:
    def work(items: list[int]) -> list[int]:
        raise error

    assert not out_of_memory(error)
    with pytest.raises(RuntimeError) as caught:
        halved(work, [1, 2])
    assert caught.value is error


def test_halving_ends_in_words(memory_log: pytest.LogCaptureFixture) -> None:
    """By hand: 4 rows, then 2, then 1 fail; two warnings, then an error that keeps the reason."""

    def work(items: list[int]) -> list[int]:
        raise RuntimeError("could not create a primitive\nat some place")

    with pytest.raises(TooLargeError, match=r"one row .* \(could not create a primitive\)$") as caught:
        halved(work, [1, 2, 3, 4])
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert [record.args[0] for record in memory_log.records] == ["4 rows", "2 rows"]  # type: ignore[index]


def test_it_is_told_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "_failed", count(1))
    for _ in range(20):
        warn_of_memory("2 rows")
    assert len(caplog.records) == 5  # attempts 1, 2, 4, 8, 16
    assert "(attempt" not in caplog.messages[0] and "(attempt 16 that failed)" in caplog.messages[4]


@pytest.mark.parametrize(
    "kind", ["llama", "gpt2", "mamba", "bloom", "mpt", "gptj", "gemma3n_text", "rwkv", "zamba2"]
)
def test_every_family_has_a_budget(kind: str) -> None:
    """Whatever its configuration calls its sizes, or does not say; of the twin: a layer is no wider."""
    from transformers import AutoConfig

    model = twin(AutoConfig.for_model(kind))
    shape = Shape.of(model)
    assert shape.layers >= 2 and shape.width == 64 and 64 <= shape.inner <= 512 and shape.vocabulary >= 320
    assert 16 <= shape.kept <= 512
    for tokens in (scoring_tokens(model, 1.0), decoding_room(model, 1.0).tokens):
        assert tokens >= 64
