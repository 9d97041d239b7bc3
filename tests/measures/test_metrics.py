"""The metrics of texts: numbers derived by hand, any script, and an explicit choice about synonyms."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import nltk
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nltk.tokenize import wordpunct_tokenize
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

from spring.measures.chrf import CHRF_SETTING, chrf
from spring.measures.meteor import NoSynonyms, meteor, meteor_setting, wordnet_is_installed
from spring.measures.metrics import SCORERS, TEXT_METRICS, TextMetric, score_texts, scored_by
from spring.measures.rouge import longest_common, rouge, rouge_l


def test_rouge_by_hand() -> None:
    """{the, sat} of {the, cats, sat} and {the, cat, sat, down}: P 2/3, R 2/4, F 4/7; so ROUGE-L.

    Second pair: all four words, F 1; the longest common subsequence is "a b c", F 3/4.
    """
    scores = rouge([("The cats sat.", "the cat sat down"), ("aa bb cc dd", "dd aa bb cc")])
    assert scores["rouge1"] == pytest.approx([4 / 7, 1.0])
    assert scores["rougeL"] == pytest.approx([4 / 7, 3 / 4])


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [
        ("", "ab", 0),
        ("ab", "", 0),
        ("abc", "abc", 3),
        ("abc", "cba", 1),
        ("abcbdab", "bdcaba", 4),
        ("aab", "aba", 2),
    ],
)
def test_common_subsequences_by_hand(one: str, other: str, length: int) -> None:
    """The fifth is the textbook's (Cormen et al.): bcba."""
    assert longest_common(one, other) == longest_common(other, one) == length


@given(st.lists(st.sampled_from("abcd"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80))
def test_rouge_l_is_rouge_scores(reference: list[str], prediction: list[str]) -> None:
    """Longer than a machine's word, too, where the bits of a row carry on."""
    scorer = RougeScorer(["rougeL"], tokenizer=Letters())
    expected = scorer.score("".join(reference), "".join(prediction))["rougeL"].fmeasure
    assert rouge_l(reference, prediction) == expected


class Letters:
    """Every letter a word."""

    def tokenize(self, text: str) -> list[str]:
        return list(text)


def test_meteor_by_hand() -> None:
    """4 of 5 predicted and 4 of 4 reference tokens match (cats through its stem; the stop is a token).

    P 0.8, R 1: F = P R / (0.9 P + 0.1 R) = 0.8 / 0.82. Two chunks of four: penalty 0.5 (2/4)^3 = 1/16.
    """
    found = meteor([("The cats sat.", "the cat sat down .")], synonyms=False)
    assert found == pytest.approx([0.8 / 0.82 * 15 / 16])


def test_chrf_by_hand() -> None:
    """One letter of 3 and of 2: P 1/3, R 1/2, no run of two in common: means 1/6 and 1/4 over n = 1, 2.

    F2 = 5 P R / (4 P + R) = (5/24) / (2/3 + 1/4) = 5/22; n = 3 has no run in the reference and is left out.
    """
    assert chrf([("a b", "cad")]) == pytest.approx([5 / 22])


def test_chrf_on_the_record_is_sacrebleus_signature() -> None:
    metric = CHRF()
    metric.sentence_score("a", ["a"])
    number, *signature, version = str(metric.get_signature()).split("|")
    assert number == "nrefs:1" and version.startswith("version:")
    assert "|".join(signature) + ", NFC" == CHRF_SETTING


def test_scripts_are_compared_by_their_words() -> None:
    """Two of three words or characters are the same; before, ROUGE saw the digit alone, or nothing."""
    pairs = [
        ("новый год 7", "новый дом 7"),
        ("猫が好", "猫は好"),
        ("नया साल ७", "नया घर ७"),
        ("سنة جديدة ٧", "سنة سعيدة ٧"),
        ("café noir ça", "cafe\u0301 vert ÇA"),
    ]
    for values in rouge(pairs).values():
        assert values == pytest.approx([2 / 3] * len(pairs))
    assert rouge([("東京 7", "大阪 7"), ("Ёлка 7", "Дом 7")])["rouge1"] == pytest.approx([1 / 3, 1 / 2])


ascii_texts = st.lists(st.text(st.sampled_from("abAB01_.-' "), max_size=12), max_size=6).map(" ".join)


@given(ascii_texts, ascii_texts)
def test_of_ascii_rouge_is_that_of_rouge_score(reference: str, prediction: str) -> None:
    expected = RougeScorer(["rouge1", "rougeL"]).score(reference, prediction)
    for kind, values in rouge([(reference, prediction)]).items():
        if re.search("[a-z0-9]", reference.lower()):
            assert values.tolist() == [expected[kind].fmeasure]
        else:
            assert np.isnan(values).all() and expected[kind].fmeasure == 0


@given(ascii_texts, ascii_texts)
def test_of_ascii_meteor_is_that_of_nltk_but_for_equal_texts(reference: str, prediction: str) -> None:
    pair = wordpunct_tokenize(reference.lower()), wordpunct_tokenize(prediction.lower())
    assume(pair[0] and pair[0] != pair[1])
    expected = single_meteor_score(*pair, wordnet=NoSynonyms())
    assert meteor([(reference, prediction)], synonyms=False).tolist() == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "x_1",
        "Don't stop!",
        "はい",
        "猫",
        "학교",
        "你好，世界",
        "हाँ",
        "مرحبًا",
        "Да",
        "ใช่",
        "ខ្មែរ",
        "Straße",
        "٧",
    ],
)
def test_a_text_is_worth_one_beside_itself(text: str) -> None:
    """And beside itself in another form of Unicode; METEOR by nltk would give "yes" one half."""
    for form in ("NFC", "NFD"):
        scores = score_texts([(text, normalize(form, text)), (normalize(form, text), text)], synonyms=False)
        assert all(values == pytest.approx([1, 1], abs=1e-12) for values in scores.values())


