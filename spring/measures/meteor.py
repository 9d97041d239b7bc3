"""METEOR of generated texts against their references (Lavie and Agarwal, 2007), lower-cased.

nltk's, with its default alpha, beta and gamma, on runs of letters and digits of any script and on runs of
punctuation. `meteor_setting` goes on the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nltk
import numpy as np
from nltk.tokenize import wordpunct_tokenize
from nltk.translate.meteor_score import single_meteor_score


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


def meteor(pairs: Sequence[tuple[str, str]], synonyms: bool) -> np.ndarray:
    """METEOR of (reference, prediction) pairs, [N] in 0..1.

    `synonyms` matches words through WordNet too; raises `LookupError` where its corpus is missing.
    """
    wordnet = nltk.corpus.wordnet if synonyms else NoSynonyms()
    tokens = [
        (wordpunct_tokenize(reference), wordpunct_tokenize(prediction)) for reference, prediction in pairs
    ]
    return np.array([single_meteor_score(*pair, wordnet=wordnet) for pair in tokens], float)
