"""PAG: the model describes a user in words, and reads that profile before every query.

Source: Richardson et al., "Integrating Summarization and Retrieval for Enhanced Personalization via Large
Language Models", arXiv 2310.20081, as SPRInG compares with it (appendix C): written by the model itself from
10 random items. `pag-each` draws them from the current period, `pag-accum` from all periods so far. -style:
neither source prints a prompt for these tasks.

After period t, for every user:
    items   <- `items` train items at random, of period t or of periods 0..t, in time order
    profile <- the base model's greedy answer to WRITE with these items
Every prompt of period t then begins with the profile, both paths of a query alike, whatever adapter reads it
and whatever is retrieved. It is nobody's but the user's: nothing of others is in the items. Adapters are
trained, and drift is scored, without it [ours], so that arms with and without a profile share adapters.

[ours] the wording, for all tasks the same; an item is the values of its query and its response, 128 tokens of
each are read and 96 are written, so that the profile always fits before a query; the comparison's own
repetition penalty (without it a small model repeats itself); the plain base model writes, not the adapted
one, so that a profile serves every arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from spring.engine.strict import PositiveInt, Strict

SYSTEM = "You describe how people write."
WRITE = (
    "Here is what a user wrote:\n\n{items}\n\n"
    "Describe this user in a few sentences, so that somebody else could write in the same way: what they "
    "care about, their opinions, tone, length, structure and favourite words. Be specific. Give the "
    "description only."
)


class Pag(Strict):
    """`profile: {by: pag, ...}`."""

    carried: ClassVar[bool] = False  # written anew each period

    by: Literal["pag"]
    scope: Literal["period", "history"]  # whose train items are drawn from: this period's, or all so far
    items: PositiveInt  # drawn at random, per user and period
    item_tokens: PositiveInt  # read of each item's query, and of its response; the rest is cut
    max_new_tokens: PositiveInt  # of the profile
    repetition_penalty: Annotated[float, Field(ge=1)]

    @property
    def described(self) -> str:
        """For the table of arms."""
        return "profile in words, of " + {"period": "this period", "history": "all so far"}[self.scope]

    def choose(self, rows: Sequence[dict[str, Any]], *, period: int, seed: int) -> list[dict[str, Any]]:
        """What the profile after `period` is written from; `rows` are a user's train rows so far."""
        if self.scope == "period":
            rows = [row for row in rows if row["period"] == period]
        return draw(rows, self.items, seed=seed)

    def ask(self, items: Sequence[str], previous: str) -> tuple[str, str]:
        """The system's and the user's turn that ask for a profile; what was written before plays no role."""
        return SYSTEM, WRITE.format(items="\n\n".join(items))


def draw(rows: Sequence[dict[str, Any]], count: int, *, seed: int) -> list[dict[str, Any]]:
    """`count` of the rows at random, in the order they have; all of them if there are no more."""
    if len(rows) <= count:
        return list(rows)
    kept = np.random.default_rng(seed).choice(len(rows), count, replace=False)
    return [rows[i] for i in sorted(kept.tolist())]
