"""Reading prompts: keys and values, what comes next, and the likelihood of the references behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spring.engine.budget import halved
from spring.engine.cache import Block, KeyValueCache, PackedBlock
from spring.engine.forward import hidden_states, prefill_groups
from spring.engine.lora import AdapterBank
from spring.engine.packing import Pack, pack_rows
from spring.engine.parallel import each
from spring.engine.passes import target_logps
from spring.engine.queries import Join, Read
from spring.engine.roads import head, road_of
from spring.engine.scoring import CHUNK, token_batches
from spring.engine.settings import Decoding


@dataclass
class Prompt:
    """A prompt that was read: its place in a block, the next token's logits [V], and of each token of its
    reference log p and how sure the path is there; for a whole join also the states [n, D] they come from.
    """

    block: Block
    place: int
    logits: Tensor
    reference: np.ndarray
    confidence: np.ndarray
    hidden: Tensor
    rows: list[int] = field(default_factory=list)  # of the queries that go on from it


class Reader:
    """A model with the adapters of `bank`, at most `budget` tokens in one pass.

    longest: tokens of the longest prompt with all that may come behind it.
    """

    def __init__(
        self, model: Any, bank: AdapterBank | None, settings: Decoding, budget: int, *, longest: int
    ) -> None:
        self.model, self.bank, self.join, self.budget = model, bank, settings.join, budget
        self.most = settings.max_new_tokens
        self.road = road_of(model).for_answers(longest)
        self.layer = head(model)
        self.device = next(model.parameters()).device

    def hidden(self, pack: Pack) -> Tensor:
        """Last hidden states [N, D], every row under its adapter."""
        return hidden_states(self.model, pack, self.bank, road=self.road)

    def read(self, reads: Sequence[Read]) -> list[Prompt]:
        """Reads prompts with their references behind them, neighbours in one batch."""
        sizes = [len(prompt) + len(reference) for _, prompt, reference in reads]

        def run(batch: list[int]) -> list[Prompt]:
            return halved(self._read, [reads[i] for i in batch])

        batches = token_batches(sizes, self.budget, padded=self.road.padded)
        passes = each(run, batches, self.device, one=self.road.padded)
        return [one for batch in passes for one in batch]

    @torch.inference_mode()
    def _read(self, reads: Sequence[Read]) -> list[Prompt]:
        """One pass over prompts and references, or two; the blocks keep the prompts alone."""
        cache = None if self.road.padded else KeyValueCache()
        pack = self._pack(reads, [prompt + reference[:-1] for _, prompt, reference in reads], cache)
        starts = [start for start, _ in pack.spans()]
        ends = [start + len(prompt) - 1 for start, (_, prompt, _) in zip(starts, reads, strict=True)]
        if cache is not None:
            hidden = self.hidden(pack)
            [block] = cache.blocks
            assert isinstance(block, PackedBlock)
            block.lengths = [len(prompt) for _, prompt, _ in reads]
            places: list[tuple[Block, int]] = [(block, i) for i in range(len(reads))]
            last = hidden[ends]
        else:
            prompts = self._pack(reads, [prompt for _, prompt, _ in reads], None)
            places, last = prefill_groups(self.model, prompts, self.bank, self.road, self.most)
            hidden = self.hidden(pack) if any(reference for _, _, reference in reads) else last[:0]
        logits = self.layer(last).float()
        at = [end + i for end, (_, _, ref) in zip(ends, reads, strict=True) for i in range(len(ref))]
        targets = torch.tensor([token for _, _, ref in reads for token in ref], device=self.device)
        hidden = hidden[at]
        chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True) if at else ()
        judged = [self._judge(self.layer(h), t) for h, t in chunks] or [torch.zeros(2, 0)]
        lengths = [len(ref) for _, _, ref in reads]
        kept = hidden.split(lengths) if self.join.whole else [hidden[:0]] * len(reads)
        references = torch.cat(judged, 1).split(lengths, 1)
        return [
            Prompt(*places[i], logits[i], ref[0].numpy(), ref[1].numpy(), states)
            for i, (ref, states) in enumerate(zip(references, kept, strict=True))
        ]

    def _pack(
        self, reads: Sequence[Read], rows: Sequence[Sequence[int]], cache: KeyValueCache | None
    ) -> Pack:
        return pack_rows(
            rows,
            [slot for (slot, _), _, _ in reads],
            device=self.device,
            cache=cache,
            prompts=[prompt for _, prompt, _ in reads],
            steers=[steer for (_, steer), _, _ in reads],
        )

    def _judge(self, logits: Tensor, targets: Tensor) -> Tensor:
        """[2, n] on the processor: log p of the targets, and how sure the path is there, if asked."""
        sure = self.join.sure
        if sure is None:
            found = target_logps(logits, targets)
            return torch.stack([found, torch.ones_like(found)]).cpu()
        logp = torch.log_softmax(logits, 1, dtype=torch.float32)
        return torch.stack([logp.gather(1, targets[:, None])[:, 0], sure(logp)]).cpu()

    def reference(
        self, prompts: Sequence[Prompt], weights: list[float], reference: Sequence[int]
    ) -> np.ndarray:
        """log p of each token of a query's reference, from the one or two prompts it follows."""
        if self.join.whole and len(prompts) == 2:
            return self._judge_pair(self.join, prompts, reference)
        return self.join.mix([one.reference for one in prompts], [one.confidence for one in prompts], weights)

    @torch.inference_mode()
    def _judge_pair(self, join: Join, prompts: Sequence[Prompt], reference: Sequence[int]) -> np.ndarray:
        """log p of a reference under a join that takes both whole distributions at every token."""
        targets = torch.tensor(reference, dtype=torch.long, device=self.device)[:, None]
        found = []
        states = [one.hidden.split(CHUNK) for one in prompts]
        for *both, wanted in zip(*states, targets.split(CHUNK), strict=True):
            logps = [torch.log_softmax(self.layer(one), 1, dtype=torch.float32) for one in both]
            found.append(join.judge(*logps).gather(1, wanted)[:, 0].double())
        return torch.cat(found).cpu().numpy()


def blocks_of(prompts: Sequence[Prompt]) -> list[Block]:
    """The blocks of prompts that were read, with one row for every query that goes on from one."""
    found = []
    for block in {id(one.block): one.block for one in prompts}.values():
        pairs = [(one.place, row) for one in prompts if one.block is block for row in one.rows]
        found.append(block.take(*zip(*pairs, strict=True)))
    return found
