"""An arm: training recipe, memory, retrieval, decoding. One column of the comparison."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spring.engine.settings import Decoding
from spring.engine.strict import PositiveInt, Share, Strict, added
from spring.method.mixing import Adaptive, Confidence, Mixture
from spring.method.policies import POLICIES
from spring.method.registry import one_of
from spring.method.retrieval import LEXICAL, By
from spring.rivals.asls import Profiled, Profiling
from spring.rivals.cad import Cad
from spring.rivals.cope import Cope
from spring.rivals.fints import Fints
from spring.rivals.pag import Pag
from spring.rivals.popi import Popi
from spring.settings.train import Train
from spring.store.keys import fingerprint


class Memory(Strict):
    """What retrieval searches (Eq. 3, 4)."""

    scope: Literal["buffer", "period", "history"]  # replay buffer, this period's train items, all so far
    policy: Annotated[str, one_of(POLICIES)]
    capacity: PositiveInt  # N_max, per user
    first_period: Annotated[int, Field(ge=0)]  # the paper's buffer is empty after period 0


class Retrieve(Strict):
    """Retrieval and relevance gate (Eq. 5, 6)."""

    by: By
    top_k: PositiveInt
    gate: Literal["strict", "soft", "learned"] | None
    # quantile of past scores, or a number; .inf: the gate stays closed
    sigma: Literal["q2", "q3"] | Annotated[float, Field(ge=0, allow_inf_nan=True)]
    sigma_from: Literal["past", "transductive"]  # transductive [paper]: scores of the test queries themselves
    weight: Literal[
        "gate", "score"
    ]  # what scales lambda: the gate's weights, or the scores' rank in the past
    pairs: PositiveInt  # per user and period, whose gain in likelihood the learned gate is trained on
    profile: Annotated[Profiled | None, added(None)]  # ranks memories beside the query

    @property
    def calibrated(self) -> bool:
        """Whether the scores of other queries are needed."""
        quantile = self.gate is not None and isinstance(self.sigma, str)
        return quantile or self.gate in ("soft", "learned") or self.weight == "score"

    @model_validator(mode="after")
    def _transductive_has_a_quantile(self) -> Retrieve:
        if self.sigma_from == "transductive" and (
            self.gate not in ("strict", "soft") or not isinstance(self.sigma, str)
        ):
            raise ValueError("sigma_from: transductive needs gate: strict or soft, and sigma: q2 or q3")
        return self

    @model_validator(mode="after")
    def _profile_has_scores_to_mix_with(self) -> Retrieve:
        if self.profile is not None and (self.by in LEXICAL or self.calibrated):
            raise ValueError(
                f"retrieve.profile mixes cosines into scores of at most 1, and no past scores of that kind "
                f"are kept for a gate: it needs by: dense or hybrid, not {self.by}, and weight: gate, with "
                f"gate: null, or gate: strict and a number as sigma"
            )
        return self


Rule = Annotated[Cope | Cad, Field(discriminator="by")]


class Decode(Strict):
    """Interpolated generation (Eq. 7, 8)."""

    lmbda: Share  # weight of the retrieval path
    repetition_penalty: Annotated[float, Field(ge=1)]
    max_new_tokens: PositiveInt
    adaptive: Adaptive | None
    confidence: Annotated[Confidence | None, added(None)]  # method/confidence.py
    rule: Annotated[Rule | None, added(None)]  # how two paths become one; null: the mixture (Eq. 8)

    @model_validator(mode="after")
    def _weights_belong_to_the_mixture(self) -> Decode:
        for name in ("adaptive", "confidence"):
            if self.rule is not None and getattr(self, name) is not None:
                raise ValueError(
                    f"decode.{name} is for the mixture (Eq. 8); with decode.rule it must be null"
                )
        return self

    @property
    def decoding(self) -> Decoding:
        """What the engine is told; lambda goes with each query."""
        join = self.rule or Mixture(confidence=self.confidence, adaptive=self.adaptive)
        return Decoding(
            repetition_penalty=self.repetition_penalty, max_new_tokens=self.max_new_tokens, join=join
        )

    @property
    def single(self) -> Decode:
        """The same for one path, with nothing mixed."""
        plain = {"lmbda": 1.0, "adaptive": None, "confidence": None, "rule": None}
        return self.model_copy(update=plain)


Profile = Annotated[Pag | Popi, Field(discriminator="by")]


class Arm(Strict):
    """Training recipe + memory + retrieval + decoding: one column of the comparison.

    Nothing of one user reaches another's adapter, memory or answers, except in the arms that say so:
    `adapter: swapped`, `train.scope: population`, `train.start: population`, `train.experts` and `steer`
    (other users' earlier items stand in the prompts that a user's vectors are made with; the vectors are all
    that stays). Gates are calibrated over all users, as the paper's sigma is: numbers, no text.
    """

    adapter: Literal["own", "swapped"]  # whose adapter answers; swapped [ours]: always another user's
    train: Train | None  # null: the base model, no adapter
    memory: Memory | None  # null: no retrieval
    retrieve: Retrieve
    decode: Decode
    profile: Annotated[Profile | None, added(None)]  # what the model wrote about the user; null: nothing
    steer: Annotated[Fints | None, added(None)]  # vectors added inside the model; null: none

    @model_validator(mode="after")
    def _buffer_is_there_to_replay(self) -> Arm:
        if self.replays and (not self.memory or self.memory.scope != "buffer"):
            raise ValueError("train.replay_share > 0 needs memory.scope: buffer to draw from")
        return self

    @model_validator(mode="after")
    def _there_is_an_adapter_to_swap(self) -> Arm:
        if self.adapter == "swapped" and (self.train is None or self.train.one_for_all):
            raise ValueError(
                "adapter: swapped needs an adapter per user: a block train with train.scope: user"
            )
        return self

    @model_validator(mode="after")
    def _there_is_one_profile(self) -> Arm:
        ranks = self.retrieve.profile
        if ranks is not None and self.memory is None:
            raise ValueError("retrieve.profile ranks memories and there are none: give a block memory")
        steps = self.train.online.profiling if self.train and self.train.online else None
        if ranks is not None and steps is not None and ranks.profiling != steps:
            raise ValueError(
                f"a user has one profile: retrieve.profile has {ranks.profiling!r}, train.online {steps!r}"
            )
        return self

    @property
    def profiling(self) -> Profiling | None:
        """How the profile of this arm's users moves; null: there is none."""
        if self.retrieve.profile is not None:
            return self.retrieve.profile.profiling
        return self.train.online.profiling if self.train and self.train.online else None

    @model_validator(mode="after")
    def _rule_has_its_paths(self) -> Arm:
        rule = self.decode.rule
        if rule is None:
            return self
        retrieving, lmbda = self.memory is not None, self.decode.lmbda
        problem = rule.misfit(adapted=self.train is not None, retrieving=retrieving, lmbda=lmbda)
        if problem is not None:
            raise ValueError(f"decode.rule: {problem}")
        weighing = self.retrieve.gate not in ("strict", None) or self.retrieve.weight != "gate"
        if retrieving and lmbda > 0 and weighing:
            raise ValueError(
                f"decode.rule: {rule.by} has no weights that a gate could set: take retrieve.gate strict or "
                f"null, and retrieve.weight gate"
            )
        return self

    @property
    def retrieves(self) -> bool:
        """Whether queries are answered with what is retrieved; a memory alone may serve replay."""
        return self.memory is not None and self.decode.lmbda > 0

    @property
    def replays(self) -> bool:
        """Whether part of what is trained is drawn from the memory."""
        return self.train is not None and self.train.replay_share > 0

    @property
    def recipe(self) -> str | None:
        """Names the adapters of this arm; arms with the same recipe share them."""
        if self.train is None:
            return None
        if not self.replays:
            return self.train.recipe
        return fingerprint({"train": self.train, "memory": self.memory})

    @property
    def memory_id(self) -> str | None:
        """Names the memory of this arm; arms with the same memory share it. Null: none, or it is not used."""
        if self.memory is None or not (self.retrieves or self.replays):
            return None
        if self.memory.scope != "buffer":
            return fingerprint({"scope": self.memory.scope})
        return fingerprint({"recipe": self.recipe, "memory": self.memory})

    @property
    def gate_id(self) -> str | None:
        """Names the pairs that a learned gate is trained on; null for the other gates."""
        if not self.retrieves or self.retrieve.gate != "learned":
            return None
        search = self.retrieve.model_dump(include={"by", "top_k", "pairs"})
        read = self.decode.model_dump(include={"lmbda", "confidence"})  # what a reference's likelihood is of
        if self.profile:
            read["profile"] = self.profile
        return fingerprint({"recipe": self.recipe, "memory": self.memory_id, "search": search, "read": read})

    @property
    def profile_id(self) -> str | None:
        """Names the profiles of this arm; arms with the same settings share them."""
        return fingerprint(self.profile) if self.profile else None

    @property
    def steer_id(self) -> str | None:
        """Names the steering vectors of this arm; arms that differ in how they use them share them."""
        if self.steer is None:
            return None
        return fingerprint({"steer": self.steer.extraction, "rejected": self.rejecting})

    @property
    def rejecting(self) -> Decode:
        """How the rejected answers of steering vectors are written."""
        own = self.steer.max_new_tokens if self.steer else None
        return self.decode.single.model_copy(update={"max_new_tokens": own} if own else {})


def recipe_of(arm: Arm) -> Train:
    """The training block of an arm that has one."""
    assert arm.train is not None
    return arm.train
