"""SAR: replay that favours small clusters and items seldom used (`train.replay_draw: sar`).

Source: similarity-aware retrieval of Seo et al., arXiv 2410.15143, which counts an item's uses and, through
similarity, those of items like it. -style: as SPRInG's comparison adapts it, items are clustered and

    P(i) ~ 1 / (size of i's cluster * (1 + times i was trained on))

over the N items of the buffer, drawn for every batch anew, without replacement inside a batch.

[ours] clusters: k-means on sentence embeddings as in the buffer policies, of each lesson's buffer. A use is
one appearance in a training batch, new or replayed, in any period; counts lie beside the adapter. The
period's new items are all learned besides, in a warm start; the buffer is a reservoir over all periods;
half of each batch is replayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SarDraw:
    """How one lesson draws from its buffer; both sequences are [N]."""

    clusters: tuple[int, ...]
    uses: tuple[int, ...]  # before this lesson

    def __call__(self, count: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Batch after batch, the indices of `count` items (of all, if they are fewer)."""
        import torch

        uses = list(self.uses)
        while True:
            weights = torch.tensor(draw_weights(self.clusters, uses), dtype=torch.float64)
            drawn = torch.multinomial(weights, min(count, len(uses)), generator=generator).tolist()
            for i in drawn:
                uses[i] += 1
            yield drawn


def draw_weights(clusters: Sequence[int], uses: Sequence[int]) -> list[float]:
    """1 / (cluster size * (1 + uses)) of each item. [N] -> [N]."""
    sizes = Counter(clusters)
    return [1 / (sizes[cluster] * (1 + used)) for cluster, used in zip(clusters, uses, strict=True)]
