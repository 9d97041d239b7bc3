"""ROUGE and METEOR: numbers derived by hand, and an explicit choice about synonyms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nltk
import numpy as np
import pytest

from spring.measures.meteor import meteor, meteor_setting, wordnet_is_installed
from spring.measures.metrics import TEXT_METRICS, TextMetric, score_texts
from spring.measures.rouge import rouge


def test_rouge_by_hand() -> None:
    """{the, sat} of {the, cats, sat} and {the, cat, sat, down}: P 2/3, R 2/4, F 4/7; so ROUGE-L.

    Second pair: all four words, F 1; the longest common subsequence is "a b c", F 3/4.
    """
    scores = rouge([("The cats sat.", "the cat sat down"), ("aa bb cc dd", "dd aa bb cc")])
    assert scores["rouge1"] == pytest.approx([4 / 7, 1.0])
    assert scores["rougeL"] == pytest.approx([4 / 7, 3 / 4])


def test_meteor_by_hand() -> None:
    """4 of 5 predicted and 4 of 4 reference tokens match (cats through its stem; the stop is a token).

    P 0.8, R 1: F = P R / (0.9 P + 0.1 R) = 0.8 / 0.82. Two chunks of four: penalty 0.5 (2/4)^3 = 1/16.
    """
    found = meteor([("The cats sat.", "the cat sat down .")], synonyms=False)
    assert found == pytest.approx([0.8 / 0.82 * 15 / 16])


def test_meteor_reads_other_scripts_where_rouge_does_not() -> None:
    pair = [("новый год наступил", "новый год наступил")]
    assert rouge(pair)["rouge1"] == [0.0]
    assert meteor(pair, synonyms=False) == pytest.approx([1 - 0.5 / 27])  # one chunk of three matches


def test_bounds_and_empty_texts() -> None:
    scores = score_texts([("a b c", ""), ("a b c", "x y"), ("", "a"), ("one two", "one two")], synonyms=False)
    assert list(scores) == list(TEXT_METRICS)
    for values in scores.values():
        assert values.shape == (4,)
        assert (values[:3] == 0).all() and 0.9 < values[3] <= 1
    assert all(len(values) == 0 for values in score_texts([], synonyms=False).values())


def test_pairs_are_scored_one_by_one() -> None:
    pairs = [("the cat sat", "a cat sat"), ("dogs bark at night", "the dog barks"), ("rain", "rain falls")]
    together = score_texts(pairs, synonyms=False)
    for place, pair in enumerate(pairs):
        alone = score_texts([pair], synonyms=False)
        assert all(together[metric][place] == alone[metric][0] for metric in TEXT_METRICS)


def test_a_new_metric_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """[1] where the text is as long as its reference."""

    def same_length(pairs: Sequence[tuple[str, str]], synonyms: bool) -> np.ndarray:
        return np.array([len(reference) == len(prediction) for reference, prediction in pairs], float)

    monkeypatch.setitem(TEXT_METRICS, "length", TextMetric("Same length", same_length))
    scores = score_texts([("a b", "c d"), ("a", "a b")], synonyms=False)
    assert list(scores) == ["rouge1", "rougeL", "meteor", "length"]
    assert scores["length"].tolist() == [1, 0] and scores["rouge1"].tolist() == [0, pytest.approx(2 / 3)]


def test_wordnet_is_looked_for_and_never_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert not wordnet_is_installed()
    with pytest.raises(LookupError, match="wordnet"):
        meteor([("a dog", "a hound")], synonyms=True)
    (tmp_path / "corpora/wordnet").mkdir(parents=True)
    assert wordnet_is_installed()
    assert meteor_setting(True) == "exact+stem+synonyms" and meteor_setting(False) == "exact+stem"


def test_without_synonyms_different_words_do_not_match() -> None:
    assert np.array_equal(meteor([("dog", "hound")], synonyms=False), [0.0])
