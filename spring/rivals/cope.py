"""CoPe: contrast the user's adapter with the base model, token by token, while decoding.

Source: Bu, Jung, Kang & Kim, "Personalized LLM Decoding via Contrasting Personal Preference", EMNLP 2025,
arXiv 2506.12109, and its public code. The decoding is faithful, with the paper's alpha and plausibility (0.1
both). -style as a whole: adapters are those of the arm's own training, without the paper's preference
training (DPO on generated negatives) and its task adapter; p_base is the plain base model [ours].

Both paths read the same prompt, with its retrieved context and profile if the arm has them: p_user under the
adapter, p_base without. A token is plausible if p_user gives it enough, and plausible tokens are ranked by
the user's implicit reward; the most rewarded one is taken, after the repetition penalty that every arm has:

    V_head = {v : p_user(v) >= plausible * max p_user}
    score(v) = log p_user(v) - alpha log p_base(v)        v in V_head; nothing else can be chosen

**Likelihood of a reference [ours].** A softmax of the score over V_head gives a reference -inf as soon as one
of its tokens is implausible, which says nothing about the rest of it. So references are judged by the
distribution that redistributes within V_head and leaves the rest as it was:

    p(v) = m softmax(score)(v)  in V_head, with m = sum of p_user over V_head
    p(v) = p_user(v)            outside

It sums to 1, is finite, is p_user itself at alpha 0, and its most probable token is the one that CoPe ranks
first: that one has at least the mean m / |V_head| >= plausible * max p_user, more than any token outside.

Notation: B positions, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from spring.engine.queries import Query, Route
from spring.engine.strict import PositiveShare, Share
from spring.rivals.contrast import Contrast

if TYPE_CHECKING:
    from torch import Tensor

BASE = -1  # the slot without an adapter


class Cope(Contrast):
    """`decode.rule: {by: cope, ...}`."""

    by: Literal["cope"]
    alpha: Share  # weight of log p_base
    plausible: PositiveShare  # of the highest p_user, that a token must have

    @property
    def described(self) -> str:
        """For the table of arms."""
        return f"{self.by}, alpha {self.alpha:g}"

    def misfit(self, *, adapted: bool, retrieving: bool, lmbda: float) -> str | None:
        """Why an arm cannot decode so; null if it can."""
        if not adapted:
            return "cope contrasts an adapter with the base model: it needs a block train"
        if retrieving and lmbda not in (0, 1):
            return (
                f"cope reads one prompt twice, so that its context cannot weigh {lmbda}: take decode.lmbda 1 "
                f"(context in the prompt), or 0 (none)"
            )
        return None

    def routes(self, query: Query) -> list[Route]:
        """Both paths: the same prompt with the adapter and without."""
        prompt = query.context_prompt if query.context_prompt and query.lmbda else query.prompt
        return [Route(query.slot, prompt, 1.0), Route(BASE, prompt, 1.0)]

    def choose(self, user: Tensor, base: Tensor, weights: Tensor | None = None) -> Tensor:
        """log p of the next token: as in `judge` within V_head, -inf outside. log p [B, V] each -> [B, V].

        The head keeps its mass m, so that the repetition penalty weighs as much as in every other arm.
        """
        kept = self._plausible(user)
        score = (user - self.alpha * base).masked_fill(~kept, -math.inf)
        mass = user.masked_fill(~kept, -math.inf).logsumexp(1, keepdim=True)
        return score.log_softmax(1) + mass

    def judge(self, user: Tensor, base: Tensor) -> Tensor:
        """log p by which references are judged: finite everywhere. log p [B, V] each -> [B, V]."""
        return self.choose(user, base).where(self._plausible(user), user)

    def _plausible(self, user: Tensor) -> Tensor:
        """Whether a token is in V_head. [B, V] -> [B, V]."""
        return user >= user.amax(1, keepdim=True) + math.log(self.plausible)
