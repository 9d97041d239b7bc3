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

from spring.engine.strict import Strict
from spring.engine.texts import Text

CONTEXT = "Here is what this user wrote before:\n\n{items}\n\nIn the same way: {query}"
ITEM = "{query}\n{response}"
PROFILE = "About this user: {profile}\n\n{query}"


class Prompt(Strict):
    """How one task is put to the model."""

    system: str  # as it stands
    user: str  # {FIELD} stands for a query field


@dataclass(frozen=True)
class Prompter:
    """Turns interactions into token ids, one format for every arm.

    `max_length` bounds prompt and response together, in tokens; the end of a longer response is cut.
    """

    tokenizer: Any
    prompts: Mapping[str, Prompt]
    max_length: int

    def request(self, task: str, query: str) -> str:
        """The user's turn for a query (a JSON object of prompt fields) of `task`."""
        prompt = self._prompt(task)
        fields = {name: self.plain(str(value)) for name, value in json.loads(query).items()}
        try:
            return prompt.user.format_map(fields)
        except KeyError as error:
            raise ValueError(
                f"prompts.{task}.user asks for the field {error}, which the query lacks; "
                f"it has {sorted(fields)}"
            ) from None

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
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

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
        """Prompt and response for scoring or training; the response ends with the end-of-turn token.

        The response keeps the same tokens whatever the context and profile, so that likelihoods can be
        compared: its cut depends on the prompt without them.
        """
        bare = self.prompt(task, query)
        room = self.max_length - len(bare)
        if room < 1:
            raise ValueError(
                f"a prompt of task {task!r} takes {len(bare)} tokens, model.max_length is {self.max_length}: "
                f"{query[:80]!r}; raise it, shorten prompts.{task}, or lower ingest.max_chars"
            )
        answer = (*self.tokenizer.encode(self.plain(response), add_special_tokens=False), self.end)
        prompt = self.prompt(task, query, context, profile) if context or profile else bare
        return Text(prompt, tuple(answer[:room]), slot)

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
        """All tokens that stand for something else than their letters."""
        added = self.tokenizer.added_tokens_decoder.values()
        return sorted({*self.tokenizer.all_special_tokens, *(str(token) for token in added if token.special)})

    @cached_property
    def end(self) -> int:
        """The token that ends a turn in the chat template; Gemma's is not the tokenizer's eos."""
        turns = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": "ANSWER"}]
        rest = self.tokenizer.apply_chat_template(turns, tokenize=False).rpartition("ANSWER")[2]
        special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        found = (token for token in self.tokenizer.encode(rest, add_special_tokens=False) if token in special)
        return next(found, self.tokenizer.eos_token_id)

    def decode(self, tokens: Sequence[int]) -> str:
        """Generated tokens as text."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _prompt(self, task: str) -> Prompt:
        if task not in self.prompts:
            raise ValueError(
                f"no prompt for the task {task!r}: add prompts.{task}; there are {sorted(self.prompts)}"
            )
        return self.prompts[task]
