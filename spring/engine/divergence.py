"""How far apart the output distributions of adapters are, over the whole vocabulary.

Hidden states are read for many adapters in one pass and kept; distributions exist only for a chunk of
positions at a time. Legend: M response positions of all texts, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spring.engine.forward import hidden_states
from spring.engine.lora import AdapterBank
from spring.engine.packing import pack_rows
from spring.engine.roads import head
from spring.engine.scoring import in_batches, response_positions
from spring.engine.texts import Text

NUMBERS = 1 << 23  # of one chunk of logits: 32 MB in float32


def response_states(
    model: Any, bank: AdapterBank | None, texts: Sequence[Text], slots: Iterable[int], *, budget: int
) -> dict[int, Tensor]:
    """By slot (-1: the base model): the states [M, D] that predict the response tokens of all texts."""
    rows = [replace(text, slot=slot) for slot in slots for text in texts]
    found = in_batches(model, rows, partial(_read, model, bank), budget=budget)
    first = range(0, len(rows), len(texts))
    return {rows[i].slot: torch.cat(found[i : i + len(texts)]) for i in first}


@torch.inference_mode()
def _read(model: Any, bank: AdapterBank | None, rows: Sequence[Text]) -> list[Tensor]:
    device = next(model.parameters()).device
    tokens = [(row.prompt + row.response)[:-1] for row in rows]
    pack = pack_rows(tokens, [row.slot for row in rows], device=device, prompts=[row.prompt for row in rows])
    states = hidden_states(model, pack, bank)[response_positions(rows).to(device)]
    return list(states.split([len(row.response) for row in rows]))


@torch.inference_mode()
def divergences(model: Any, states: Tensor, others: Tensor) -> np.ndarray:
    """Kullback-Leibler divergence of `states` [M, D] from `others`, per position: [M], nats, float32.

    The sum over V of p (log p - log q): p is what `states` predict, q what `others` do.
    """
    logits, width = head(model), model.get_output_embeddings().weight.shape[0]
    chunk = max(1, NUMBERS // width)
    found = []
    for mine, other in zip(states.split(chunk), others.split(chunk), strict=True):
        p, q = (logits(h).float().log_softmax(-1) for h in (mine, other))
        found.append(torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).clamp(min=0))
    return torch.cat(found).cpu().numpy()
