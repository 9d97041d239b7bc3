"""ROUGE of generated texts against their references (Lin, 2004), lower-cased.

rouge-score keeps runs of a-z and 0-9 only, so accented letters split words and text without Latin letters
scores 0; words are not stemmed, as in Hugging Face's `evaluate.load("rouge")`. Stemming would raise it a
little; compare numbers with other work only at the same setting: `ROUGE_SETTING` goes on the record.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

ROUGE_SETTING = "F1, words as they are (no stemming)"
KINDS = ("rouge1", "rougeL")


def rouge(pairs: Sequence[tuple[str, str]], kinds: Sequence[str] = KINDS) -> dict[str, np.ndarray]:
    """ROUGE-1 and ROUGE-L F1 of (reference, prediction) pairs, each [N] in 0..1."""
    scorer = RougeScorer(list(kinds), use_stemmer=False)
    scores = [scorer.score(reference, prediction) for reference, prediction in pairs]
    return {kind: np.array([score[kind].fmeasure for score in scores], float) for kind in kinds}
