"""Steering: vectors added to what attention and MLP of one decoder layer give out, each row its own.

Hooks on a layer, so for any decoder of transformers whose layers hold `self_attn` and `mlp`. A row of a pack
names its vectors by number (`Pack.steers`), as it names the slot of its adapter. In layers where the MLP
follows the attention (Llama, Qwen, Gemma) it reads a residual that is steered already. Gemma normalises what
both give out before the residual takes it in: there the vectors pass that norm too.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spring.engine.budget import halved
from spring.engine.forward import hidden_states
from spring.engine.layers import decoder_layers
from spring.engine.packing import Pack, pack_in_hand, pack_rows
from spring.engine.parallel import each
from spring.engine.roads import road_of
from spring.engine.scoring import token_batches

SITES = ("self_attn", "mlp")
Act = Callable[[Pack, int, Tensor], Tensor | None]  # pack, site, output [*, D] -> what replaces it


@dataclass(frozen=True, eq=False)
class Steer:
    """What is added at one layer: to the attention output and to the MLP output, [2, D]."""

    depth: float  # of the layer, as a share of the model's
    vectors: np.ndarray

    @cached_property
    def digest(self) -> str:
        """Stands for it in cell keys."""
        return hashlib.sha256(repr(self.depth).encode() + self.vectors.tobytes()).hexdigest()


def numbered(steers: Sequence[Steer | None]) -> tuple[list[Steer], list[int]]:
    """Every different steer once, and its number for each of `steers`; -1: none."""
    found = {steer.digest: steer for steer in steers if steer is not None}
    numbers = {digest: i for i, digest in enumerate(found)}
    return list(found.values()), [-1 if steer is None else numbers[steer.digest] for steer in steers]


def layer_at(model: Any, depth: float) -> nn.Module:
    """The decoder layer at a share of the depth: 23/32 is number 23 of 32, 21 of 30."""
    layers = decoder_layers(model)
    layer = layers[int(depth * len(layers))]
    lacking = [name for name in SITES if not hasattr(layer, name)]
    if lacking:
        raise ValueError(
            f"steering needs decoder layers with {' and '.join(SITES)}; a layer of {type(model).__name__} "
            f"holds {sorted(name for name, _ in layer.named_children())}"
        )
    return layer


@contextmanager
def hooked(layer: nn.Module, act: Act) -> Iterator[None]:
    """Inside the block both sites of `layer` are seen, and may be changed, whenever a pack is read."""

    def at(site: int) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            several = isinstance(output, tuple)  # attention gives its weights too
            x = output[0] if several else output
            pack = pack_in_hand()
            changed = None if pack is None else act(pack, site, x)
            if changed is None:
                return None
            return (changed, *output[1:]) if several else changed

        return hook

    handles = [getattr(layer, name).register_forward_hook(at(site)) for site, name in enumerate(SITES)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def steered(model: Any, steers: Sequence[Steer]) -> Iterator[None]:
    """Inside the block rows with number i in a pack have `steers[i]` added; without any nothing is hooked."""
    with ExitStack() as stack:
        for depth in sorted({steer.depth for steer in steers}):
            stack.enter_context(hooked(layer_at(model, depth), _adder(model, steers, depth)))
        yield


def _adder(model: Any, steers: Sequence[Steer], depth: float) -> Act:
    """Adds the vectors of `depth`; in float32, rounded once."""
    table = torch.zeros(len(SITES), len(steers) + 1, model.config.get_text_config().hidden_size)
    for i, steer in enumerate(steers):
        if steer.depth == depth:
            table[:, i] = torch.from_numpy(steer.vectors)
    table = table.to(model.device)  # [2, n + 1, D]; the last is zero, for rows without any (-1)

    def add(pack: Pack, site: int, x: Tensor) -> Tensor | None:
        if pack.steers is None:
            return None
        numbers = torch.tensor(pack.steers, device=x.device)[pack.row]  # [N]
        numbers = F.pad(numbers, (0, pack.tail), value=-1)
        return (x.float() + table[site, numbers].view(x.shape)).to(x.dtype)

    return add


# --- where vectors come from ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, as token ids."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def __len__(self) -> int:
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


def contrast(
    model: Any,
    depth: float,
    pairs: Sequence[Pair],
    *,
    read: Literal["answer-mean", "last-token"],
    budget: int,
) -> np.ndarray:
    """Activations of the chosen answer minus those of the rejected one, float32 [N, 2, D].

    Of an answer: the mean over its tokens, or its last token. At most `budget` tokens are read at once.
    """
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i]))
    seen: dict[tuple[int, int], Tensor] = {}  # by thread and site
    road = road_of(model)
    found: dict[int, Tensor] = {}

    def take(pack: Pack, site: int, x: Tensor) -> None:
        flat = x.reshape(-1, x.shape[-1])
        seen[threading.get_ident(), site] = flat if pack.real is None else flat[pack.real]

    def summaries(pack: Pack, answers: Sequence[tuple[int, int]]) -> list[Tensor]:
        with torch.inference_mode():
            hidden_states(model, pack)
        sites = [seen.pop((threading.get_ident(), site)) for site in range(len(SITES))]  # [N, D] each
        return [torch.stack([_summary(x[a:b], read) for x in sites]) for a, b in answers]

    def differ(some: list[int]) -> list[Tensor]:
        pack, answers = pack_pairs([pairs[order[i]] for i in some], model.device, share=road.plain)
        parts = road.split(pack.lengths)
        one = dict(enumerate(summaries(pack, answers))) if len(parts) == 1 else {}
        for part in parts if len(parts) > 1 else []:  # of rows that are whole: answers are their ends
            mine = pack.part(part)
            sizes = [answers[i][1] - answers[i][0] for i in part]
            ends = [(stop - size, stop) for (_, stop), size in zip(mine.spans(), sizes, strict=True)]
            one |= zip(part, summaries(mine, ends), strict=True)
        return [one[i] - one[i + 1] for i in range(0, len(one), 2)]

    def work(batch: list[int]) -> None:
        found.update(zip((order[i] for i in batch), halved(differ, batch), strict=True))

    with hooked(layer_at(model, depth), take):
        batches = token_batches([len(pairs[i]) for i in order], budget, padded=road.padded)
        each(work, batches, model.device, one=road.padded)
    return np.stack([found[i].cpu().numpy() for i in range(len(pairs))])


def _summary(x: Tensor, read: str) -> Tensor:
    """[n, D] of an answer -> [D], float32."""
    return x.float().mean(0) if read == "answer-mean" else x[-1].float()


def pack_pairs(
    pairs: Sequence[Pair], device: torch.device, *, share: bool = True
) -> tuple[Pack, list[tuple[int, int]]]:
    """Chosen and rejected by turns, and where in the pack each answer lies.

    share: on the processor the prompt of both is read once, as a row of its own that they follow.
    """
    share = share and device.type == "cpu"
    rows: list[tuple[int, ...]] = []
    before: list[int] = []
    answers: list[tuple[int, int]] = []  # row, tokens
    for pair in pairs:
        prompt = len(rows)
        if share:
            rows.append(pair.prompt)
            before.append(-1)
        for answer in (pair.chosen, pair.rejected):
            answers.append((len(rows), len(answer)))
            rows.append(answer if share else pair.prompt + answer)
            before.append(prompt)
    pack = pack_rows(rows, [-1] * len(rows), device=device, before=before if share else None)
    ends = [stop for _, stop in pack.spans()]
    return pack, [(ends[row] - tokens, ends[row]) for row, tokens in answers]
