"""What a model's chat template does with a conversation, found out once, when its tokenizer is read.

A template is a program that came with the model. It may look at the clock, have no place for a system turn,
write something before the answer, or end turns with a token of its own. Whatever it is, an answer must begin
in training, scoring and decoding where the template's own assistant turn has its text. Templates that cannot
be followed are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spring.engine.clock import names_in, shown_date, source_of
from spring.engine.given import kwargs_of
from spring.engine.weights import ModelError

# Conversations that are written out and looked at: system, user, answer.
PROBES = (
    ("You are a writer of probes.", "Write about the number 7, please.", "It is a prime"),
    ("Other words for a system", "another question: why?", "Because (as they say) it rains."),
)
# What templates shorten, escape or put on one line
LONG = 'Of <b>many</b> lines & "marks":\n\n  - it\'s {one}\n  - \\two' + "\nand one more" * 200
CHANCE = {"random", "lipsum", "shuffle"}  # names in a template that give something else each time
WORD = "A"
MERGED = "{system}\n\n{user}"


@dataclass(frozen=True)
class Template:
    """How prompts and answers are made of a chat template, and what it is like."""

    tokenizer: Any
    merged: bool = False  # there is no system turn: its text stands before the user's
    cut: str = ""  # end of the generation prompt that no finished turn has
    opening: str = ""  # what a finished turn has before its text and the generation prompt has not
    closed: str = ""  # a thought that the generation prompt opens and closes, and no finished turn has
    ahead: str = ""  # a word that prompts are read before: white space at the end is split otherwise alone
    lead: str = ""  # blanks that belong to an answer's first token
    tail: str = ""  # text behind which an answer is read; empty: answers are read by themselves
    closing: tuple[int, ...] = ()  # tokens behind an answer, the last of which ends the turn
    date: str | None = None  # what its clock says; null: it reads none
    kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what it is given besides the turns

    def prompt(self, system: str, user: str) -> tuple[int, ...]:
        """Token ids of a conversation up to where the answer's text begins."""
        text = self._write(system, user)
        assert text.endswith(self.cut), "the end of a prompt depends on its text"
        tokens = self._encode(text[: len(text) - len(self.cut)] + self.opening + self.ahead)
        return tokens[: len(tokens) - len(self._encode(self.ahead))]

    def answer(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer behind a prompt, without what ends its turn."""
        before = self._encode(self.tail) if self.tail else ()
        return self._encode(self.tail + self.lead + text)[len(before) :]

    @property
    def end(self) -> int:
        """The token that ends a turn; Gemma's is not the tokenizer's eos."""
        return self.closing[-1]

    def __str__(self) -> str:
        system = "no system turn (its text stands before the user's)" if self.merged else "system turn"
        shown = self.tokenizer.convert_ids_to_tokens(self.end)
        clock = f"its clock stands at {self.date} (model.date)" if self.date else "no clock"
        given = "".join(f", {name} is {json.dumps(value)}" for name, value in self.kwargs.items())
        begins = f", answers begin behind {self.opening!r}" if self.opening else ""
        begins += f", answers begin before {self.cut!r}" if self.cut else ""
        begins += f", answers begin behind {self.closed!r} (finished ones lack it)" if self.closed else ""
        return f"template: {system}, ends with {shown}, {clock}{given}{begins}"

    def _write(self, system: str, user: str, answer: str | None = None) -> str:
        """The conversation as the template writes it; without an answer, up to its place."""
        if self.merged:
            user = MERGED.format(system=system, user=user) if system else user
            turns = [{"role": "user", "content": user}]
        else:
            turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        written = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=answer is None, **self.kwargs
        )
        return str(written)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))


# --- found out --------------------------------------------------------------------------------------------


def read_template(
    tokenizer: Any, kwargs: Mapping[str, Any] | None = None, *, model_id: str = "the model"
) -> Template:
    """What its chat template does, given `kwargs`; `ModelError` where it cannot be followed."""
    source = source_of(tokenizer, model_id)
    if found := CHANCE & names_in(source):
        raise ModelError(
            f"the chat template of {model_id} draws lots ({', '.join(sorted(found))}): prompts would differ "
            f"from run to run; put a template without it into the model's folder"
        )
    given = kwargs_of(tokenizer, kwargs or {}, model_id=model_id)
    plain = Template(tokenizer, date=shown_date(source), kwargs=given)
    for template in _ways(_with_system(plain, model_id), model_id):
        found_closing = [_closing(template, *probe) for probe in PROBES]
        if None not in found_closing and len(set(found_closing)) == 1:
            return replace(template, closing=found_closing[0] or (tokenizer.eos_token_id,))
    raise ModelError(
        f"the chat template of {model_id} writes an answer in other tokens than those of prompt and answer "
        f"one behind the other; put a template that separates them into the model's folder"
    )


def _with_system(plain: Template, model_id: str) -> Template:
    """With a system turn if the template has one and keeps its text, else before the user's."""
    from jinja2.exceptions import TemplateError

    said = "it leaves out or changes what the turns say"
    for template in (plain, replace(plain, merged=True)):
        try:
            if all(_keeps(template, probe) for probe in (*PROBES, (f"A{LONG}", f"B{LONG}", f"C{LONG}"))):
                return template
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
        ) as error:  # it is a program
            said = str(error)
    raise ModelError(f"the chat template of {model_id} cannot be followed: {said}; use another model")


