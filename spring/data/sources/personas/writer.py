"""The grammar that turns a preference and a product into a review.

A review is a row of beats (opening, story, observations, verdict, ...) in the order of the preference's
structure, each beat in its tone, then spelled and punctuated its way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from spring.data.sources.personas import bank, catalogue, profiles, voices
from spring.data.sources.personas.profiles import Feature, Person, Preference, Product

FAVOURITE_SHARE = 0.75  # of the choices in a bank fall on the half of it that the preference favours
STRUCTURE_SHARE = 0.85  # of the reviews follow the preferred structure, the rest any
CATCHPHRASE_SHARE, SIGN_OFF_SHARE = 0.6, 0.9


@dataclass(frozen=True)
class Writer:
    """One review in the making: who writes, how, about what, and the random stream of this interaction."""

    person: Person
    preference: Preference
    product: Product
    rating: int
    rng: Random
    said: set[str] = field(default_factory=set)  # phrases in use, so that none comes twice

    def observed(self) -> list[tuple[Feature, bool]]:
        """The features that the review judges, dearest aspect first, and whether the judgement is good."""
        count = voices.LENGTHS[self.preference.length][0]
        count = max(count, 2) if self.rating == 3 else count
        dearest = sorted(self.product.features, key=lambda f: self.preference.care.index(f.aspect))[:count]
        signs = [self.rating > 3 or (self.rating == 3 and place % 2 == 0) for place in range(count)]
        if self.rating in (2, 4) and count > 1:  # a shade, half of the time
            signs[-1] ^= Random(f"{self.preference.key}/{self.product.name}/shade").random() < 0.5
        return list(zip(dearest, signs, strict=True))

    def summary(self) -> str:
        """The headline; it follows rating and observations but none of the writer's habits."""
        observed = self.observed()
        lead = next(f for f, good in observed if good == (self.rating >= 3))
        other = next((f for f, good in observed if good != (self.rating >= 3)), lead)
        m, n = (f.mention.removeprefix("the ") for f in (lead, other))
        template = self.rng.choice(bank.SUMMARIES[self.rating])
        return template.format_map(
            {"T": self.product.head, "B": self.product.brand, "m": m, "n": n, "M": _upper(m)}
        )

    def review(self, context: str | None = None) -> str:
        """The whole text; `context` opens a review written for somebody else."""
        full = voices.LENGTHS[self.preference.length][1]
        blocks: list[list[str]] = [[]]
        for place, beat in enumerate(self._beats()):
            if place and not full and beat in voices.OPTIONAL_BEATS:
                continue
            if beat in _LISTS:
                blocks += [[line] for line in getattr(self, _LISTS[beat])()] + [[]]
            else:
                blocks[-1] += self._prose(beat)
        text = "\n".join(self._punctuated(block) for block in blocks if block)
        text = self._spelled(text)
        if context is not None:
            text = f"{context} {text}"
        if self.rng.random() < SIGN_OFF_SHARE:
            text += ("\n" if "\n" in text else " ") + self._sign_off()
        return text

    # --- beats ---

    def _beats(self) -> tuple[str, ...]:
        usual = self.rng.random() < STRUCTURE_SHARE
        return voices.STRUCTURES[
            self.preference.structure if usual else self.rng.choice(list(voices.STRUCTURES))
        ]

    def _prose(self, beat: str) -> list[str]:
        tone = voices.TONES[self.preference.tone]
        liked = self.rating >= 4
        match beat:
            case "opening" | "story":
                return [self._say(getattr(tone, beat))]
            case "verdict":
                return [self._verdict(tone)]
            case "observations":
                return [self._observation(f, good, tone) for f, good in self.observed()]
            case "advice":
                return [] if self.rating == 3 else [self._say(tone.advice if liked else tone.warning)]
            case "question":
                return [self._say(bank.QUESTIONS, **self.observed()[0][0].slots())]
            case "ask-back":
                return [self._say(bank.ASK_BACK)]
        assert beat == "compare", beat
        better = liked or (self.rating == 3 and self.rng.random() < 0.5)
        return [self._say(bank.COMPARE[0 if better else 1])]

    def _verdict(self, tone: voices.Tone) -> str:
        options = tone.good if self.rating >= 4 else tone.mixed if self.rating == 3 else tone.bad
        verdict = self._say(options)
        if self.rng.random() < CATCHPHRASE_SHARE:
            verdict = f"{self.preference.catchphrase}, {self._lower(verdict)}"
        return verdict

    def _observation(self, feature: Feature, good: bool, tone: voices.Tone) -> str:
        return self._say(tone.plus if good else tone.minus, c=self._clause(feature, good))

    def _clause(self, feature: Feature, good: bool, *, named: bool = False) -> str:
        """An observation; where the feature has just been `named`, a pronoun may open it."""
        clause = self._fresh(bank.ASPECTS[feature.aspect][0 if good else 1])
        slots = feature.slots()
        if named and clause.startswith("{F}"):
            slots["F"] = "they" if feature.plural else "it"
        return self._fill(clause, **slots)

    def _pros_and_cons(self) -> list[str]:
        said: dict[bool, list[str]] = {True: [], False: []}
        for feature, good in self.observed():
            said[good].append(self._clause(feature, good))
        pros = "; ".join(said[True]) or self._say(bank.NOTHING_GOOD)
        cons = "; ".join(said[False]) or self._say(bank.NOTHING_BAD)
        return [f"Pros: {pros}", f"Cons: {cons}"]

    def _numbered(self) -> list[str]:
        return [
            f"{n}) {_upper(self._clause(f, good))}" for n, (f, good) in enumerate(self.observed(), start=1)
        ]

    def _self_interview(self) -> list[str]:
        answers = ((f, _upper(self._clause(f, good, named=True))) for f, good in self.observed())
        return [f"{_upper(f.mention)}? {answer}" for f, answer in answers]

    def _scorecard(self) -> list[str]:
        card = []
        for feature, good in self.observed():
            stars = self.rng.choice((4, 5) if good else (1, 2))
            name = _upper(feature.mention.removeprefix("the "))
            card.append(f"{name} {stars}/5: {self._clause(feature, good, named=True)}")
        return card

    # --- words ---

    def _say(self, options: tuple[str, ...], **slots: str) -> str:
        """One line of a bank, mostly one of this preference's favourites, with its slots filled."""
        favourites = profiles.favourites(self.preference.key, options)
        favoured = self.rng.random() < FAVOURITE_SHARE
        return self._fill(self._fresh(options, favourites if favoured else []), **slots)

    def _fresh(self, options: Sequence[str], favourites: Sequence[str] = ()) -> str:
        """A phrase that this review has not used yet: of the favourites while there are any, else of all."""
        for pool in (favourites, options):
            unused = [phrase for phrase in pool if phrase not in self.said]
            if unused:
                break
        phrase = self.rng.choice(unused or options)
        self.said.add(phrase)
        return phrase

    def _fill(self, template: str, **slots: str) -> str:
        rng, habits = self.rng, self.preference
        distance = (
            ("6 km", "15 km", "21 km")
            if self.person.units == "metric"
            else ("4 miles", "9 miles", "13 miles")
        )
        words = {
            "T": self.product.head,
            "B": self.product.brand,
            "rival": rng.choice([name for name in catalogue.BRANDS if name != self.product.brand]),
            "who": self.person.companion,
            "span": rng.choice(("three weeks", "two months", "five weeks", "half a year", "a month")),
            "days": rng.choice(("two days", "four days", "a week", "ten days", "three days")),
            "dist": rng.choice(distance),
            "int": habits.intensifier,
            "good": habits.good,
            "bad": habits.bad,
            **slots,
        }
        if "{use}" in template:
            words["use"] = rng.choice(catalogue.USES[self.product.category]).format_map(words)
        return template.format_map(words)

    def _sign_off(self) -> str:
        name = self.person.name
        return self.preference.sign_off.format(name=name, initial=name[0], town=self.person.town)

    def _lower(self, sentence: str) -> str:
        keeps = sentence.startswith(("I ", "I'", self.product.brand))
        return sentence if keeps else sentence[0].lower() + sentence[1:]

    def _punctuated(self, sentences: list[str]) -> str:
        between, last = voices.PUNCTUATION[self.preference.punctuation]
        text = _upper(sentences[0])
        for sentence in sentences[1:]:
            if text[-1] in "?!.:":
                text += " " + _upper(sentence)
            else:
                text += between + (self._lower(sentence) if between == " - " else _upper(sentence))
        return text if text[-1] in "?!." else text + last

    def _spelled(self, text: str) -> str:
        habits = self.preference
        match habits.spelling:
            case "lower":
                return text.lower()
            case "shouting":
                loud = rf"\b({habits.intensifier}|{habits.good}|{habits.bad}|never|every)\b"
                return re.sub(loud, lambda m: m[0].upper(), text)
            case "texting":
                return _replaced(text, voices.TEXTING)
            case "contracted":
                return _replaced(text, voices.CONTRACTED)
            case "no-apostrophe":
                return _replaced(text, voices.CONTRACTED).replace("'", "")
        return text


_LISTS = {
    "pros-cons": "_pros_and_cons",
    "numbered": "_numbered",
    "self-interview": "_self_interview",
    "scorecard": "_scorecard",
}


def _replaced(text: str, table: dict[str, str]) -> str:
    for pattern, replacement in table.items():
        text = re.sub(pattern, replacement, text)
    return text


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
