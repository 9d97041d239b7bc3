"""The clock of a chat template: stopped, so that prompts do not depend on the day.

transformers offers every template the function `strftime_now`. A macro of that name in front of the template
hides it; it says one date for good, in English whatever the locale.
"""

from __future__ import annotations

import datetime
from typing import Any

from spring.engine.weights import ModelError

CLOCK = "{#- the clock stands at "
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June"]
MONTHS += ["July", "August", "September", "October", "November", "December"]


def stop_clock(tokenizer: Any, date: datetime.date, *, model_id: str = "the model") -> None:
    """Gives a template that reads the clock one that stands at the beginning of `date`."""
    source = source_of(tokenizer, model_id)
    if "strftime_now" in names_in(source):
        tokenizer.chat_template = _standing(date) + source


def _standing(day: datetime.date) -> str:
    """A macro `strftime_now` for one moment, in Jinja; directives that it does not know are refused."""
    month, name = MONTHS[day.month - 1], DAYS[day.weekday()]
    said = {"%Y": f"{day.year:04}", "%y": f"{day.year % 100:02}", "%F": f"{day}"}
    said |= {"%m": f"{day.month:02}", "%-m": f"{day.month}", "%B": month, "%b": month[:3], "%h": month[:3]}
    said |= {"%d": f"{day.day:02}", "%-d": f"{day.day}", "%e": f"{day.day:2}", "%A": name, "%a": name[:3]}
    said |= {"%H": "00", "%I": "12", "%p": "AM", "%M": "00", "%S": "00", "%T": "00:00:00", "%z": "", "%Z": ""}
    pairs = ", ".join(f"({directive!r}, {word!r})" for directive, word in said.items())
    return (
        f"{CLOCK}{day} -#}}"
        "{%- macro strftime_now(format) -%}"
        "{%- set ns = namespace(text=format | replace('%%', '\\0')) -%}"
        f"{{%- for directive, word in [{pairs}] -%}}"
        "{%- set ns.text = ns.text | replace(directive, word) -%}"
        "{%- endfor -%}"
        "{%- if '%' in ns.text -%}"
        "{{ raise_exception('the clock that stands does not know ' ~ format) }}"
        "{%- endif -%}"
        "{{- ns.text | replace('\\0', '%') -}}"
        "{%- endmacro +%}"
    )


def shown_date(source: str) -> str | None:
    """What the clock of a template says that `stop_clock` has changed; null: it reads none."""
    return source[len(CLOCK) :].split(" ", 1)[0] if source.startswith(CLOCK) else None


def source_of(tokenizer: Any, model_id: str) -> str:
    """The template's text; of several, the one for plain conversations."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:  # transformers tells what there is
        raise ModelError(f"{model_id} has no chat template; choose an instruction-tuned model") from error


def tree_of(source: str) -> Any:
    """The template as transformers' own Jinja parses it."""
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return _compile_jinja_template(source).environment.parse(source)
    except TemplateError as error:
        raise ModelError(f"the chat template cannot be read: {error}") from None


def names_in(source: str) -> set[str]:
    """Variables, functions and filters that a template names."""
    from jinja2 import nodes

    tree = tree_of(source)
    return {node.name for kind in (nodes.Name, nodes.Filter) for node in tree.find_all(kind)}
