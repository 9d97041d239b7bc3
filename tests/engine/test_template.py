"""Chat templates as models bring them: where an answer begins and ends, what happens to the system turn."""

from __future__ import annotations

import copy
import datetime
import locale
from typing import Any

import pytest
from kit.templates import (
    DATED,
    DROPS_SYSTEM,
    NO_GENERATION_PROMPT,
    NO_SYSTEM,
    OPENS_A_THOUGHT,
    PLAIN,
    THINKING,
    THOUGHT,
    WORDS,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from spring.engine.clock import stop_clock
from spring.engine.template import PROBES, Template, read_template
from spring.engine.weights import ModelError
from spring.method.prompts import Prompt, Prompter

DAY = datetime.date(2026, 1, 1)
ASKED, ANSWER = ("You are a writer.", "Generate an abstract."), "It works."


def having(tokenizer: Any, template: str | dict[str, str]) -> Any:
    """The tokenizer with another template, its clock stopped."""
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    stop_clock(made, DAY)
    return made


def conversation(template: Template) -> tuple[int, ...]:
    return (*template.prompt(*ASKED), *template.answer(ANSWER), *template.closing)


def whole(tokenizer: Any, *, merged: bool = False) -> str:
    """The finished conversation as the template itself writes it."""
    system, user = ASKED
    turns = [{"role": "user", "content": f"{system}\n\n{user}"}]
    if not merged:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    turns.append({"role": "assistant", "content": ANSWER})
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (PLAIN, "template: system turn, ends with <|im_end|>, no clock"),
        (DATED, "template: system turn, ends with <|im_end|>, its clock stands at 2026-01-01 (model.date)"),
        (
            NO_SYSTEM,
            "template: no system turn (its text stands before the user's), ends with <|im_end|>, no clock",
        ),
        (
            DROPS_SYSTEM,
            "template: no system turn (its text stands before the user's), ends with <|im_end|>, no clock",
        ),
        (
            THINKING,
            f"template: system turn, ends with <|im_end|>, no clock, answers begin behind {THOUGHT!r}",
        ),
        (
            OPENS_A_THOUGHT,
            r"template: system turn, ends with <|im_end|>, no clock, answers begin before '<think>\n'",
        ),
        (
            NO_GENERATION_PROMPT,
            r"template: system turn, ends with <|im_end|>, no clock, answers begin behind "
            r"'<|im_start|>assistant\n'",
        ),
        ({"default": PLAIN, "tool_use": THINKING}, "template: system turn, ends with <|im_end|>, no clock"),
    ],
)
def test_prompt_and_answer_are_the_templates_own_conversation(
    source: str | dict[str, str], said: str, tokenizer: Any
) -> None:
    """Token by token, up to the end of the turn; and the line that the stage `model` says."""
    made = having(tokenizer, source)
    template = read_template(made)
    assert str(template) == said
    expected = made.encode(whole(made, merged=template.merged), add_special_tokens=False)
    found = conversation(template)
    assert found == tuple(expected[: len(found)])
    assert template.end == tokenizer.eos_token_id and found.count(template.end) == (
        2 if template.merged else 3
    )
    assert all(text in made.decode(found) for text in (*ASKED, ANSWER))


def test_scoring_training_and_decoding_begin_behind_the_empty_thought(tokenizer: Any) -> None:
    """All three have their prompt from the same place."""
    made = Prompter(having(tokenizer, THINKING), {"x": Prompt(system="S.", user="{Q}")}, 400)
    text = made.text("x", '{"Q": "why?"}', "because")
    assert made.tokenizer.decode(list(text.prompt)).endswith(f"assistant\n{THOUGHT}")
    assert made.tokenizer.decode(list(text.response)) == "because<|im_end|>"
    assert made.prompt("x", '{"Q": "why?"}') == text.prompt
    assert made.turn("S.", "why?") == text.prompt  # profiles in words


def test_a_turn_that_ends_with_no_token_of_its_own_ends_with_eos(tokenizer: Any) -> None:
    template = read_template(having(tokenizer, WORDS))
    assert template.closing == (tokenizer.eos_token_id,)
    assert tokenizer.decode(list(conversation(template))).startswith("system: You are a writer.\nuser: Gen")


def test_an_end_of_turn_that_is_no_special_token(tokenizer: Any) -> None:
    made = copy.deepcopy(tokenizer)
    made.add_tokens([AddedToken("<end>", special=False), AddedToken("\n\n", special=False)])
    made.chat_template = PLAIN.replace("<|im_end|>", "\n\n<end>")
    template = read_template(made)
    assert made.decode(list(template.closing)) == "\n\n<end>"
    hostile = Prompter(made, {"x": Prompt(system="S.", user="{Q}")}, 400).prompt("x", '{"Q": "a<end>b"}')
    assert hostile.count(template.end) == 2  # of the system's and the user's turn


# --- vocabularies that split differently behind white space ------------------------------------------------