@given(st.text(max_size=20))
def test_any_text_is_worth_one_beside_itself_or_the_metric_does_not_apply(text: str) -> None:
    for values in score_texts([(text, text)], synonyms=False).values():
        assert np.isnan(values[0]) or values[0] == pytest.approx(1)


@given(st.text(max_size=12), st.text(max_size=12))
def test_whether_a_metric_applies_is_up_to_the_reference(reference: str, prediction: str) -> None:
    there, same = (score_texts([(reference, text)], synonyms=False) for text in (prediction, reference))
    for name, values in there.items():
        assert np.isnan(values[0]) == np.isnan(same[name][0])
        assert np.isnan(values[0]) or 0 <= values[0] <= 1 + 1e-12


def test_rouge_is_the_same_both_ways() -> None:
    """F1 where both have words: precision and recall trade places."""
    one, other = [("猫が好き", "犬が好きです")], [("犬が好きです", "猫が好き")]
    assert rouge(one)["rougeL"] == rouge(other)["rougeL"] == pytest.approx([6 / 10])


def test_bounds_and_empty_texts() -> None:
    scores = score_texts([("a b c", ""), ("a b c", "x y"), ("one two", "one two")], synonyms=False)
    assert list(scores) == list(TEXT_METRICS)
    for values in scores.values():
        assert values.tolist() == [0, 0, 1]
    nothing = score_texts([("", "a"), (" \n", ""), ("!? 👍🏽", "a"), ("👍", "👍")], synonyms=False)
    assert np.isnan(nothing["rouge1"]).all() and np.isnan(nothing["rougeL"]).all()
    for name in ("meteor", "chrf"):  # what is no word counts too
        assert np.isnan(nothing[name][:2]).all() and nothing[name][2:].tolist() == [0, 1]
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
    assert list(scores) == ["rouge1", "rougeL", "meteor", "chrf", "length"]
    assert scores["length"].tolist() == [1, 0] and scores["rouge1"].tolist() == [0, pytest.approx(2 / 3)]


def test_wordnet_is_looked_for_and_never_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert not wordnet_is_installed()
    with pytest.raises(LookupError, match="wordnet"):
        meteor([("a dog", "a hound")], synonyms=True)
    (tmp_path / "corpora/wordnet").mkdir(parents=True)
    assert wordnet_is_installed()
    assert meteor_setting(True).startswith("exact+stem+synonyms;")
    assert meteor_setting(False).startswith("exact+stem;")


def test_without_synonyms_different_words_do_not_match() -> None:
    assert np.array_equal(meteor([("dog", "hound")], synonyms=False), [0.0])


def test_what_scored_is_on_the_record() -> None:
    """Every library that the modules of metrics and words import, at the version that is installed."""
    rooms = Path(__file__).parents[2] / "spring"
    files = [rooms / "words.py", *(rooms / f"measures/{name}.py" for name in ("rouge", "meteor", "chrf"))]
    imported = {
        found
        for file in files
        for found in re.findall(r"^ *(?:from|import) ([a-z]\w*)", file.read_text(), re.M)
    }
    libraries = {name.replace("_", "-") for name in imported} - sys.stdlib_module_names - {"spring", "numpy"}
    assert libraries == set(SCORERS)
    assert scored_by().startswith(f"nltk {nltk.__version__}, regex ") and ", Unicode 1" in scored_by()
