"""What a decoding step is made of, and what memory goes to: numbers that only a GPU has.

A step is the difference between generating a few tokens and some more, over their number, so that prompts
do not count. Times are of the whole step, of the GPU's own work in it, and of reading what it must read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.gpu.checks import DECODING, LORA
from bench.gpu.jobs import Bench
from bench.gpu.models import KINDS, TINY, Writer, adapters, make
from bench.gpu.sides import Sides
from bench.gpu.timing import peak, seconds
from spring.engine.attention import head, hidden_states
from spring.engine.budget import GIGABYTE, training_tokens
from spring.engine.packing import pack_rows
from spring.engine.queries import Query

FEW, MANY, TIMES = 2, 10, 3  # tokens; repetitions
TOLD = "called a synchronizing CUDA operation"  # torch's words
ROWS = 64  # of one decoding step


def step(bench: Bench, users: int) -> dict[str, Any]:
    """One decoding step of two-path queries: milliseconds, launches, waits for the GPU and where they are."""
    queries = bench.writer.queries(range(users), bench.sizes)
    device = bench.sides.model.device

    def run(tokens: int) -> Callable[[], object]:
        settings = bench.decoding.model_copy(update={"max_new_tokens": tokens})
        return lambda: bench.sides.answer(queries, settings)

    def each(few: float, many: float) -> float:
        return (many - few) / (MANY - FEW)

    run(FEW)()
    pairs = [[seconds(run(n), device) for n in (FEW, MANY)] for _ in range(TIMES)]
    found: dict[str, Any] = {"rows": 2 * users, "step_ms": 1e3 * median(each(*pair) for pair in pairs)}
    found["least_ms"] = 1e3 * least(bench, queries)
    if device.type != "cuda":
        return found
    few, many = (launched(run(n)) for n in (FEW, MANY))
    found["launches"] = each(few[0], many[0])
    found["busy_ms"] = 1e3 * each(few[1], many[1])
    found["idle"] = 1 - found["busy_ms"] / found["step_ms"]
    waits = [waited(run(n)) for n in (FEW, MANY)]
    found["waits"] = each(*(sum(counter.values()) for counter in waits))
    found["waits_at"] = {
        place: each(waits[0][place], count)
        for place, count in waits[1].most_common(12)
        if count > waits[0][place]
    }
    return found


def least(bench: Bench, queries: Sequence[Query]) -> float:
    """Seconds of a step that reads the weights once and every row's keys and values."""
    shape = bench.shape
    cached = 2 * shape.layers * shape.kv_heads * shape.head_dim * shape.itemsize  # bytes per token
    tokens = sum(len(prompt) + FEW for query in queries for prompt, _ in query.paths)
    return bench.weights + cached * tokens / bench.machine.bytes


def launched(work: Callable[[], object]) -> tuple[int, float]:
    """Kernels and copies that the GPU was given, and the seconds that they took of it."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    events = [event for event in seen.events() or [] if event.device_type == DeviceType.CUDA]
    return len(events), sum(event.time_range.elapsed_us() for event in events) / 1e6


def waited(work: Callable[[], object]) -> Counter[str]:
    """How often the program waited for the GPU, by the line that made it."""
    with waits() as found:
        work()
    return found


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """Inside the block torch tells of most operations that wait for the GPU."""
    found: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found.update(f"{Path(one.filename).name}:{one.lineno}" for one in told if TOLD in str(one.message))


@torch.inference_mode()
def graph(bench: Bench) -> dict[str, float] | None:
    """A pass over single tokens without a cache, launched one by one and replayed as one graph; milliseconds.

    What a graph of a whole step could save is about the difference.
    """
    model = bench.sides.model
    if model.device.type != "cuda":
        return None
    pack = pack_rows([[9]] * ROWS, [-1] * ROWS, device=model.device)

    def work() -> Any:
        return head(model)(hidden_states(model, pack))

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(beside)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        work()
    eager, replayed = (
        median(seconds(run, model.device) for _ in range(20)) for run in (work, captured.replay)
    )
    return {"one_by_one_ms": 1e3 * eager, "as_a_graph_ms": 1e3 * replayed}


# --- memory -----------------------------------------------------------------------------------------------


def kept(bench: Bench) -> dict[str, float] | None:
    """Kilobytes that training keeps of a token for the backward pass: measured, and as the budget has it.

    Measured on a batch and half of it, so that what does not grow with tokens does not count.
    """
    sides, device = bench.sides, bench.sides.model.device
    if device.type != "cuda":
        return None
    [whole] = bench.lessons(1)
    found = []
    for lesson in (replace(whole, texts=whole.texts[: bench.sizes.items // 2]), whole):
        most = peak(partial(sides.learn, [lesson], bench.learning), device)
        found.append((most or 0.0, sum(len(text) for text in lesson.texts)))
    (less, few), (more, many) = found
    estimate = GIGABYTE / training_tokens(sides.model, 1.0)
    return {"kept_kb": 1e6 * (more - less) / (many - few), "budget_kb": estimate / 1e3}


def vocabulary(device: torch.device) -> dict[str, float] | None:
    """Bytes of a decoding row for each entry of Gemma 3's vocabulary, of which the budget counts 16."""
    if device.type != "cuda":
        return None
    kind, entries = KINDS[0], KINDS[0].full["vocab_size"]
    model = make(kind.type, {**kind.small, "vocab_size": entries}, device, torch.bfloat16)
    sides = Sides(model, LORA, adapters(model, LORA, 1), memory_gb=0.5 * free_gb(device))
    queries = Writer(entries).queries([0] * (ROWS // 2), TINY)
    short = DECODING.model_copy(update={"max_new_tokens": 4})
    before = torch.cuda.memory_allocated() / 1e9
    most = peak(lambda: sides.answer(queries, short), device) or 0.0
    sides.close()
    return {"rows": ROWS, "bytes_per_row_and_entry": 1e9 * (most - before) / ROWS / entries}


def attention(bench: Bench) -> dict[str, dict[str, bool]] | None:
    """Which of torch's attention kernels take the model's heads: causal, and with a window's mask."""
    config, device = bench.sides.model.config, bench.sides.model.device
    if device.type != "cuda":
        return None
    tokens, dtype = bench.sizes.long, bench.sides.model.dtype
    heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    q, k, v = (torch.empty(1, h, tokens, config.head_dim, device=device, dtype=dtype) for h in heads)
    mask = torch.zeros(tokens, tokens, device=device, dtype=dtype)
    can = torch.backends.cuda
    found = {}
    for name, bias in (("causal", None), ("window", mask)):
        asked = can.SDPAParams(q, k, v, bias, 0.0, bias is None, True)
        found[name] = {
            "flash": can.can_use_flash_attention(asked),
            "efficient": can.can_use_efficient_attention(asked),
            "cudnn": can.can_use_cudnn_attention(asked),
        }
    return found


def free_gb(device: torch.device) -> float:
    """Memory of the device that nobody has, in GB."""
    return torch.cuda.mem_get_info(device)[0] / 1e9 if device.type == "cuda" else 2.0
