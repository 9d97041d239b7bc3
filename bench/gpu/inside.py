"""What a step of decoding or training is made of, and where memory goes: numbers that only a GPU has.

A step is a difference between two runs, so that what surrounds it does not count. Its time stands beside the
card's own work in it (what is missing is waiting for the program) and beside what the card needs at least.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench import work
from bench.gpu.checks import DECODING, LORA
from bench.gpu.jobs import Bench
from bench.gpu.models import KINDS, TINY, Writer, adapters, make
from bench.gpu.sides import Sides
from bench.gpu.timing import peak, seconds
from spring.engine import keeping
from spring.engine.forward import hidden_states
from spring.engine.packing import pack_rows
from spring.engine.queries import Query
from spring.engine.roads import head, road_of

TIMES = 3
FEW, MANY = 2, 10  # tokens
LEARNERS = 8  # users of a training step: every launch is traced, and there are many
TOLD = "called a synchronizing CUDA operation"  # torch's words
PLACES = 12  # lines that make the program wait the most
ROWS = 64  # of one decoding step
Run = Callable[[int], Callable[[], object]]


def decoding(bench: Bench, users: int) -> dict[str, Any]:
    """One step of two-path queries: the difference between generating a few tokens and some more."""
    queries = bench.writer.queries(range(users), bench.sizes)

    def run(tokens: int) -> Callable[[], object]:
        settings = bench.decoding.model_copy(update={"max_new_tokens": tokens})
        return lambda: bench.sides.answer(queries, settings)

    found = one(run, FEW, MANY, bench.sides.model.device)
    return {"rows": 2 * users, "least_ms": 1e3 * least(bench, queries), **found}


def training(bench: Bench, users: int) -> dict[str, Any]:
    """One optimizer step of all users' lessons: the difference between two epochs and one."""
    lessons = bench.lessons(users)

    def run(epochs: int) -> Callable[[], object]:
        config = bench.learning.model_copy(update={"epochs": epochs})
        return lambda: bench.sides.learn(lessons, config)

    texts = [text for lesson in lessons for text in lesson.texts]
    seconds_at_least = max(work.training(bench.shape, texts) / bench.machine.flops, 2 * bench.weights)
    found = one(run, 1, 2, bench.sides.model.device)
    return {"users": users, "least_ms": 1e3 * seconds_at_least, **found}


def one(run: Run, few: int, many: int, device: torch.device) -> dict[str, Any]:
    """One of `many` steps: milliseconds; on a GPU also launches, copies to it, and waits for it, by line."""

    def each(less: float, more: float) -> float:
        return (more - less) / (many - few)

    run(few)()
    pairs = [[seconds(run(n), device) for n in (few, many)] for _ in range(TIMES)]
    found: dict[str, Any] = {"step_ms": 1e3 * median(each(*pair) for pair in pairs)}
    if device.type != "cuda":
        return found
    less, more = (launched(run(n)) for n in (few, many))
    if more["launches"]:  # else nobody may trace here
        found |= {name: each(less[name], more[name]) for name in more}
        found["idle"] = 1 - found["busy_ms"] / found["step_ms"]
    less_waits, more_waits = (waited(run(n)) for n in (few, many))
    places = {place: each(less_waits[place], count) for place, count in more_waits.items()}
    found["waits"] = sum(places.values())
    found["waits_at"] = dict(sorted(places.items(), key=lambda pair: -pair[1])[:PLACES])
    return found


def least(bench: Bench, queries: Sequence[Query]) -> float:
    """Seconds of a step that reads the weights once and every row's keys and values."""
    shape = bench.shape
    cached = 2 * shape.layers * shape.kv_heads * shape.head_dim * shape.itemsize  # bytes per token
    tokens = sum(len(prompt) + FEW for query in queries for prompt, _ in query.paths)
    return bench.weights + cached * tokens / bench.machine.bytes


def launched(job: Callable[[], object]) -> dict[str, float]:
    """Kernels and copies that the card was given, copies to it, and the milliseconds that all took of it."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        job()
        torch.cuda.synchronize()
    events = [event for event in seen.events() or [] if event.device_type == DeviceType.CUDA]
    return {
        "launches": float(len(events)),
        "copies_in": float(sum(event.name.startswith("Memcpy HtoD") for event in events)),
        "busy_ms": sum(event.time_range.elapsed_us() for event in events) / 1e3,
    }


def waited(job: Callable[[], object]) -> Counter[str]:
    """How often the program waited for the card, by the line that made it; torch tells of most."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            job()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in told if TOLD in str(w.message))


@torch.inference_mode()
def graph(bench: Bench) -> dict[str, float] | None:
    """A pass over single tokens without a cache, launched one by one and replayed as one graph; milliseconds.

    What a graph of a whole step could save is about the difference.
    """
    model = bench.sides.model
    if model.device.type != "cuda" or road_of(model).padded:
        return None
    pack = pack_rows([[9]] * ROWS, [-1] * ROWS, device=model.device)

    def once() -> Any:
        return head(model)(hidden_states(model, pack))

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(beside)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        once()
    eager, replayed = (
        median(seconds(run, model.device) for _ in range(20)) for run in (once, captured.replay)
    )
    return {"one_by_one_ms": 1e3 * eager, "as_a_graph_ms": 1e3 * replayed}


# --- memory -----------------------------------------------------------------------------------------------


def kept(bench: Bench) -> dict[str, float] | None:
    """Kilobytes that training takes of a token: measured, and what its graph keeps, by which batches are cut.

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
    text = max(whole.texts, key=len)
    estimate = keeping.kept(sides.model, sides.bank, text).of(len(text)) / len(text)
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
