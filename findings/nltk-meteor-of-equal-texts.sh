#!/usr/bin/env bash
# nltk 3.10.4, nltk.translate.meteor_score.single_meteor_score.
#
# Seen: an answer that is its reference, token for token, scores 1 - 0.5 / m^3 for m tokens: 0.5 for one word,
# 0.9375 for two, 0.9815 for three. So "positive" as the answer to "positive" is half right, and less right than
# a long answer with a mistake in it.
# Expected: 1. The fragmentation penalty is for matches that lie in pieces, and here is one piece, the whole text;
# METEOR's own program gives no penalty then.
# Why it matters here: answers of personalised models are often short (a title, a rating, a tag), and a check that
# a text scores 1 against itself, which ROUGE and chrF pass, fails for METEOR alone. Means over short answers are
# lower than METEOR means elsewhere, the more the shorter the answers of a user are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nltk==3.10.4
"$folder/venv/bin/python" - <<'PYTHON'
from nltk.translate.meteor_score import single_meteor_score


class NoSynonyms:
    """In the place of WordNet, whose corpus would have to be downloaded."""

    def synsets(self, word):
        return []


def score(reference, answer):
    return single_meteor_score(reference.split(), answer.split(), wordnet=NoSynonyms())


for m in (1, 2, 3, 10):
    text = " ".join(f"word{i}" for i in range(m))
    found, formula = score(text, text), 1 - 0.5 / m**3
    print(f"{m:2} equal tokens: {found:.4f} (1 - 0.5 / m^3 = {formula:.4f})")
    assert abs(found - formula) < 1e-9, "this has changed"
long = " ".join(f"word{i}" for i in range(20))
nearly = long.replace("word19", "other")
print(f"20 tokens, the last one wrong: {score(long, nearly):.4f}")
assert score("yes", "yes") < score(long, nearly), "this has changed"
PYTHON