def _keeps(template: Template, probe: tuple[str, str, str]) -> bool:
    """Whether all texts stand in the conversation, the answer last."""
    system, user, answer = probe
    before = template._write(system, user)
    whole, _, _ = template._write(system, user, answer).rpartition(answer)
    return all(text in written for text in (system, user) for written in (before, whole))


def _ways(template: Template, model_id: str) -> Iterator[Template]:
    """Ways to put prompt and answer one behind the other, the plainest first.

    The generation prompt as it is, also where it has more than a finished turn, if that is a thought that is
    over before the answer; up to where a finished turn has its text; the same, its last white space
    read as before a word; with blanks read as part of the answer, as byte-level vocabularies have them; with
    the answer read behind what stands before it, as SentencePiece begins a text otherwise than a word.
    """
    yield template
    found = set()
    for system, user, answer in PROBES:
        prompt = template._write(system, user)
        turn, _, _ = template._write(system, user, answer).rpartition(answer)
        shared = _shared(prompt, turn)
        if user not in shared:
            raise ModelError(
                f"the chat template of {model_id} writes a question otherwise once it is answered; use "
                f"another model"
            )
        bare = turn.rstrip(" ")
        short = _shared(prompt, bare)
        tail = turn[turn.rindex(user) + len(user) :]
        found.add(
            (
                replace(template, cut=prompt[len(shared) :], opening=turn[len(shared) :], tail=tail),
                replace(
                    template, cut=prompt[len(short) :], opening=bare[len(short) :], lead=turn[len(bare) :]
                ),
            )
        )
    if len(found) == 1:
        whole, blank = found.pop()
        if not whole.opening and _closes(template, whole.cut):
            yield replace(template, closed=whole.cut)
        yield replace(whole, tail="")
        yield replace(whole, tail="", ahead=WORD)
        yield blank
        yield whole


def _closes(template: Template, text: str) -> bool:
    """Whether as many tokens of its own kind end something in a text as begin something."""
    added = template.tokenizer.added_tokens_decoder
    marks = [token for token in template._encode(text) if token in added and str(added[token]).strip()]
    return len(marks) > 0 and len(marks) % 2 == 0


def _shared(first: str, second: str) -> str:
    """What two texts begin with."""
    differ = (i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return first[: next(differ, min(len(first), len(second)))]


def _closing(template: Template, system: str, user: str, answer: str) -> tuple[int, ...] | None:
    """Tokens from an answer's end to that of its turn; null: prompt and answer are not how the turn begins.

    Empty: the turn ends with no token of its own.
    """
    turn, _, end = template._write(system, user, answer).rpartition(answer)
    whole = template._encode(turn + template.closed + answer + end)
    begun = template.prompt(system, user) + template.answer(answer)
    if whole[: len(begun)] != begun:
        return None
    rest = whole[len(begun) :]
    added = template.tokenizer.added_tokens_decoder
    for kind in (lambda token: token.special, lambda token: str(token).strip()):  # Gemma has added blanks
        ends = [i for i, number in enumerate(rest) if number in added and kind(added[number])]
        if ends:
            return rest[: ends[0] + 1]
    return ()
