"""Chat templates of the families in use: where answers stand, and what may be said besides the turns."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest
from kit.families import EMPTY, EOS, FORMS, Form
from kit.templates import PLAIN, THINKING

from spring.engine.clock import stop_clock
from spring.engine.template import Template, read_template
from spring.engine.weights import ModelError

ANSWER = "It works."


def having(tokenizer: Any, form: Form) -> Any:
    """The tokenizer with a family's template and the words of it as tokens, its clock stopped."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"bos_token": "<bos>", "eos_token": EOS})
    made.add_tokens(list(form.words), special_tokens=True)
    made.chat_template = form.source
    stop_clock(made, datetime.date(2026, 1, 1))
    return made


def shown(template: Template) -> str:
    """A prompt and its answer as text."""
    tokens = (*template.prompt("S", "U"), *template.answer(ANSWER), *template.closing)
    return str(template.tokenizer.decode(tokens))


@pytest.mark.parametrize("family", FORMS)
def test_an_answer_stands_where_the_family_has_it(family: str, tokenizer: Any) -> None:
    form = FORMS[family]
    template = read_template(having(tokenizer, form))
    assert str(template) == f"template: {form.said}"
    assert shown(template) == f"{form.asked}{ANSWER}{form.end}"


@pytest.mark.parametrize("family", FORMS)
def test_it_is_the_templates_own_conversation(family: str, tokenizer: Any) -> None:
    """Token by token against what transformers makes of it; Gemma 4 leaves a closed channel out of it."""
    form = FORMS[family]
    made = having(tokenizer, form)
    template = read_template(made)
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    if template.merged:
        turns = [{"role": "user", "content": "S\n\nU"}]
    whole = made.apply_chat_template(
        [*turns, {"role": "assistant", "content": ANSWER}], tokenize=False, **template.kwargs
    ).replace(ANSWER, template.closed + ANSWER)
    expected = made.encode(whole, add_special_tokens=False)
    prompt, answer = template.prompt("S", "U"), template.answer(ANSWER)
    found = (*prompt, *answer, *template.closing)
    assert found == tuple(expected[: len(found)])
    assert made.decode(answer).strip() == ANSWER
    assert made.decode([template.end]) == form.end


# --- what it is given -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "given", "part"),
    [
        ("qwen3", {"enable_thinking": True}, f"assistant\n{EMPTY}It"),  # as its finished turns have it
        ("qwen3.5", {"enable_thinking": True}, f"assistant\n{EMPTY}It"),
        ("smollm3", {"enable_thinking": True}, "Mode: /think\n\nS\n\n<|im_end|>\n"),
        ("smollm3", {"enable_thinking": True}, "<|im_start|>assistant\nIt"),
        ("gemma4", {"enable_thinking": True}, "system\n<|think|>\nS<turn|>"),
        ("llama3.2", {"date_string": "1 May 2025"}, "Today Date: 1 May 2025\n\nS"),
        ("gpt-oss", {"reasoning_effort": "low"}, "Reasoning: low<|end|>"),
    ],
)
def test_what_is_given_stands_in_the_conversation(
    family: str, given: dict[str, Any], part: str, tokenizer: Any
) -> None:
    template = read_template(having(tokenizer, FORMS[family]), given)
    [(name, value)] = given.items()
    assert f"{name} is {value if isinstance(value, str) else 'true'}" in str(template).replace('"', "")
    assert part in shown(template)


@pytest.mark.parametrize(
    ("family", "read"),
    [
        ("qwen3", "it reads enable_thinking"),
        ("smollm3", "it reads enable_thinking"),
        ("gemma4", "it reads enable_thinking"),
        ("llama3.2", "it reads date_string"),
        ("gpt-oss", "it reads reasoning_effort"),
        ("gemma3", "it reads nothing besides the turns"),  # what it sets itself is no question
        ("phi4-mini", "it reads nothing besides the turns"),
    ],
)
@pytest.mark.parametrize(
    "name", ["enable_thinkin", "messages", "tools", "bos_token", "add_generation_prompt", "raise_exception"]
)
def test_what_the_template_does_not_read_is_refused(
    name: str, family: str, read: str, tokenizer: Any
) -> None:
    made = having(tokenizer, FORMS[family])
    told = rf"model\.chat_template_kwargs has {name}, which the chat template of some/model does not"
    with pytest.raises(ModelError, match=rf"{told} read; {read}$"):
        read_template(made, {name: True}, model_id="some/model")


def test_templates_that_read_nothing_are_given_nothing(tokenizer: Any) -> None:
    for source in (PLAIN, THINKING):
        made = copy.deepcopy(tokenizer)
        made.chat_template = source
        template = read_template(made)
        assert template.kwargs == {} and "enable_thinking" not in str(template)
        with pytest.raises(ModelError, match=r"has enable_thinking, which .* it reads nothing besides"):
            read_template(made, {"enable_thinking": False})
