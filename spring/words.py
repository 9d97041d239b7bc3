r"""What counts as a word, in any script: the tokens of BM25, ROUGE and METEOR.

Of ASCII they are what each of the three had always: runs of letters, digits and underscores, in lower case.
Beyond it:

- What Unicode holds compatible is equal (NFKC: composed or not, of full width or half), and so are capitals
  and small letters of every language: ß is ss, ς is σ; and as nothing says which texts are Turkish, I, İ, i
  and ı are all i. Accents, vowel signs and harakat count, and stay with their letter. Invisible characters
  (soft hyphens, joiners, directions) go, and so does the stroke that lengthens Arabic words (tatweel); a
  zero-width space parts words.
- Digits of every script are words, or parts of them.
- Scripts without blanks (Chinese, Japanese; Thai, Lao, Khmer, Burmese and their neighbours) and Korean, whose
  words end in particles, give their characters, each with its marks: the unit of ROUGE for Chinese (Hu et al.
  2015, "LCSTS"). Words would take a dictionary per language, and change with its versions. For retrieval
  single characters say too little: see `terms`.

By `regex`, which nltk brings along: Python's `re` knows no scripts, no marks (its \w ends at a Hindi vowel
sign) and no classes of line breaking. Unicode's annexes 14 (class SA, "complex context": the scripts of South
East Asia without blanks), 15 (NFKC), 24 (scripts), 31 (NFKC_Casefold).
"""

from __future__ import annotations

from itertools import pairwise
from unicodedata import normalize

import regex

IDEOGRAPHS = r"[[\p{L}\p{Nl}]&&[\p{Script=Han}\p{Script=Hangul}]]"  # a character is often a word
PHONETIC = r"[\p{L}&&[\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{Line_Break=SA}]]"
UNSPACED = f"[{IDEOGRAPHS}{PHONETIC}]"
SPACED = rf"[[\p{{L}}\p{{N}}_]--{UNSPACED}]"
MARKS = r"[\p{Mn}\p{Mc}]"
CHARACTER, WORD = rf"{UNSPACED}{MARKS}*+", rf"{SPACED}[{SPACED}{MARKS}]*+"
OTHER = r"[^\s\p{L}\p{N}_]++"

FLAGS = regex.VERSION1  # sets in sets
INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\u0640]", FLAGS)
CHARACTERS = regex.compile(CHARACTER, FLAGS)
IDEOGRAPH = regex.compile(IDEOGRAPHS, FLAGS)
WORDS = regex.compile(f"{WORD}|{CHARACTER}", FLAGS)
RUNS = regex.compile(f"{WORD}|(?:{CHARACTER})++", FLAGS)
TOKENS = regex.compile(f"{WORD}|{CHARACTER}|{OTHER}", FLAGS)


def fold(text: str) -> str:
    """A text in the form that words are compared in; of ASCII its lower case."""
    if text.isascii():
        return text.lower()
    text = INVISIBLE.sub("", text.replace("\u200b", " "))  # zero-width space
    text = normalize("NFKD", text).casefold().replace("i\u0307", "i").replace("ı", "i")
    return normalize("NFKC", text)


def words(text: str) -> list[str]:
    """The words of a text in order; characters of scripts without blanks."""
    found: list[str] = WORDS.findall(fold(text))
    return found


def tokens(text: str) -> list[str]:
    """Its words, and what stands between them but for blanks: runs of punctuation, signs, emoji."""
    found: list[str] = TOKENS.findall(fold(text))
    return found


def terms(text: str) -> list[str]:
    """What a text is searched by: its words; of scripts without blanks the neighbouring characters in pairs.

    As Lucene's CJKAnalyzer does (Nie et al. 2000, "On the use of words and n-grams for Chinese information
    retrieval"): most characters stand in most texts. A character by itself counts where it has no neighbour,
    and [ours] an ideograph or a syllable of Korean always: it may be a whole word.
    """
    found: list[str] = []
    for run in RUNS.findall(fold(text)):
        characters = [] if run.isascii() else CHARACTERS.findall(run)
        if len(characters) < 2:
            found.append(run)
        else:
            found += [first + second for first, second in pairwise(characters)]
            found += filter(IDEOGRAPH.match, characters)
    return found
