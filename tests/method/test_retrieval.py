"""Retrieval and gate (Eq. 5, 6): brute force against bm25s and FAISS, thresholds derived by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from spring.method.gate import Past, find_sigma, relevance_gate
from spring.method.retrieval import Bm25, Retriever, document_text, query_text
from spring.settings.arm import Retrieve
from spring.words import terms

DOCUMENTS = [
    "the cat sat on the mat",
    "the dog ate the cat",
    "a long walk with the dog in the park",
    "blue sky",
]


def lucene(query: str, documents: list[str], *, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """The formula of Lucene, word by word, without any index."""
    words = [terms(document) for document in documents]
    average = sum(map(len, words)) / len(words)
    scores = []
    for document in words:
        total = 0.0
        for word in terms(query):
            df = sum(word in other for other in words)
            idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
            tf = document.count(word)
            total += idf * tf / (tf + k1 * (1 - b + b * len(document) / average)) if tf else 0.0
        scores.append(total)
    return scores


def okapi_idf(df: int, n: int) -> float:
    return math.log(n - df + 0.5) - math.log(df + 0.5)


def bm25(documents: list[str], **changes: Any) -> Retriever:
    return Retriever(documents, **{"by": "bm25", "times": np.arange(len(documents)), **changes})


# --- texts ------------------------------------------------------------------------------------------------


def test_field_names_are_not_searched() -> None:
    """Otherwise every document would share a word with every query."""
    assert query_text('{"PRODUCT": "Desk lamp", "RATING": 4, "SUMMARY": null}') == "Desk lamp\n4\n"
    text = document_text('{"TITLE": "Drift"}', "We study it.")
    assert terms(text) == ["drift", "we", "study", "it"]


def test_a_query_that_is_no_object_is_shown() -> None:
    with pytest.raises(ValueError, match=r'query is \'\["a"\]\''):
        query_text('["a"]')


@pytest.mark.parametrize(
    ("shared", "documents"),
    [
        ("猫", ["黒い猫が好きです", "雨の日に出かけた"]),  # a word of one character
        ("カメラ", ["新しいカメラを買った", "きのうは雨だった"]),
        ("电影", ["我昨天看了一部电影", "今天下雨了"]),
        ("책을", ["나는 책이 좋다", "비가 왔다"]),  # another particle
        ("กาแฟ", ["ดื่มกาแฟทุกเช้า", "ฝนตกหนัก"]),
        ("हिन्दी", ["मैं हिन्दी बोलता हूँ", "आज बारिश हुई"]),
        ("القهوة", ["أشرب القهوة كل صباح", "نزل المطر أمس"]),
        ("КОФЕ", ["утром я пью кофе", "вчера шёл дождь"]),
        ("cafe\u0301", ["un café noir", "il pleut"]),
    ],
)
@pytest.mark.parametrize("by", ["bm25", "okapi"])
def test_a_strict_gate_opens_for_what_shares_a_word_in_any_script(
    shared: str, documents: list[str], by: Any
) -> None:
    """Sigma 0. There are more documents since Okapi's idf is 0 where half of them hold a word."""
    documents = [*documents, "x", "y", "z"]
    best, scores = bm25(documents, by=by).top(shared, 5)
    assert relevance_gate(scores, gate="strict", sigma=find_sigma(Past([]), 0.0)).tolist() == [1, 0, 0, 0, 0]
    assert best[0] == 0


# --- bm25 -------------------------------------------------------------------------------------------------


def test_bm25_by_hand() -> None:
    """Two documents of one word, N = 2, df = 1: idf = ln(1 + 1.5 / 1.5) = ln 2, tf part 1 / (1 + 1.5)."""
    np.testing.assert_allclose(bm25(["cat", "dog"]).scores("cat"), [math.log(2) / 2.5, 0.0])


@pytest.mark.parametrize("query", ["the cat", "cat cat dog", "park unknown sky", "unknown", "", "..."])
def test_bm25_is_the_formula(query: str) -> None:
    np.testing.assert_allclose(bm25(DOCUMENTS).scores(query), lucene(query, DOCUMENTS), rtol=1e-12)


words = st.lists(st.sampled_from("abcdef"), max_size=8).map(" ".join)


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=8), words)
def test_bm25_is_zero_exactly_where_no_word_is_shared(documents: list[str], query: str) -> None:
    if not any(map(terms, documents)):  # the formula divides by the average length
        assert bm25(documents).scores(query).tolist() == [0.0] * len(documents)
        return
    scores = bm25(documents).scores(query)
    np.testing.assert_allclose(scores, lucene(query, documents), rtol=1e-12)
    shared = [bool(set(terms(query)) & set(terms(document))) for document in documents]
    assert (scores > 0).tolist() == shared
    assert (scores <= Bm25(documents).upper_bound(query)).all()


def okapi(documents: list[str]) -> BM25Okapi:
    """The package rank_bm25 on the same words: k1 = 1.5, b = 0.75, epsilon = 0.25."""
    return BM25Okapi([terms(document) for document in documents])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(words.filter(bool), min_size=1, max_size=8), words)
