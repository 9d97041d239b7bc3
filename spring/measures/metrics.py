"""The metrics of answers: what a generated text is worth beside its reference, item by item.

A text is worth 1 beside itself. Where a reference has nothing that a metric compares (no word: emoji,
punctuation) it does not apply, whatever was generated: not a number, and no mean counts the item.
A new one is a function in a file of its own and an entry in `TEXT_METRICS`; every table and drawing follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from unicodedata import unidata_version

import numpy as np

from spring.measures.chrf import chrf
from spring.measures.meteor import meteor
from spring.measures.rouge import rouge

Pairs = Sequence[tuple[str, str]]  # (reference, prediction)


@dataclass(frozen=True)
class TextMetric:
    """A metric under its name for people; more is better, and NaN says that it does not apply."""

    title: str
    score: Callable[[Pairs, bool], np.ndarray]  # (pairs, whether WordNet's synonyms are there) -> [N]
    headline: bool = True  # in drawings, sentences and what is printed; all are in the tables


TEXT_METRICS: dict[str, TextMetric] = {
    "rouge1": TextMetric("ROUGE-1", lambda pairs, _: rouge(pairs, ["rouge1"])["rouge1"]),
    "rougeL": TextMetric("ROUGE-L", lambda pairs, _: rouge(pairs, ["rougeL"])["rougeL"]),
    "meteor": TextMetric("METEOR", meteor),
    "chrf": TextMetric("chrF", lambda pairs, _: chrf(pairs), headline=False),  # says what the others say
}


# What says which words there are, and what they are worth: another version may give another number
SCORERS = ("nltk", "regex", "rouge-score", "sacrebleu")


def scored_by() -> str:
    """The versions behind every number of `TEXT_METRICS`, for the record beside them."""
    return ", ".join([*(f"{name} {version(name)}" for name in SCORERS), f"Unicode {unidata_version}"])


def score_texts(pairs: Pairs, synonyms: bool) -> dict[str, np.ndarray]:
    """All of `TEXT_METRICS` of (reference, prediction) pairs, each [N]; NaN where one does not apply.

    Empty predictions score 0. Arms whose answers are equal cost no more than one.
    """
    numbers = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    places = [numbers[pair] for pair in pairs]
    return {name: metric.score(list(numbers), synonyms)[places] for name, metric in TEXT_METRICS.items()}
