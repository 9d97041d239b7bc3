"""The policies: which hard interactions a buffer keeps for retrieval (Eq. 4).

[paper] If N <= capacity all candidates are kept, else the highest S'; appendix A.2 adds `cluster-wise`,
`cluster-round` and `random`. [ours] `loss`, `novelty`, `recent` and `reservoir` as controls: S' holds a
quality term, so hard to learn is not the same as a high loss. Ties: the earlier interaction wins.

A policy takes (candidates, capacity, seed) and gives indices in rank order, which are cut at the capacity. A
new one is a function in a file of its own and a line in `POLICIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spring.method.registry import Reads
from spring.method.replay import Candidates, Indices, descending, ranks_by_cluster


def global_highest(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """The highest S' (Eq. 4)."""
    return descending(candidates.scores, candidates.times)


def highest_loss(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """The highest loss under the updated adapter [ours]."""
    return descending(candidates.losses, candidates.times)


def highest_novelty(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """The highest novelty, S' without its quality term [ours]."""
    return descending(candidates.novelties, candidates.times)


def most_recent(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """The latest; of two at the same time, the later row, as equal times keep the order of writing [ours]."""
    return np.argsort(np.asarray(candidates.times), kind="stable")[::-1].astype(np.int64)


def at_random(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """A seeded draw without replacement from C (appendix A.2). Favours recent ones: old ones are redrawn."""
    return np.random.default_rng(seed).permutation(len(candidates)).astype(np.int64)


def reservoir(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """Algorithm R (Vitter 1985): a uniform sample of everything ever offered, old and new alike [ours].

    New interactions arrive in time order; the i-th of all arrivals, counted over all periods, takes slot
    j ~ U{0..i-1} if j < capacity and is dropped otherwise. Two things are carried between periods: the slots
    (the ranks in the buffer) and the number seen. The draw depends on (seed, i) alone, so that consolidating
    period by period gives exactly the sample of one pass, and no draw is ever used twice.
    """
    previous = np.asarray(candidates.previous_rank)
    old, new = np.flatnonzero(previous >= 0), np.flatnonzero(previous < 0)
    slots = old[np.argsort(previous[old], kind="stable")].tolist()
    assert len(slots) <= min(capacity, candidates.seen), (len(slots), capacity, candidates.seen)
    arrivals = new[np.argsort(np.asarray(candidates.times)[new], kind="stable")].tolist()
    for i, arrival in enumerate(arrivals, start=candidates.seen + 1):
        if len(slots) < capacity:
            slots.append(arrival)
        elif (j := int(np.random.default_rng((seed, i)).integers(i))) < capacity:
            slots[j] = arrival
    return np.array(slots, dtype=np.int64)


def cluster_wise(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """Whole clusters in the order of their mean S', each from its highest S' (appendix A.2).

    [ours] the cluster that no longer fits is cut at the capacity.
    """
    cluster_order, _ = ranks_by_cluster(candidates, seed)
    return np.lexsort((candidates.times, -np.asarray(candidates.scores, float), cluster_order))


def cluster_round(candidates: Candidates, capacity: int, seed: int) -> Indices:
    """Round robin over the clusters, from each its highest S' left (appendix A.2).

    [ours] within a round the cluster of the higher mean S' goes first.
    """
    cluster_order, turn = ranks_by_cluster(candidates, seed)
    return np.lexsort((cluster_order, turn))


@dataclass(frozen=True)
class Policy:
    """What is kept, and what of the candidates that asks for: it is paid for, and embedded."""

    rank: Callable[[Candidates, int, int], Indices]
    reads: tuple[Reads, ...] = ()
    one_stream: bool = False  # over all periods: the seed is the user's alone, else also the period's


SCORED: tuple[Reads, ...] = ("base", "adapter")  # read for S' and its novelty term
POLICIES: dict[str, Policy] = {
    "global-highest": Policy(global_highest, reads=SCORED),
    "cluster-wise": Policy(cluster_wise, reads=(*SCORED, "embeddings")),
    "cluster-round": Policy(cluster_round, reads=(*SCORED, "embeddings")),
    "random": Policy(at_random),
    "loss": Policy(highest_loss, reads=("adapter",)),
    "novelty": Policy(highest_novelty, reads=SCORED),
    "recent": Policy(most_recent),
    "reservoir": Policy(reservoir, one_stream=True),
}


def consolidate(candidates: Candidates, *, policy: str, capacity: int, seed: int) -> Indices:
    """The new buffer B^(t) (Eq. 4): indices into the candidates in rank order, min(capacity, N) of them.

    `seed` is the user's and the period's, or of a policy of `one_stream` the user's alone.
    `ValueError` for a score, loss or novelty that is not finite, naming its row.
    """
    for name in ("scores", "losses", "novelties"):
        values = np.asarray(getattr(candidates, name), dtype=np.float64)
        assert len(values) == len(candidates), name
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            raise ValueError(
                f"{name} of candidate {bad[0]} is {values[bad[0]]}: the buffer needs finite numbers"
            )
    if len(candidates) == 0:
        return np.zeros(0, dtype=np.int64)
    kept = POLICIES[policy].rank(candidates, capacity, seed)[:capacity]
    assert len(set(kept.tolist())) == len(kept) == min(capacity, len(candidates)), (policy, kept)
    return kept