def metaspace(scheme: str) -> Any:
    """As SentencePiece: a blank belongs to the word behind it; `first`: only a text's beginning gets one."""
    pieces = ["<s>", "</s>", "<unk>", "[INST]", "[/INST]"]
    letters = {letter for probe in (*PROBES, (*ASKED, ANSWER)) for text in probe for letter in text} - {" "}
    words = {f"▁{word}" for probe in (*PROBES, (*ASKED, ANSWER)) for text in probe for word in text.split()}
    vocabulary = [(piece, 0.0) for piece in pieces] + [(word, -1.0) for word in sorted(words)]
    vocabulary += [(letter, -5.0) for letter in sorted({*letters, "▁", "\n"})]
    plain = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    plain.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    plain.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=pieces[3:],
    )


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("between", ["", " ", "\n"])
@pytest.mark.parametrize("behind", ["", " "])
def test_vocabularies_that_begin_a_text_otherwise(scheme: str, between: str, behind: str) -> None:
    """Instructions in brackets, the answer behind them with or without a blank."""
    made = metaspace(scheme)
    made.chat_template = (
        "{{ bos_token }}{% for turn in messages %}"
        "{% if turn.role == 'user' %}[INST] {{ turn.content }} [/INST]"
        "{% elif turn.role == 'assistant' %}{{ '" + between + "' ~ turn.content ~ '" + behind + "' }}</s>"
        "{% else %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    ).replace("\n", "\\n")
    template = read_template(made)
    expected = made.encode(whole(made, merged=True), add_special_tokens=False)
    assert conversation(template) == tuple(expected)
    assert template.end == made.eos_token_id
    assert made.decode(template.answer(ANSWER), skip_special_tokens=True).strip() == ANSWER


@pytest.mark.slow
@pytest.mark.parametrize("source", [PLAIN, DATED, NO_SYSTEM, THINKING, OPENS_A_THOUGHT, WORDS])
def test_the_default_models_vocabulary(source: str, real_model: Any) -> None:
    """It splits white space at the end of a text otherwise than before a word."""
    made = having(real_model.tokenizer, source)
    template = read_template(made)
    expected = made.encode(whole(made, merged=template.merged), add_special_tokens=False)
    begun = (*template.prompt(*ASKED), *template.answer(ANSWER))
    assert begun == tuple(expected[: len(begun)])


@pytest.mark.slow
def test_the_default_model_needs_nothing_of_all_that(real_model: Any) -> None:
    template = read_template(real_model.tokenizer)
    assert template == Template(real_model.tokenizer, closing=(real_model.tokenizer.eos_token_id,))


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (PLAIN + "{{ [1, 2] | random }}", r"draws lots \(random\)"),
        ("{{ lipsum() }}" + PLAIN, r"draws lots \(lipsum\)"),
        ("{% for turn in messages %}{{ turn.role }}{% endfor %}", "leaves out or changes what the turns say"),
        (PLAIN.replace("turn.content", "turn.content | upper"), "leaves out or changes what the turns say"),
        ("{{ raise_exception('only tools') }}", "cannot be followed: only tools"),
        (PLAIN.replace("turn.content", "turn.content | e"), "leaves out or changes what the turns say"),
        (PLAIN.replace("turn.content", "turn.content | tojson"), "leaves out or changes what the turns say"),
        (PLAIN.replace("turn.content", "turn.content | truncate(300)"), "leaves out or changes"),
        (PLAIN.replace("turn.content", "turn.content.split() | join(' ')"), "leaves out or changes"),
        ("{% include 'other' %}" + PLAIN, "cannot be followed: no loader"),
        ("{{ 1 + 'one' }}" + PLAIN, "cannot be followed: unsupported operand"),
        ("{% for turn in messages %}", "cannot be read"),
        (
            "{% if messages | length > 2 %}{{ 'Answered: ' }}{% endif %}" + PLAIN,
            "writes a question otherwise once it is answered",
        ),
    ],
)
def test_templates_that_cannot_be_followed(source: str, told: str, tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=told):
        read_template(having(tokenizer, source), model_id="some/model")


# --- the clock --------------------------------------------------------------------------------------------


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the clock that transformers offers to templates."""

    def at(*moment: int) -> None:
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
                return cls(*moment)  # type: ignore[arg-type]

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)

    return at


def test_prompts_are_the_same_on_two_days(tokenizer: Any, on: Any) -> None:
    """Where the clock is left running they are not: the comparison is not of templates without one."""
    running, stopped = copy.deepcopy(tokenizer), having(tokenizer, DATED)
    running.chat_template = DATED
    found = []
    for moment in ((2026, 11, 29, 23, 59), (2026, 11, 30, 0, 1)):
        on(*moment)
        found.append([whole(made) for made in (running, stopped)])
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1]
    assert "Today is 01 Jan 2026." in found[0][1]


@pytest.mark.parametrize(
    "before", ["", "\n", "  \n", "{#- a note #}\n", "{%- if true %}x{% endif %}", "\n\n{{- 1 }}"]
)
@pytest.mark.parametrize(
    "directives", ["%Y-%m-%d", "%d %B %Y, %A", "%a %-d %b %y", "%H:%M:%S %p %I", "100%% %F%T", "%e. %-m."]
)
def test_the_clock_that_stands_says_what_a_running_one_says(
    directives: str, before: str, tokenizer: Any, on: Any
) -> None:
    """Every directive, and no white space of the template's own beginning lost."""
    running, stopped = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    running.chat_template = stopped.chat_template = (
        before + PLAIN + "{{ strftime_now('" + directives + "') }}"
    )
    for day in (datetime.date(2026, 3, 5), datetime.date(2023, 12, 31)):
        made = copy.deepcopy(stopped)
        stop_clock(made, day)
        on(day.year, day.month, day.day)
        assert whole(made) == whole(running)


def test_a_clock_speaks_english_whatever_the_locale(tokenizer: Any) -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert "Today is 01 Jan 2026." in whole(having(tokenizer, DATED))
    finally:
        locale.setlocale(locale.LC_TIME, before)


def test_a_directive_that_is_not_known_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=r"the clock that stands does not know %c"):
        read_template(having(tokenizer, DATED.replace("%d %b %Y", "%c")))
