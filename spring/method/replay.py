"""The replay buffer's candidates (Eq. 3), and the orders and clusters that policies are made of.

Everything is for one user and one period. Candidates C = D_drift U B^(t-1), re-scored under the *updated*
adapter (S'); N is their number.
"""

from __future__ import annotations

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
