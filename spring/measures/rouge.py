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
    """Words of a text."""

    def tokenize(self, text: str) -> list[str]:
        """Words, divided at underscores."""
        return [part for word in words(text) for part in word.split("_") if part]


class Given:
    """What rouge-score asks for tokens, of texts that are words already."""

    def tokenize(self, text: list[str]) -> list[str]:
        """As they are."""
        return text


def rouge(pairs: Sequence[tuple[str, str]], kinds: Sequence[str] = KINDS) -> dict[str, np.ndarray]:
    """ROUGE-1 and ROUGE-L F1 of (reference, prediction) pairs, each [N] in 0..1; NaN: no word to be found."""
    from rouge_score.rouge_scorer import RougeScorer  # here: it imports all of nltk, in a second

    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    scorer = RougeScorer(["rouge1"], tokenizer=Given())
    for pair in pairs:
        reference, prediction = (Words().tokenize(text) for text in pair)
        for kind, values in found.items():
            if not reference:
                values.append(np.nan)
            elif kind == "rouge1":
                values.append(scorer.score(reference, prediction)["rouge1"].fmeasure)
            else:
                values.append(rouge_l(reference, prediction))
    return {kind: np.array(values, float) for kind, values in found.items()}


def rouge_l(reference: Sequence[str], prediction: Sequence[str]) -> float:
    """ROUGE-L F1, rouge-score's; its table of common subsequences takes as long as all else of a report."""
    from rouge_score.scoring import fmeasure

    if not reference or not prediction:
        return 0.0
    common = longest_common(reference, prediction)
    return float(fmeasure(common / len(prediction), common / len(reference)))


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, rows of its table as bits of a number (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    row = whole = (1 << len(one)) - 1  # a zero: here the row grows by one
    for word in other:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & whole
    return len(one) - row.bit_count()
