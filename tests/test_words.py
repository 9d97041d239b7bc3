"""Words of every script, derived by hand; of ASCII those of the libraries that had the word before."""

from __future__ import annotations

import re
import string
import unicodedata

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from nltk.tokenize import wordpunct_tokenize

from spring.words import fold, terms, tokens, words

ASCII = st.text(st.characters(max_codepoint=127))
MARKS = "\u0300\u0307\u0327\u0345\u064e\u093f\u0e34\u3099\u1039\u17d2\u20e3\ufe0f"
ANY = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(MARKS + "iıİIσςßkぱ가각한"))).map(str)
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "Don't stop: GPT-4 x_1!": "don t stop gpt 4 x_1",
        "naïve cafe\u0301": "naïve café",
        "Straße ΟΔΥΣΣΕΥΣ Οδυσσεύς": "strasse οδυσσευσ οδυσσεύσ",
        "ISTANBUL İstanbul ıstanbul": "istanbul istanbul istanbul",
        "Новый год": "новый год",
        "हिन्दी में": "हिन्दी में",  # vowel signs and the virama stay inside
        "كِتَابٌ ١٢٣": "كِتَابٌ ١٢٣",
        "كـــتـاب": "كتاب",
        "می\u200cخواهم co\u00adop": "میخواهم coop",  # joiner and soft hyphen are invisible
        "猫が好き。": "猫 が 好 き",
        "2024年にiPhoneを": "2024 年 に iphone を",
        "ｶﾞ ＧＰＴ４": "ガ gpt4",
        "カメラー々": "カ メ ラ ー 々",
        "갔다 \u1100\u1161": "갔 다 가",  # letters of a syllable are one
        "กิน ๑๒": "กิ น ๑๒",
        "ພາສາ": "ພ າ ສ າ",
        "ខ្មែរ": "ខ្ មែ រ",
        "မြန်မာ": "မြ န် မာ",
        "ไทย\u200bแล้ว": "ไ ท ย แ ล้ ว",
        "བོད་ཡིག": "བོད ཡིག",  # Tibetan divides syllables
        "👍🏽 ❤\ufe0f ... \u0301": "",
        "1\ufe0f\u20e3 m²": "1 m2",
    }.items(),
)
def test_words_by_hand(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "a cat, a DOG": "a cat a dog",
        "猫が好き": "猫が が好 好き 猫 好",  # kana count in pairs only
        "カメラを。は": "カメ メラ ラを は",  # a mark ends the run; alone it counts
        "2024年": "2024 年",
        "책을 읽다": "책을 책 을 읽다 읽 다",
        "กิน": "กิน",
        "ไทย\u200bแล้ว": "ไท ทย แล้ ล้ว",
    }.items(),
)
def test_terms_by_hand(text: str, expected: str) -> None:
    assert terms(text) == expected.split()


def test_tokens_hold_what_stands_between() -> None:
    assert tokens("Gut, ja?! 👍🏽👍 猫。") == ["gut", ",", "ja", "?!", "👍🏽👍", "猫", "。"]
    assert tokens(" \u200b\u00ad\ufe0f") == []


@given(ASCII)
def test_of_ascii_they_are_those_of_before(text: str) -> None:
    """BM25's was Python's word class in lower case; METEOR's is nltk's, which METEOR puts in lower case."""
    assert words(text) == terms(text) == re.findall(r"\w+", text.lower())
    assert tokens(text) == [token.lower() for token in wordpunct_tokenize(text)]
    assert fold(text) == text.lower()


@given(ANY)
@example("i\u0327\u0307")
def test_the_way_a_text_is_written_down_does_not_matter(text: str) -> None:
    for form in FORMS:
        assert fold(unicodedata.normalize(form, text)) == fold(text)
    assert fold(fold(text)) == fold(text)


@given(ANY)
def test_capitals_do_not_matter(text: str) -> None:
    assert terms(text.upper()) == terms(text.lower()) == terms(text)


@given(ANY)
def test_every_word_is_its_own_word(text: str) -> None:
    """And nothing but blanks is lost between tokens."""
    for word in words(text):
        assert words(word) == [word] == terms(word) == tokens(word)
    assert [token for token in tokens(text) if words(token)] == words(text)
    assert "".join(tokens(text)) == regex.sub(r"\s", "", fold(text))


@given(st.text(string.printable), st.text(string.printable))
def test_texts_apart_have_the_words_of_both(first: str, second: str) -> None:
    assert words(f"{first} {second}") == words(first) + words(second)
