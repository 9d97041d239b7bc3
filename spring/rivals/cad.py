"""CAD: context-aware decoding, which amplifies what the retrieved context changes.

Source: Shi et al., "Trusting Your Evidence: Hallucinate Less with Context-aware Decoding", NAACL 2024, arXiv
2305.14739. Faithful; alpha 0.5 is the paper's for summarization. That the context is the user's own memory,
and that both paths may carry an adapter, is [ours].

    p = softmax((1 + alpha) logit(with context) - alpha logit(without))

A query whose gate is closed has no context to amplify and is decoded from the prompt alone. At alpha 0 it is
the path with context alone, i.e. decode.lmbda 1; beyond, it goes further the same way. References are judged
by the same distribution, which is finite everywhere.

Notation: B positions, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spring.engine.queries import Query, Route
from spring.rivals.contrast import Contrast

if TYPE_CHECKING:
    from torch import Tensor


class Cad(Contrast):
    """`decode.rule: {by: cad, ...}`."""

    by: Literal["cad"]
    alpha: Annotated[float, Field(ge=0)]  # how far beyond the path with context

    @property
    def described(self) -> str:
        """For the table of arms."""
        return f"{self.by}, alpha {self.alpha:g}"

    def misfit(self, *, adapted: bool, retrieving: bool, lmbda: float) -> str | None:
        """Why an arm cannot decode so; null if it can."""
        if not retrieving:
            return "cad amplifies retrieved context: it needs a block memory"
        if lmbda != 1:
            return f"cad goes beyond the path with context: decode.lmbda is {lmbda} and must be 1"
        return None

    def routes(self, query: Query) -> list[Route]:
        """The path with context and the one without; the prompt alone where there is no context."""
        alone = Route(query.slot, query.prompt, 1.0)
        if query.context_prompt is None or query.lmbda == 0:
            return [alone]
        return [Route(query.slot, query.context_prompt, 1.0), alone]

    def choose(self, given: Tensor, alone: Tensor, weights: Tensor | None = None) -> Tensor:
        """log p of the next token. log p [B, V] with context and without -> [B, V].

        From log p instead of logits: they differ by a constant per path, which the softmax removes.
        """
        return ((1 + self.alpha) * given - self.alpha * alone).log_softmax(1)

    def judge(self, given: Tensor, alone: Tensor) -> Tensor:
        """log p by which references are judged: the same."""
        return self.choose(given, alone)
