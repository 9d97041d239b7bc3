"""The replay buffer: which hard interactions are kept for retrieval (Eq. 3, 4).

Everything is for one user and one period. Candidates C = D_drift U B^(t-1), re-scored under the *updated*
adapter (S'); N is their number. [paper] If N <= capacity all are kept, else the highest S'; appendix A.2 adds
`cluster-wise`, `cluster-round` and `random`. [ours] `loss`, `novelty`, `recent` and `reservoir` as controls:
S' holds a quality term, so hard to learn is not the same as a high loss. Ties: the earlier interaction wins.

A policy takes (candidates, capacity, seed) and gives indices in rank order, which are cut at the capacity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

MAX_CLUSTERS = 10  # [paper] k in 2..10 by the best silhouette


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """One user's candidates for the buffer; arrays of length N.

    The rows need an order that the data alone decides (by time, say): `random` and k-means draw by row.
    """

    scores: Any  # S', drift score under the updated adapter
    losses: Any  # negative log-likelihood under the updated adapter
    novelties: Any  # novelty term of S'
    times: Any  # numbers or datetimes
    previous_rank: Any  # rank in B^(t-1), or -1 for a newly selected interaction
    seen: int  # interactions that were offered before this period, kept or not; only `reservoir` asks
    embeddings: Any = None  # [N, D], only for the cluster policies

    def __len__(self) -> int:
        return len(self.scores)


def descending(keys: Any, times: Any) -> Indices:
    """Indices from the highest key to the lowest; ties by time, then by row."""
    return np.lexsort((np.asarray(times), -np.asarray(keys, dtype=np.float64)))


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


def ranks_by_cluster(candidates: Candidates, seed: int) -> tuple[Indices, Indices]:
    """Place of each candidate's cluster by mean S', and its own place inside the cluster; both [N] from 0."""
    assert candidates.embeddings is not None, "the cluster policies need embeddings"
    labels = clusters(np.asarray(candidates.embeddings, dtype=np.float64), seed=seed)
    order = descending(candidates.scores, candidates.times)
    names = list(dict.fromkeys(labels[order].tolist()))  # ties of the mean: the cluster of the hardest item
    scores = np.asarray(candidates.scores, dtype=np.float64)
    names.sort(key=lambda name: -scores[labels == name].mean())
    place, turn = np.zeros(len(labels), np.int64), np.zeros(len(labels), np.int64)
    for position, name in enumerate(names):
        members = order[labels[order] == name]
        place[members], turn[members] = position, np.arange(len(members))
    return place, turn


def clusters(embeddings: NDArray[np.float64], *, seed: int) -> NDArray[np.int64]:
    """K-means labels with the k in 2..10 of the best silhouette, the smallest of equals. [N, D] -> [N].

    [ours] k is at most the number of distinct embeddings and at most N - 1, beyond which the silhouette is
    undefined; where no k is left, as with two items or with equal ones, all are one cluster.
    """
    from sklearn.cluster import KMeans  # imported here: takes seconds, and most policies need none of it
    from sklearn.metrics import silhouette_score

    state = seed % 2**32  # as much as NumPy takes
    distinct = len(np.unique(embeddings.round(6), axis=0))
    best, labels = -np.inf, np.zeros(len(embeddings), dtype=np.int64)
    for k in range(2, min(MAX_CLUSTERS, distinct, len(embeddings) - 1) + 1):
        found = KMeans(n_clusters=k, n_init=4, random_state=state).fit_predict(embeddings)
        value = silhouette_score(embeddings, found)
        if value > best + 1e-9:
            best, labels = value, found.astype(np.int64)
    return labels


POLICIES: dict[str, Callable[[Candidates, int, int], Indices]] = {
    "global-highest": global_highest,
    "cluster-wise": cluster_wise,
    "cluster-round": cluster_round,
    "random": at_random,
    "loss": highest_loss,
    "novelty": highest_novelty,
    "recent": most_recent,
    "reservoir": reservoir,
}
UNSCORED = ("random", "recent", "reservoir")  # policies that need no likelihoods
BASELESS = (*UNSCORED, "loss")  # policies that need none of the base model


def consolidate(candidates: Candidates, *, policy: str, capacity: int, seed: int) -> Indices:
    """The new buffer B^(t) (Eq. 4): indices into the candidates in rank order, min(capacity, N) of them.

    `seed` is the user's. For `random` it should also change with the period; for `reservoir` it must not.
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
    kept = POLICIES[policy](candidates, capacity, seed)[:capacity]
    assert len(set(kept.tolist())) == len(kept) == min(capacity, len(candidates)), (policy, kept)
    return kept
