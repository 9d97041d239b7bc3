"""A small random twin of a model's architecture, on which equality can be checked to rounding.

A real model's width, depth and bfloat16 hide what a wrong mask or a wrong position does to a row. Its twin is
of the same class with the same flags (spring/engine/shrinking.py), in float32 on the processor, and no
parameter of it is at a value, zero or one, where a part of the model would not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from spring.engine.shrinking import VOCABULARY, shrink
from spring.engine.weights import one_line

__all__ = ["SPREAD", "TwinError", "shrink", "twin"]

SPREAD = 1.6  # standard deviation of logits
NEAR = 0.25  # of it: what the logits may be off
CONTEXT = 0.3  # of it: what a token changes in the logits after it
LARGEST = 20_000_000  # parameters
GAINS = (1.0, 1.4, 0.7, 2.0, 0.5)  # of matrices: weak layers add nothing, too sharp attention sees little
LIFTS = (0.0, 7.0, 31.0)  # of the last norm: tied embeddings, as they are scaled, then are smaller
PAIRS, TOKENS, CHANGED = 4, 24, 12  # texts by which a twin is scaled, and where the two of a pair differ
LEARNED = ("bias", "layer_scalar")  # buffers that are learned; others are computed, as masks and decays are
FIRST = 16  # tokens before it may be special


class TwinError(RuntimeError):
    """An architecture of which no twin can be made; the message says why."""


def twin(config: Any, *, seed: int = 0) -> Any:
    """A random model of the class that transformers takes for `config`: small, float32, in evaluation mode.

    Raises `TwinError` with the reason where the class cannot be built or run.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _build(shrink(config))
            _randomise(model, torch.Generator().manual_seed(seed))
            _scale(model, torch.Generator().manual_seed(seed + 1))
    except TwinError:
        raise
    except Exception as error:  # whatever a class of transformers raises is why it has no twin
        raise TwinError(f"{type(config).__name__}: {type(error).__name__}: {one_line(error)}") from error
    return model


def _build(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if (size := sum(weight.numel() for weight in empty.parameters())) > LARGEST:
        name, weight = max(empty.named_parameters(), key=lambda item: item[1].numel())
        raise TwinError(f"{size / 1e6:.0f}M parameters remain, of them {name} {tuple(weight.shape)}")
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return model.requires_grad_(False).float().eval()


def _randomise(model: Any, generator: torch.Generator) -> None:
    """Matrices of variance 1 / inputs; vectors and learned buffers about where the class begins them."""

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    lookups, words = _lookups(model), model.get_input_embeddings().weight
    for weight in model.parameters():
        if id(weight) in lookups:
            weight.copy_(noise(weight) * (1.0 if weight is words else 0.3))
        elif weight.ndim >= 2 and min(weight.shape[-2:]) > 1:
            weight.copy_(
                noise(weight) / math.sqrt(math.prod(weight.shape[1:]) if weight.ndim > 3 else _inputs(weight))
            )
        else:
            weight.nan_to_num_().add_(0.2 * noise(weight))
    for name, buffer in model.named_buffers():
        if name.endswith(LEARNED) and buffer.is_floating_point():
            buffer.add_(0.1 * noise(buffer))


def _lookups(model: Any) -> set[int]:
    """Embeddings, of tokens and positions."""
    return {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}


def _inputs(weight: Tensor) -> float:
    """How many numbers go into one output; stacked experts may be stored either way round."""
    return weight.shape[1] if weight.ndim == 2 else math.sqrt(weight.shape[1] * weight.shape[2])


@torch.inference_mode()
def _scale(model: Any, generator: torch.Generator) -> None:
    """Has logits spread by SPREAD, and layers so strong that what was read before matters to them."""
    head = model.get_output_embeddings()
    if head is None or not hasattr(head, "weight"):
        raise TwinError(f"{type(model).__name__} has no output layer")
    decoder, words = model.get_decoder(), model.get_input_embeddings().weight
    last = min(VOCABULARY, len(words)) // 2
    first = min(FIRST, last // 2)
    rows = torch.randint(first, last, (PAIRS, TOKENS), generator=generator)
    others = rows.clone()
    others[:, CHANGED] = first + (rows[:, CHANGED] + 7) % min(64, last - first)
    rows = torch.cat([rows, others])
    aside = _lookups(model) | {id(head.weight)}
    parts = {"inside": [w for w in decoder.parameters() if w.ndim >= 2 and id(w) not in aside]}
    parts["words"] = [words] if words is not head.weight else []
    own = (getattr(part, "weight", None) for part in decoder.children())
    parts["norms"] = [weight for weight in own if weight is not None and weight.ndim == 1]
    begun = [(role, weight, weight.clone()) for role, weights in parts.items() for weight in weights]
    moved: dict[tuple[float, float], float] = {}
    for lift, gain in product(LIFTS, GAINS):
        _set(begun, lift, gain)
        logits = _spread(model, head, rows)[:, CHANGED + 1 :]
        moved[lift, gain] = (logits[PAIRS:] - logits[:PAIRS]).square().mean().sqrt().item()
        if moved[lift, gain] > CONTEXT * SPREAD:
            return
    best = max(moved, key=lambda tried: moved[tried])
    if moved[best] < CONTEXT * SPREAD / 10:
        raise TwinError(f"{type(model).__name__}: what comes before a token does not change its logits")
    _set(begun, *best)
    _spread(model, head, rows)


def _set(begun: Sequence[tuple[str, Tensor, Tensor]], lift: float, gain: float) -> None:
    """Layers `gain` times as they were begun, and inputs smaller beside them."""
    for role, weight, first in begun:
        changed = {"inside": first * gain, "words": first / (1 + lift), "norms": first + lift}
        weight.copy_(changed[role])


def _spread(model: Any, head: Any, rows: Tensor) -> Tensor:
    """Logits [2, T, V], after the output layer was scaled so that they spread by SPREAD."""
    for _ in range(12):
        logits = model(input_ids=rows, use_cache=False).logits.float()
        spread = logits.std().item()
        if not math.isfinite(spread) or spread == 0:
            raise TwinError(f"{type(model).__name__}: logits of a random twin spread by {spread}")
        if abs(spread / SPREAD - 1) < NEAR / 2:
            return logits
        head.weight.mul_(min(8.0, max(0.125, SPREAD / spread)))
    raise TwinError(f"{type(model).__name__}: logits spread by {spread:.2g} whatever its output layer is")
