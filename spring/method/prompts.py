"""Prompts: a query, with or without retrieved context, as the model's own chat template gives it.

The wording of the tasks is the paper's (section 4.1) and lies in params.yaml; the chat template is the
model's own [ours; the paper uses a plain System / User / Assistant one]. Retrieved items stand before the
query in the user's turn [ours; the paper does not print its template], and a profile in words, for arms that
have one, before both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spring.engine.cuts import Cuts
from spring.engine.strict import Strict
from spring.engine.template import Template, read_template
from spring.engine.texts import Text

CONTEXT = "Here is what this user wrote before:\n\n{items}\n\nIn the same way: {query}"
ITEM = "{query}\n{response}"
QUERY_SHARE = 0.75  # of max_length, for the prompt of a query alone [ours]: the rest is its response's
PROFILE = "About this user: {profile}\n\n{query}"


class Prompt(Strict):
    """How one task is put to the model."""

    system: str  # as it stands
    user: str  # {FIELD} stands for a query field


@dataclass(frozen=True)
class Prompter:
    """Turns interactions into token ids, one format for every arm.

    `max_length` bounds prompt and response together, in tokens: first the fields of a query that would take
    more than `QUERY_SHARE` of it are cut, then the end of a response that does not fit behind it.
    """

    tokenizer: Any
    prompts: Mapping[str, Prompt]
    max_length: int
    template: Template | None = None  # null: read from the tokenizer

    def request(self, task: str, query: str) -> str:
        """The user's turn for a query (a JSON object of prompt fields) of `task`."""
        if (task, query) not in self._requests:
            self._requests[task, query] = self._request(task, query)
        return self._requests[task, query]

    def _request(self, task: str, query: str) -> str:
        """The turn, its fields cut if the prompt would take more than `QUERY_SHARE` of `max_length`.

        All fields to the same number of tokens, the largest that fits: short ones stay whole.
        """
        prompt, most = self._prompt(task), int(QUERY_SHARE * self.max_length)
        fields = {name: self.plain(str(value)) for name, value in json.loads(query).items()}

        def filled(each: int | None) -> tuple[str, int]:
            """The turn with `each` tokens of every field, and how many the prompt then has."""
            kept = fields if each is None else {name: self.cut(text, each) for name, text in fields.items()}
            try:
                user = prompt.user.format_map(kept)
            except KeyError as error:
                raise ValueError(
                    f"prompts.{task}.user asks for the field {error}, which the query lacks; "
                    f"it has {sorted(fields)}"
                ) from None
            return user, len(self.turn(prompt.system, user))

        user, tokens = filled(None)
        if tokens <= most:
            return user
        user, bare = filled(0)
        if bare > most:
            raise ValueError(
                f"prompts.{task} takes {bare} tokens without any field, and a prompt may take {most} of "
                f"model.max_length, {self.max_length}: raise it, or shorten prompts.{task}"
            )
        self.cuts.add(f"{task} {query}", tokens)
        low, high = 0, most  # what fits, and what does not: the prompt has tokens of its own
        while high - low > 1:
            middle = (low + high) // 2
            longer, tokens = filled(middle)
            if tokens <= most:
                low, user = middle, longer
            else:
                high = middle
        return user

    def prompt(
        self, task: str, query: str, context: Sequence[tuple[str, str]] = (), profile: str = ""
    ) -> tuple[int, ...]:
        """Token ids up to the point where the response begins.

        `context` holds (query, response) pairs, `profile` what is known of the user in words.
        """
        request = self.request(task, query)
        if context:
            items = (ITEM.format(query=self.request(task, q), response=self.plain(r)) for q, r in context)
            # cut [ours]: long ones must not crowd out the query
            kept = "\n\n".join(self.cut(item, self.max_length) for item in items)
            request = CONTEXT.format(items=kept, query=request)
        if profile:
            request = PROFILE.format(profile=self.plain(profile), query=request)
        return self.turn(self._prompt(task).system, request)

    def turn(self, system: str, user: str) -> tuple[int, ...]:
        """Token ids of a chat up to the point where the model's answer begins."""
        return self.chat.prompt(system, user)

    def text(
        self,
        task: str,
        query: str,
        response: str,
        *,
        context: Sequence[tuple[str, str]] = (),
        profile: str = "",
        slot: int = -1,
    ) -> Text:
        """Prompt and response for scoring or training; the response ends as the template ends a turn.

        The response keeps the same tokens whatever the context and profile, so that likelihoods can be
        compared: its cut depends on the prompt without them.
        """
        bare = self.prompt(task, query)
        room = self.max_length - len(bare)
        assert room > 0, "a query leaves room"
        answer = self.chat.answer(self.plain(response)) + self.chat.closing
        prompt = self.prompt(task, query, context, profile) if context or profile else bare
        return Text(prompt, answer[:room], slot)

    @staticmethod
    def shown(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """What a prompt shows of past interactions, as `context`."""
        return [(row["query"], row["response"]) for row in rows]

    def cut(self, text: str, most: int) -> str:
        """The beginning of a text, of at most `most` tokens when it is read again.

        Half a character at the cut becomes a sign that takes more tokens than it had: then one fewer is kept.
        """
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        kept, count = text, min(len(tokens), most)
        while len(self.tokenizer.encode(kept, add_special_tokens=False)) > most:
            kept, count = self.decode(tokens[:count]), count - 1
        return kept

    def plain(self, text: str) -> str:
        """User text that cannot pose as a turn of the chat: control tokens in it become plain words."""
        for token in self._control:
            if token in text:
                text = text.replace(token, " ".join((token[0], token[1:])))
        return text

    @cached_property
    def _control(self) -> list[str]:
        """All tokens that stand for something else than their letters, as special or to the template."""
        added = self.tokenizer.added_tokens_decoder.values()
        source = self.tokenizer.get_chat_template()
        special = {str(token) for token in added if token.special}
        shown = {str(token) for token in added if str(token).strip() and str(token) in source}
        return sorted({*self.tokenizer.all_special_tokens, *special, *shown})

    @cached_property
    def chat(self) -> Template:
        """The model's chat template, and where in it an answer stands."""
        return self.template or read_template(self.tokenizer)

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        return self.chat.end

    @cached_property
    def cuts(self) -> Cuts:
        """The queries that were cut."""
        return Cuts(
            f"model.max_length: of queries whose prompt takes over {int(QUERY_SHARE * self.max_length)} "
            f"tokens, {QUERY_SHARE:.0%} of {self.max_length}, the longest fields are cut (docs/data.md)"
        )

    @cached_property
    def _requests(self) -> dict[tuple[str, str], str]:
        return {}

    def decode(self, tokens: Sequence[int]) -> str:
        """Generated tokens as text."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _prompt(self, task: str) -> Prompt:
        if task not in self.prompts:
            raise ValueError(
                f"no prompt for the task {task!r}: add prompts.{task}; there are {sorted(self.prompts)}"
            )
        return self.prompts[task]
