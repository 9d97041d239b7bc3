"""Which memories of a user are the nearest to a query (Eq. 5); the gate after it is in spring/method/gate.py.

N is the number of documents of one user, D the width of an embedding.

[paper] The top 2 of the buffer by BM25.
[ours]  Document text = query + response. `dense` and `hybrid`. The BM25 variant, which the paper does not
name: see `Bm25`; `okapi` is the other that it may mean. What counts as a word: spring/words.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spring.words import terms

Floats = NDArray[np.float64]
By = Literal["bm25", "okapi", "dense", "hybrid"]
LEXICAL = ("bm25", "okapi")  # need no embeddings

FAISS_GPU_MAX_K = 2048  # faiss refuses to return more results per query on a GPU


def query_text(query: str) -> str:
    """The values of a query's prompt fields, one a line; field names are not searched [ours].

    `query` is a JSON object as in the column `query` of the interactions; `ValueError` if it is not.
    """
    fields = json.loads(query)
    if not isinstance(fields, dict):
        raise ValueError(f"query is {query!r}; it must be a JSON object of prompt fields")
    return "\n".join("" if value is None else str(value) for value in fields.values())


def document_text(query: str, response: str) -> str:
    """What stands in the index for an interaction: the query's values and the response [ours]."""
    return f"{query_text(query)}\n{response}"


class Index(Protocol):
    """Scores all N documents of one user against a query."""

    def scores(self, query: str, embedding: Any) -> Floats:
        """Sim(q, h) of each document. [N]."""


class Bm25:
    """BM25 as in Lucene: k1 = 1.5, b = 0.75, idf = ln(1 + (N - df + 0.5) / (df + 0.5)), no factor k1 + 1.

    Kamphuis et al. 2020, "Which BM25 do you mean?"; computed by bm25s. [ours] The classic Okapi idf, ln((N -
    df + 0.5) / (df + 0.5)), is negative for words in more than half of the documents, and the floor that
    rank_bm25 puts under it is a share of the *average* idf, which is itself negative in collections of a few
    documents, as every buffer starts out. There a shared word would lower a score, and sigma = 0 would mean
    nothing. Here scores are never negative and are zero exactly where no word is shared, so sigma = 0 reads
    "shares a word". The constant factor k1 + 1 = 2.5 that Okapi has moves every score and quartile alike.
    A word that a query holds twice counts twice. Words are `terms`: of scripts without blanks pairs of
    characters; no stop words, no stemming.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        import bm25s

        words = [terms(document) for document in documents]
        self.df = Counter(word for document in words for word in dict.fromkeys(document))
        self.vocabulary = {word: i for i, word in enumerate(self.df)}
        self.n = len(documents)
        if self.vocabulary:
            self.index = bm25s.BM25(method="lucene", k1=1.5, b=0.75, dtype="float64")
            ids = [[self.vocabulary[word] for word in document] for document in words]
            self.index.index((ids, self.vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, query: str, embedding: Any = None) -> Floats:
        """BM25 of each document, never negative. [N]."""
        known = [self.vocabulary[word] for word in terms(query) if word in self.vocabulary]
        return self.index.get_scores_from_ids(known) if known else np.zeros(self.n)

    def odds(self, words: Iterable[str]) -> Floats:
        """(N - df + 0.5) / (df + 0.5) of each word, known or not: what an idf is made of."""
        df = np.array([self.df[word] for word in words], dtype=np.float64)
        return (self.n - df + 0.5) / (df + 0.5)

    def upper_bound(self, query: str) -> float:
        """Sum of the idf of the query's words, known or not: no document can reach it."""
        return float(np.log1p(self.odds(terms(query))).sum())


