"""Measurements of the benchmark `personas`: length, variety, duplicates, and how separable styles are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from spring.data.sources.personas import voices
from spring.data.sources.personas.schedule import RECURRING_FIRST, kind_of, phase_of, version_at

WORD = re.compile(r"[A-Za-z0-9']+")
NAMES = frozenset(name.lower() for name in voices.NAMES + voices.TOWNS)


def texture(frame: pl.DataFrame) -> dict[str, float]:
    """Words per text, type-token ratio, distinct-2 and the shares of (near-)duplicates; noise left out."""
    clean = frame.filter(pl.col("drift") != "noise")
    responses, queries = clean["response"].to_list(), [json.loads(query) for query in clean["query"]]
    rows = [response.lower().split() for response in responses]
    words = [word for row in rows for word in row]
    pairs = [pair for row in rows for pair in pairwise(row)]
    return {
        "words per response": len(words) / len(rows),
        "words per description": float(np.mean([len(query["DESCRIPTION"].split()) for query in queries])),
        "words per summary": float(np.mean([len(query["SUMMARY"].split()) for query in queries])),
        "type-token ratio": len(set(words)) / len(words),
        "distinct-2": len(set(pairs)) / len(pairs),
        "duplicates": 1 - len(set(responses)) / len(responses),
        "near-duplicates": near_duplicates(responses),
    }


def near_duplicates(responses: Sequence[str]) -> float:
    """Share of responses that share at least half of their runs of four words with one other."""
    counts = CountVectorizer(ngram_range=(4, 4), token_pattern=r"\S+", binary=True).fit_transform(responses)
    shared = (counts @ counts.T).toarray()
    own = shared.diagonal().copy()
    np.fill_diagonal(shared, 0)
    return float((shared.max(axis=1) >= np.maximum(1, 0.5 * own)).mean())


def separability(frame: pl.DataFrame, drift: Sequence[str], *, seed: int) -> dict[str, float]:
    """Cross-validated accuracy of telling users apart, and each user's first style from the later one.

    Noise and passing contexts are left out; words of the query and names are masked. Users: their first 14
    interactions, which precede every change. Styles: balanced accuracy, mean over the users of each kind.
    """
    clean = frame.with_columns(index=pl.int_range(pl.len()).over("user_id")).filter(
        ~pl.col("drift").is_in(["noise", "transient"])
    )
    clean = clean.with_columns(pl.Series("masked", map(_masked, clean["response"], clean["query"])))
    first = clean.filter(pl.col("index") < RECURRING_FIRST)
    figures = {"users": _accuracy(first["masked"].to_list(), first["user_id"].to_list(), "accuracy")}
    by_kind: dict[str, list[float]] = {}
    for user, rows in enumerate(clean.partition_by("user_id", maintain_order=True)):
        kind, shift = kind_of(drift, user)
        phase = phase_of(seed, user)
        later = [version_at(kind, index, shift, phase=phase) > 0 for index in rows["index"]]
        if any(later):
            accuracy = _accuracy(rows["masked"].to_list(), later, "balanced_accuracy")
            by_kind.setdefault(kind, []).append(accuracy)
    return figures | {f"before and after, {kind}": float(np.mean(values)) for kind, values in by_kind.items()}


def _masked(response: str, query: str) -> str:
    topic = NAMES | {word.lower() for word in WORD.findall(query)}
    return WORD.sub(lambda m: "_" if m[0].lower() in topic else m[0], response)


def _accuracy(texts: Sequence[str], classes: Sequence[str | bool], scoring: str) -> float:
    """5-fold cross-validated score of a logistic regression on character bigrams and trigrams."""
    grams = TfidfVectorizer(analyzer="char", ngram_range=(2, 3), lowercase=False, min_df=2, sublinear_tf=True)
    model = make_pipeline(grams, LogisticRegression(C=10, class_weight="balanced", max_iter=1000))
    return float(cross_val_score(model, texts, classes, cv=5, scoring=scoring).mean())
