"""What a pass with gradients keeps of its tokens until the backward pass: found by trying.

A configuration does not say it. Kernels of ours keep less than a model's own layers do; experts, recurrent
layers, and attention that keeps its weights, keep more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from spring.engine.budget import Kept, Passes, training_passes
from spring.engine.forward import hidden_states
from spring.engine.lessons import Lesson
from spring.engine.lora import AdapterBank
from spring.engine.packing import pack_rows
from spring.engine.roads import road_of
from spring.engine.texts import Text

TOKENS = 128  # of the text that is tried
LENGTHS = (64, 128, 192)  # of those that tell tokens from pairs; evenly, since some layers fill up chunks

_known: WeakKeyDictionary[Any, dict[int, Kept]] = WeakKeyDictionary()  # of a model under banks of some width


def kept(model: Any, bank: AdapterBank, like: Text) -> Kept:
    """What is kept of a text, of which `like` is one, under a slot of `bank`."""
    found = _known.setdefault(model, {})
    if bank.width not in found:
        found[bank.width] = _weigh(model, bank, like)
    return found[bank.width]


def passes_for(
    model: Any, bank: AdapterBank, lessons: Sequence[Lesson], memory_gb: float, *, checkpoint: bool = False
) -> Passes:
    """Passes that learn these lessons in at most `memory_gb` (`training_passes`)."""
    longest = max((text for lesson in lessons for text in (*lesson.texts, *lesson.replay)), key=len)
    held = kept(model, bank, longest)
    return training_passes(model, held, memory_gb, longest=len(longest), checkpoint=checkpoint)


def _weigh(model: Any, bank: AdapterBank, like: Text) -> Kept:
    """What does not grow with a text counts for its tokens: rather too much than too little is held of it."""
    if not road_of(model).padded:  # attention to packed rows keeps nothing by pairs
        return Kept(_bytes(model, bank, like, TOKENS) / TOKENS)
    found = {tokens: _bytes(model, bank, like, tokens) for tokens in LENGTHS}
    few, more, most = found.values()
    pair = max(0.0, (most - 2 * more + few) / (2 * LENGTHS[0] ** 2))
    return Kept(max(held / tokens - tokens * pair for tokens, held in found.items()), pair)


def _bytes(model: Any, bank: AdapterBank, like: Text, tokens: int) -> int:
    """What the graph of a pass over so many tokens holds, beside weights; a storage counts once."""
    lasting = {_place(weight) for weight in (*model.parameters(), *model.buffers(), bank.flat)}
    held: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        if _place(tensor) not in lasting:
            held[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # itself would be a circle through the graph, which nothing frees

    row = list(islice(cycle(like.prompt + like.response), tokens))
    pack = pack_rows([row], [0], device=bank.flat.device, prompts=[like.prompt], users=[like.user])
    with bank.training(), saved_tensors_hooks(hold, lambda tensor: tensor):
        states = hidden_states(model, pack, bank, seeds=[0])
    del states  # till here nothing of the graph was free, so that no place was taken twice
    return sum(held.values())


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
