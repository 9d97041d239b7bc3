"""Text metrics: ROUGE-1, ROUGE-L and METEOR of generated texts against their references.

Both lower-case their input. ROUGE (rouge-score) keeps runs of a-z and 0-9 only, so accented letters split
words and text without Latin letters scores 0; words are not stemmed, as in Hugging Face's
`evaluate.load("rouge")`. METEOR (nltk, its default alpha, beta and gamma) works on runs of letters and
digits of any script, and on runs of punctuation.

Stemming would raise ROUGE a little; compare numbers with other work only at the same setting:
`ROUGE_SETTING` and `meteor_setting` go on the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nltk
import numpy as np
from nltk.tokenize import wordpunct_tokenize
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer

TEXT_METRICS = ("rouge1", "rougeL", "meteor")
ROUGE_SETTING = "F1, words as they are (no stemming)"


class NoSynonyms:
    """Stands in for WordNet where its corpus is not installed: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        """Always empty."""
        return []


def wordnet_is_installed() -> bool:
    """Whether nltk finds the WordNet corpus in its data path (it is never downloaded)."""
    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        return True
    return False


def meteor_setting(synonyms: bool) -> str:
    """How METEOR matched words, for the record beside every number."""
    return "exact+stem+synonyms" if synonyms else "exact+stem"


def rouge(pairs: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """ROUGE-1 and ROUGE-L F1 of (reference, prediction) pairs (Lin, 2004), each [N] in 0..1."""
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    scores = [scorer.score(reference, prediction) for reference, prediction in pairs]
    return {
        name: np.array([score[name].fmeasure for score in scores], float) for name in ("rouge1", "rougeL")
    }


def meteor(pairs: Sequence[tuple[str, str]], synonyms: bool) -> np.ndarray:
    """METEOR of (reference, prediction) pairs (Lavie and Agarwal, 2007), [N] in 0..1.

    `synonyms` matches words through WordNet too; raises `LookupError` where its corpus is missing.
    """
    wordnet = nltk.corpus.wordnet if synonyms else NoSynonyms()
    tokens = [
        (wordpunct_tokenize(reference), wordpunct_tokenize(prediction)) for reference, prediction in pairs
    ]
    return np.array([single_meteor_score(*pair, wordnet=wordnet) for pair in tokens], float)


def score_texts(pairs: Sequence[tuple[str, str]], synonyms: bool) -> dict[str, np.ndarray]:
    """All of `TEXT_METRICS` of (reference, prediction) pairs, each [N] in 0..1; empty predictions score 0."""
    return {**rouge(pairs), "meteor": meteor(pairs, synonyms)}
