"""chrF of generated texts against their references (Popović, 2015): characters in place of words.

sacrebleu's chrF2: runs of one to six characters, blanks left out, recall weighing twice as much as precision,
capitals told apart. It needs no notion of a word, so that it asks the same of every script, and gives part of
the credit where endings differ. `CHRF_SETTING` goes on the record: sacrebleu's signature, less its version.
"""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize

import numpy as np

CHRF_SETTING = "case:mixed|eff:yes|nc:6|nw:0|space:no, NFC"


def chrf(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """chrF2 of (reference, prediction) pairs, [N] in 0..1; NaN: nothing in a reference but blanks."""
    from sacrebleu.metrics import CHRF  # here: half a second to import

    metric = CHRF()
    composed = [tuple(normalize("NFC", text) for text in pair) for pair in pairs]
    scores = [
        metric.sentence_score(prediction, [reference]).score / 100 if reference.split() else np.nan
        for reference, prediction in composed
    ]
    return np.array(scores, float)