@example(DOCUMENTS, "the cat")  # "the" is in 3 of 4: Okapi's idf is negative, rank_bm25 puts its floor there
@example(DOCUMENTS, "cat cat dog unknown")
@example(["cat"], "cat")
def test_scores_by_okapi_are_those_of_rank_bm25(documents: list[str], query: str) -> None:
    expected = okapi(documents).get_scores(terms(query))
    found = bm25(documents, by="okapi").scores(query)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(words.filter(bool), min_size=1, max_size=8), st.sampled_from("abcdef"))
def test_documents_rank_as_under_rank_bm25_for_a_word_that_less_than_half_of_them_hold(
    documents: list[str], word: str
) -> None:
    """There both idf are positive, and for one word they scale all scores alike."""
    documents = [f"{word} {documents[0]}", *documents[1:], *["cup"] * (len(documents) + 1)]
    ours, theirs = Bm25(documents).scores(word), okapi(documents).get_scores([word])
    np.testing.assert_allclose(ours / ours.max(), theirs / theirs.max(), rtol=1e-9)


def test_documents_rank_as_under_rank_bm25_where_all_words_are_as_rare() -> None:
    """Every word in one document of four: for any query the scores differ by one factor."""
    documents = ["red cup", "blue lamp shines", "an old chair that broke", "green tea"]
    factor = 2.5 * okapi_idf(1, 4) / math.log(1 + 3.5 / 1.5)
    for query in ("red", "blue chair", "tea cup lamp", "old broke chair"):
        theirs = okapi(documents).get_scores(terms(query))
        np.testing.assert_allclose(Bm25(documents).scores(query) * factor, theirs, rtol=1e-12)


def test_why_okapi_is_not_the_default() -> None:
    """Buffers start small. Of one document rank_bm25 scores a shared word below none, of two like none."""
    assert okapi(["cat"]).get_scores(["cat"])[0] < 0
    assert okapi(["cat", "dog"]).get_scores(["cat"]).tolist() == [0, 0]
    assert bm25(["cat"]).scores("cat")[0] > 0
    assert bm25(["cat", "dog"]).scores("cat")[0] > 0


def test_scores_do_not_depend_on_the_order_of_documents() -> None:
    order = [2, 0, 3, 1]
    scores = bm25(DOCUMENTS).scores("the dog sat")
    assert bm25([DOCUMENTS[i] for i in order]).scores("the dog sat").tolist() == scores[order].tolist()


# --- top k ------------------------------------------------------------------------------------------------


def test_top_is_best_first_then_latest_then_first_row() -> None:
    retriever = bm25(["x", "cat dog", "y", "x", "y"], times=[5, 1, 7, 9, 7])
    best, scores = retriever.top("cat", 5)
    assert best.tolist() == [1, 3, 2, 4, 0]
    assert scores.tolist() == retriever.scores("cat")[best].tolist()
    assert retriever.top("cat", 2)[0].tolist() == [1, 3]


def test_datetimes_break_ties_too() -> None:
    times = np.array(["2024-01-01", "2024-03-01", "2024-02-01"], dtype="datetime64[us]")
    assert bm25(["x"] * 3, times=times).top("x", 3)[0].tolist() == [1, 2, 0]


@pytest.mark.parametrize("by", Retrieve.model_fields["by"].annotation.__args__)  # type: ignore[union-attr]
def test_an_empty_memory_finds_nothing(by: Any) -> None:
    """B^(0) is empty."""
    empty = Retriever([], by=by, times=[], embeddings=np.zeros((0, 4)))
    best, scores = empty.top("anything", 2, np.ones(4))
    assert (best.tolist(), scores.tolist()) == ([], [])


# --- dense and hybrid -------------------------------------------------------------------------------------


def test_dense_is_the_cosine_in_document_order() -> None:
    rng = np.random.default_rng(0)
    documents, query = rng.normal(size=(30, 8)) * rng.uniform(0.1, 9, size=(30, 1)), rng.normal(size=8)
    retriever = Retriever(["x"] * 30, by="dense", times=np.arange(30), embeddings=documents)
    cosine = documents @ query / np.linalg.norm(documents, axis=1) / np.linalg.norm(query)
    assert cosine.min() < 0 < cosine.max()
    np.testing.assert_allclose(retriever.scores("ignored", query), cosine, atol=1e-6)
    assert retriever.top("ignored", 3, query)[0].tolist() == np.argsort(-cosine)[:3].tolist()


def test_an_embedding_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        Retriever(["x"], by="dense", times=[0], embeddings=np.zeros((1, 3)))


def test_hybrid_by_hand() -> None:
    """Lexical share: "cat" is one of two words as rare, tf part 1 / 2.5: 0.2. Cosines 0, 1."""
    retriever = Retriever(["cat", "dog"], by="hybrid", times=[0, 1], embeddings=[[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(retriever.scores("cat dog", [0.0, 3.0]), [0.1, 0.6], atol=1e-7)
    np.testing.assert_allclose(retriever.scores("...", [0.0, -3.0]), [0.0, 0.0], atol=1e-7)


def test_hybrid_can_tell_a_bad_best_from_a_good_one() -> None:
    """The reason against ranks: the best of a hopeless query must stay under a threshold."""
    retriever = Retriever(DOCUMENTS, by="hybrid", times=range(4), embeddings=np.eye(4))
    good = retriever.top("blue sky", 1, [0, 0, 0, 1.0])[1][0]
    bad = retriever.top("quantum chromodynamics of the gluon", 1, [0.1, 0, 0, -1.0])[1][0]
    assert good > 2 * bad
