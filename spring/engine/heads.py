"""From last hidden states to logits: the output layer, and what a model does to logits behind it.

Cohere and Granite scale them, Gemma caps them softly. What a model does is found by comparing its own logits
with the output layer's; nothing is assumed from its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spring.engine.packing import filled

SCALES = ("scale", "scaling", "multiplier")  # in names of a configuration: what logits may be scaled by
WIDTHS = ("base", "width")  # the same, as a share of the hidden width
CAPS = ("cap",)


@dataclass(frozen=True)
class Finish:
    """cap * tanh(scale * x / cap), or scale * x: from what the output layer gives to logits."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[n, V] -> [n, V]."""
        x = x if self.scale == 1 else x * self.scale
        return x if self.cap is None else torch.tanh(x / self.cap) * self.cap

    def alike(self, other: Finish) -> bool:
        """Whether both cap at the same, and both or neither scale: by how much may depend on the width."""
        return self.cap == other.cap and (self.scale == 1) == (other.scale == 1)

    def slope(self, logits: Tensor) -> Tensor | float:
        """The derivative where the logits are [n, V]: a number, or [n, V]."""
        return self.scale if self.cap is None else self.scale * (1 - (logits / self.cap).square())


PLAIN = Finish()


@dataclass(frozen=True)
class Head:
    """The output layer with its finish."""

    layer: Any
    finish: Finish

    @property
    def weight(self) -> Tensor:
        """[V, D]."""
        weight: Tensor = self.layer.weight
        return weight

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits of last hidden states: [n, D] -> [n, V]."""
        hidden = hidden.to(self.weight.dtype)  # Mamba gives float32 whatever its weights
        if hidden.device.type != "cpu":
            return self.finish(self.layer(hidden))
        return self.finish(self.layer(filled(hidden))[: len(hidden)])


def find_finish(
    config: Any, raw: Tensor, logits: Tensor, bound: float, *, like: Finish | None = None
) -> Finish | None:
    """What turns the output layer's numbers [n, V] into the model's [n, V]; null: nothing that is known.

    bound: of the mean difference, as a share of the logits' standard deviation. like: what a twin of the
    model does; a cap that bfloat16 does not show in small logits is found there.
    """
    raw, logits = raw.float(), logits.float()
    off = {
        finish: float((finish(raw) - logits).square().mean().sqrt())
        for finish in _known(config)
        if like is None or finish.alike(like)
    }
    best = min(off, key=lambda finish: off[finish], default=PLAIN)
    return best if best in off and off[best] <= bound * float(logits.std()) else None


def _known(config: Any) -> Iterator[Finish]:
    """Finishes that the numbers of a configuration allow, the plainest first."""
    text = config.get_text_config()
    both = {**config.to_dict(), **text.to_dict()}
    numbers = {
        name: float(value)
        for name, value in both.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    }
    scales = [1.0]
    for name, value in numbers.items():
        if any(word in name for word in SCALES):
            scales += [value, 1 / value]
        if any(word in name for word in WIDTHS):
            scales += [value / text.hidden_size, text.hidden_size / value]
    caps = [value for name, value in numbers.items() if any(word in name for word in CAPS)]
    for cap in [None, *caps]:
        for scale in dict.fromkeys(scales):
            yield Finish(scale, cap)
