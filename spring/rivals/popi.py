"""A summary of preferences in words, carried from period to period as the state (popi-like).

Source: Chen et al., "POPI: Personalizing LLMs via Optimized Natural Language Preference Inference", arXiv
2510.17881: a model infers a short summary of preferences from a user's signals, and a generator reads it.
-style: POPI trains both models by reinforcement learning; here the frozen base model does both. Its setting
has no periods; that the summary is rewritten period by period is [ours], as are the wording and the numbers
of the suites: 10 items, each cut to 128 tokens, at most 96 tokens under a repetition penalty of 1.2.

    s_0 <- the model's greedy answer to WRITE with `items` random train items of period 0
    s_t <- the same to REWRITE, with s_(t-1) and `items` random train items of period t

Every prompt of period t begins with s_t, as a profile of spring/rivals/pag.py does. The summary is all that
is carried: older items are never read again, so what the model leaves out is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from spring.engine.strict import PositiveInt, Strict
from spring.rivals.pag import draw

SYSTEM = "You keep a summary of what a user prefers."
WRITE = (
    "Here is what a user wrote:\n\n{items}\n\n"
    "Describe this user's preferences in a few sentences: what they care about, their opinions, tone, "
    "length, structure and favourite words. Be specific. Give the summary only."
)
REWRITE = (
    "Here is a summary of a user's preferences:\n\n{previous}\n\n"
    "Here is what this user wrote since then:\n\n{items}\n\n"
    "Describe this user's preferences anew in a few sentences: keep what still holds, change what has "
    "changed, add what is new. Be specific. Give the summary only."
)


class Popi(Strict):
    """`profile: {by: popi, ...}`."""

    carried: ClassVar[bool] = True  # each period's starts from the one before

    by: Literal["popi"]
    items: PositiveInt  # drawn at random, per user and period
    item_tokens: PositiveInt  # read of each item's query, and of its response; the rest is cut
    max_new_tokens: PositiveInt  # of the summary
    repetition_penalty: Annotated[float, Field(ge=1)]

    @property
    def described(self) -> str:
        """For the table of arms."""
        return "summary in words, carried on"

    def choose(self, rows: Sequence[dict[str, Any]], *, period: int, seed: int) -> list[dict[str, Any]]:
        """What the summary after `period` is rewritten with; `rows` are a user's train rows so far."""
        return draw([row for row in rows if row["period"] == period], self.items, seed=seed)

    def ask(self, items: Sequence[str], previous: str) -> tuple[str, str]:
        """The system's and the user's turn that ask for the summary; `previous` is empty before period 0."""
        wording = REWRITE if previous else WRITE
        return SYSTEM, wording.format(previous=previous, items="\n\n".join(items))
