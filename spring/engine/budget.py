"""How much fits into one batch: a memory budget in gigabytes turned into tokens and rows.

The budget is that of all batches that run side by side (spring/engine/parallel.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import torch

from spring.engine.parallel import cores

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

GIGABYTE = 1e9
CPU_TOKENS = 1024  # more per batch does not raise the rate of a core
GPU_TOKENS = 65536
JOINED = 512  # of several users' batches in a pass that learns on a core: more takes memory alone
TAKEN = 2.0  # bytes by which a process grows for each that a graph keeps: gradients, logits, holes


@dataclass(frozen=True)
class Shape:
    """Numbers of a model that its memory follows from."""

    layers: int
    width: int
    inner: int  # of the feed-forward block
    kept: int  # numbers of one layer's keys: key-value heads x their width; of recurrent layers no more
    vocabulary: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        """What its configuration says; where it says nothing, what is usual."""
        config = model.config.get_text_config()

        def field(name: str, usual: int) -> int:
            said = getattr(config, name, None)
            said = max(said, default=None) if isinstance(said, list | tuple) else said  # one for each layer
            return int(said) if isinstance(said, int | float) and said > 0 else usual

        width = field("hidden_size", 0) or model.get_input_embeddings().embedding_dim
        heads = field("num_attention_heads", max(1, width // 64))
        kept = field("num_key_value_heads", heads) * field("head_dim", width // heads)
        layers = field("num_hidden_layers", 1)
        return cls(layers, width, field("intermediate_size", 4 * width), kept, field("vocab_size", 1))


@dataclass(frozen=True)
class Kept:
    """Bytes that a graph keeps for the backward pass, of all layers together (spring/engine/keeping.py)."""

    token: float  # of each token
    pair: float = 0.0  # of each pair of tokens of one text

    def of(self, tokens: int) -> float:
        """Bytes of a text of so many tokens."""
        return tokens * (self.token + tokens * self.pair)


@dataclass(frozen=True)
class Passes:
    """What passes with gradients may hold."""

    tokens: int  # of one pass
    checkpoint: (
        bool  # whether layers keep their input alone for the backward pass, and one at a time the rest
    )


def training_passes(
    model: Any, kept: Kept, memory_gb: float, *, longest: int, checkpoint: bool = False
) -> Passes:
    """Passes that take at most `memory_gb`; the longest text has so many tokens.

    If what one core may take of it does not hold the longest text, and with `checkpoint`, layers are
    computed again.
    """
    bytes_here = memory_gb * GIGABYTE / cores(model.device) / TAKEN
    whole = kept.of(longest)
    checkpoint = checkpoint or whole > bytes_here
    if checkpoint:
        shape = Shape.of(model)
        whole = whole / shape.layers + longest * shape.layers * shape.width * model.dtype.itemsize
    return Passes(_bounded(model, bytes_here * longest / whole), checkpoint)


def joined(device: torch.device, budget: int) -> int:
    """Tokens up to which batches of several users share a pass that may have `budget`."""
    return min(budget, JOINED) if device.type == "cpu" else budget


def scoring_tokens(model: Any, memory_gb: float) -> int:
    """Tokens that fit into `memory_gb` in a pass without gradients."""
    shape = Shape.of(model)
    per_token = (12 * shape.width + 4 * shape.inner) * model.dtype.itemsize * 2
    return _bounded(model, memory_gb * GIGABYTE / cores(model.device) / per_token)


@dataclass(frozen=True)
class Room:
    """What may be in flight at once, in tokens of key-value cache."""

    tokens: int
    per_row: int = 0  # tokens that a row's logits stand for


def decoding_room(model: Any, memory_gb: float) -> Room:
    """Room for key-value caches and logits in `memory_gb`."""
    shape = Shape.of(model)
    per_token = 2 * shape.layers * shape.kept * model.dtype.itemsize
    logits = 16 * shape.vocabulary  # in float32, and with them the mixture and what it is made of
    # a quarter stays free: capacities are rounded up, and a block is copied when it grows or loses rows
    return Room(int(0.75 * memory_gb * GIGABYTE / per_token), -(-logits // per_token))


def _bounded(model: Any, tokens: float) -> int:
    most = GPU_TOKENS if model.device.type == "cuda" else CPU_TOKENS
    return max(64, min(most, int(tokens)))


# --- when the estimate was wrong --------------------------------------------------------------------------


# What PyTorch says in words only. oneDNN, which computes bfloat16 products on processors, does not say why a
# kernel could not be made: where it is not for memory, halving ends at one row with the same words.
WORDS = (
    "out of memory",  # CUDA, MPS, XPU
    "can't allocate memory",  # torch's allocator on the processor
    "cannot allocate memory",  # the system
    "not enough memory",  # the same on Windows
    "bad_alloc",
    "bad allocation",
    "alloc_failed",  # cuBLAS, cuDNN
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)


class TooLargeError(MemoryError):
    """Not even one row fits; the message says what to do."""


def halved(work: Callable[[list[Item]], list[Result]], items: list[Item]) -> list[Result]:
    """`work` of all items, one result each; out of memory, of the first and the second half by themselves."""
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(items) == 1:
            raise too_large("one row by itself", error) from error
    warn_of_memory(
        f"{len(items)} rows"
    )  # outside the handler: the error holds on to the tensors of the failed attempt
    middle = len(items) // 2
    return halved(work, items[:middle]) + halved(work, items[middle:])


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the processor, where PyTorch says so in words only."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in said for words in WORDS)


def too_large(tried: str, error: BaseException) -> TooLargeError:
    """The end of halving, in words."""
    if isinstance(error, TooLargeError):
        return error
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return TooLargeError(
        f"out of memory with {tried}: end other programs, lower model.max_length, or take a smaller model or "
        f"a machine with more memory ({reason[:160]})"
    )


_failed = count(1)


def warn_of_memory(tried: str) -> None:
    """Tells that a batch was too large and is cut in half: the 1st, 2nd, 4th, 8th ... time of the process.

    By way of logging: those who run stages switch Python's warnings off.
    """
    times = next(_failed)
    if times & (times - 1) == 0:
        often = "" if times == 1 else f" (attempt {times} that failed)"
        log.warning(
            "out of memory with %s at once%s: going on with half as many. "
            "Lower model.memory_gb in params.yaml to save the failed attempts.",
            tried,
            often,
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