class Okapi(Bm25):
    """BM25 as the package rank_bm25 has it (`BM25Okapi`): k1 = 1.5, b = 0.75, epsilon = 0.25.

    The idf is ln((N - df + 0.5) / (df + 0.5)), and where that is negative a quarter of its mean over the
    vocabulary; the factor k1 + 1 is in. For comparison with results of that package: scores may be negative.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        super().__init__(documents)
        if self.vocabulary:
            odds = self.odds(self.vocabulary)
            idf = np.log(odds)
            idf[idf < 0] = 0.25 * idf.mean()
            entries = np.diff(self.index.scores["indptr"])[: len(idf)]  # of every word
            self.index.scores["data"] *= np.repeat(2.5 * idf / np.log1p(odds), entries)


class Dense:
    """Cosine of sentence embeddings by an exact FAISS index, on a GPU where faiss sees one [ours]."""

    def __init__(self, embeddings: Any) -> None:
        import faiss

        vectors = unit(embeddings)
        self.n = len(vectors)
        self.index: faiss.Index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)
        if faiss.get_num_gpus() > 0 and self.n <= FAISS_GPU_MAX_K:
            self.index = faiss.index_cpu_to_gpu(gpu_resources(), 0, self.index)

    def scores(self, query: str, embedding: Any) -> Floats:
        """Cosine of each document, in [-1, 1]. [N]."""
        assert embedding is not None, "dense retrieval needs the embedding of the query"
        found, places = self.index.search(unit(embedding)[None], self.n)
        scores = np.empty(self.n)
        scores[places[0]] = found[0]
        return scores


@cache
def gpu_resources() -> Any:
    """Scratch memory on the GPU, once per process: every instance would reserve its own."""
    import faiss

    return faiss.StandardGpuResources()


def unit(embeddings: Any) -> NDArray[np.float32]:
    """Embeddings at length one, along the last axis; `ValueError` for a zero vector."""
    vectors = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.all(lengths > 0):
        raise ValueError("an embedding has length 0 or is not a number: its cosine is undefined")
    return np.ascontiguousarray(vectors / lengths, dtype=np.float32)


class Hybrid:
    """Mean of the lexical and the dense score, both in [0, 1] [ours].

    Lexical: BM25 over its upper bound, the share of the query's idf that a document covers. Dense: the
    cosine, negative ones as 0. Not reciprocal ranks, nor scores over the query's own best: both give the best
    document of any query the same score, however bad it is, and a gate could not tell.
    """

    def __init__(self, lexical: Bm25, dense: Dense) -> None:
        self.lexical, self.dense = lexical, dense

    def scores(self, query: str, embedding: Any) -> Floats:
        """Score of each document, in [0, 1]. [N]."""
        bound = self.lexical.upper_bound(query)
        share = self.lexical.scores(query) / bound if bound > 0 else np.zeros(self.lexical.n)
        return (share + np.clip(self.dense.scores(query, embedding), 0, 1)) / 2


def build_index(by: By, documents: Sequence[str], embeddings: Any) -> Index:
    """The index that `by` names."""
    if by in LEXICAL:
        return Bm25(documents) if by == "bm25" else Okapi(documents)
    assert embeddings is not None and len(embeddings) == len(documents), (
        "one embedding per document is needed"
    )
    dense = Dense(embeddings)
    return dense if by == "dense" else Hybrid(Bm25(documents), dense)


class Retriever:
    """Searches the memory of one user (Eq. 5).

    documents: N texts (`document_text`); times: [N] numbers or datetimes, for ties; embeddings: [N, D] of the
    documents, for `dense` and `hybrid` only. No documents at all is fine: nothing is ever found.
    prior: [N] scores that do not depend on the query, mixed in with the weight `share`.
    """

    def __init__(
        self,
        documents: Sequence[str],
        *,
        by: By,
        times: Any,
        embeddings: Any = None,
        prior: Any = None,
        share: float = 0.0,
    ) -> None:
        assert len(times) == len(documents), (len(times), len(documents))
        self.times = np.asarray(times)
        self.prior, self.share = prior, share
        self.index = build_index(by, documents, embeddings) if len(documents) else None

    def scores(self, query: str, embedding: Any = None) -> Floats:
        """Sim(q, h) of every document h. [N]. `query` is a `query_text`, `embedding` its embedding [D]."""
        if self.index is None:
            return np.zeros(0)
        scores = self.index.scores(query, embedding)
        return scores if self.prior is None else (1 - self.share) * scores + self.share * self.prior

    def top(self, query: str, k: int, embedding: Any = None) -> tuple[NDArray[np.int64], Floats]:
        """Indices and scores of the min(k, N) best documents, best first; ties: latest, then first row."""
        scores = self.scores(query, embedding)
        recency = np.unique(self.times, return_inverse=True)[1]
        best = np.lexsort((-recency, -scores))[:k]
        return best, scores[best]
