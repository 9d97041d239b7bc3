"""ROUGE of generated texts against their references (Lin, 2004), in words of any script.

rouge-score's, with the words of spring/words.py: its own are runs of a-z and 0-9, so that accents divide
words and of texts in other letters only digits are compared. Of ASCII both are the same: underscores divide
words. They are not stemmed, as in Hugging Face's `evaluate.load("rouge")`. Stemming would raise it a little;
compare numbers with other work only at the same setting: `ROUGE_SETTING` goes on the record.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spring.words import words

ROUGE_SETTING = "F1, words of any script as they are (no stemming)"
KINDS = ("rouge1", "rougeL")


class Words:
    """What rouge-score asks for tokens."""

    def tokenize(self, text: str) -> list[str]:
        """Words, divided at underscores."""
        return [part for word in words(text) for part in word.split("_") if part]


def rouge(pairs: Sequence[tuple[str, str]], kinds: Sequence[str] = KINDS) -> dict[str, np.ndarray]:
    """ROUGE-1 and ROUGE-L F1 of (reference, prediction) pairs, each [N] in 0..1; NaN: no word to be found."""
    from rouge_score.rouge_scorer import RougeScorer  # here: it imports all of nltk, in a second

    scorer = RougeScorer(list(kinds), tokenizer=Words())
    scores = [scorer.score(reference, prediction) for reference, prediction in pairs]
    applies = [bool(Words().tokenize(reference)) for reference, _ in pairs]
    return {kind: np.where(applies, [score[kind].fmeasure for score in scores], np.nan) for kind in kinds}
