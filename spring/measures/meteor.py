"""METEOR of generated texts against their references (Lavie and Agarwal, 2007), lower-cased.

nltk's, with its default alpha, beta and gamma, on words of any script and what stands between them: runs of
punctuation and emoji (spring/words.py; of ASCII both are nltk's `wordpunct_tokenize`). Equal texts score 1,
as in METEOR's own program, which sees no fragments there; nltk takes off 0.5 / m^3 of m tokens, half of a
single one. `meteor_setting` goes on the record. nltk is imported where it is used: it takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from spring.words import tokens


class NoSynonyms:
    """Stands in for WordNet where its corpus is not installed: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        """Always empty."""
        return []


class Stemmer:
    """nltk's default, which remembers: stems take most of the time, and words come again and again."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)


def wordnet_is_installed() -> bool:
    """Whether nltk finds the WordNet corpus in its data path (it is never downloaded)."""
    import nltk

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        return True
    return False


def meteor_setting(synonyms: bool) -> str:
    """How METEOR matched words, for the record beside every number."""
    matched = "exact+stem+synonyms" if synonyms else "exact+stem"
    return f"{matched}; words of any script, equal texts 1"


def meteor(pairs: Sequence[tuple[str, str]], synonyms: bool) -> np.ndarray:
    """METEOR of (reference, prediction) pairs, [N] in 0..1; NaN: nothing in a reference but blanks.

    `synonyms` matches words through WordNet too; raises `LookupError` where its corpus is missing.
    """
    import nltk
    from nltk.translate.meteor_score import single_meteor_score

    wordnet = nltk.corpus.wordnet if synonyms else NoSynonyms()
    scores, stemmer = [], Stemmer()
    for reference, prediction in ((tokens(text) for text in pair) for pair in pairs):
        if not reference:
            scores.append(math.nan)
        elif reference == prediction:
            scores.append(1.0)
        else:
            scores.append(single_meteor_score(reference, prediction, stemmer=stemmer, wordnet=wordnet))
    return np.array(scores, float)
