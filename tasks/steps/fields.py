"""The fields that queries hold and prompts ask for."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass

import polars as pl

from spring.method.prompts import Prompt
from spring.settings.params import ParameterError


@dataclass(frozen=True)
class Asked:
    """What the queries of a task hold."""

    first: dict[str, str]  # the first one
    given: set[str]  # the fields that all have


class Fields:
    """What queries hold, task by task."""

    def __init__(self) -> None:
        self._tasks: dict[str, Asked] = {}

    def add(self, rows: pl.DataFrame) -> None:
        """More interactions."""
        for task, query in rows.select("task", "query").iter_rows():
            fields = json.loads(query)
            asked = self._tasks.setdefault(task, Asked(fields, set(fields)))
            asked.given.intersection_update(fields)

    def check(self, prompts: dict[str, Prompt]) -> None:
        """Raises `ParameterError` if a task has no prompt or its prompt asks for what a query lacks."""
        for task, asked in self._tasks.items():
            if task not in prompts:
                raise ParameterError(
                    f"the rows are of task {task!r}, which prompts lacks: add prompts.{task} "
                    f"(there are {sorted(prompts)})"
                )
            _check(task, asked, prompts[task])


def _check(task: str, asked: Asked, prompt: Prompt) -> None:
    unknown = sorted(fields_of(prompt.user, f"prompts.{task}.user") - asked.given)
    if unknown:
        raise ParameterError(
            f"prompts.{task}.user asks for {unknown}; the queries of ingest have {sorted(asked.given)}. "
            f"A brace itself is written {{{{ or }}}}"
        )
    try:
        prompt.user.format_map(asked.first)
    except (ValueError, LookupError, AttributeError) as error:
        raise ParameterError(
            f"prompts.{task}.user cannot be filled: {error}; a field is written {{NAME}}, a brace itself "
            f"{{{{ or }}}}"
        ) from None
    unfilled = [name for name in sorted(asked.given) if f"{{{name}}}" in prompt.system]
    if unfilled:
        raise ParameterError(
            f"prompts.{task}.system holds {{{unfilled[0]}}}, but it is read as it stands: move the field "
            f"to prompts.{task}.user"
        )


def fields_of(template: str, key: str) -> set[str]:
    """The fields that a prompt asks for; raises `ParameterError` where it is no template."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ParameterError(f"{key}: {error}; a brace itself is written {{{{ or }}}}") from None
