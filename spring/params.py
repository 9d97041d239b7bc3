"""The parameters of an experiment as strict, frozen models.

The values live in `params.yaml` and nowhere else; this module says which keys exist, what they mean and
what is allowed. Keys that are unknown, missing or out of range are refused by name. Off is `null`.

An arm is written in `params.yaml` as its difference from the block `arm`, which is SPRInG with the paper's
settings: `spring: {}` is the method itself, `spring-parametric: {decode: {lmbda: 0.0}}` one change to it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from spring.methods.asls import Asls, Profiled, Profiling
from spring.methods.cad import Cad
from spring.methods.cope import Cope
from spring.methods.ewc_lora import EwcLora
from spring.methods.fints import Fints
from spring.methods.o_lora import OLora
from spring.methods.pag import Pag
from spring.methods.popi import Popi
from spring.methods.proper import Proper
from spring.methods.surprise import Surprise
from spring.source_params import Ingest
from spring.strict import Name, PositiveInt, PositiveShare, Share, Strict, added


class ParameterError(ValueError):
    """A parameter that cannot be used; the message names key, value, constraint and remedy."""


# --- what is read -----------------------------------------------------------------------------------------


class Prompt(Strict):
    """How one task is put to the model; {FIELD} stands for a query field."""

    system: str
    user: str


class Split(Strict):
    """Chronological split of each user's interactions inside each period."""

    test_share: Annotated[float, Field(gt=0, lt=1)]
    hold_out: Literal["test", "validation"]  # validation: choose hyperparameters without the test items


# --- what is computed with --------------------------------------------------------------------------------


class Model(Strict):
    """The frozen base model and how it is run."""

    id: str  # `smollm2-135m-instruct` (packaged), a hub id, or a folder
    revision: str | None
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto", "bfloat16", "float32"]
    embedding: str  # sentence embeddings: `all-minilm-l6-v2` (packaged), a hub id, or a folder
    max_length: PositiveInt  # tokens of prompt and response together; longer responses are cut
    memory_gb: Annotated[float, Field(gt=0)]  # bounds the tokens of one batch


class Lora(Strict):
    """Low-rank adapters (section 4.1)."""

    r: PositiveInt
    alpha: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: tuple[str, ...] = Field(min_length=1)


class Select(Strict):
    """Drift score and selection (Eq. 1, 2)."""

    scorer: Literal["likelihood", "loss", "embedding", "random", "bottom"]
    alpha: Annotated[float, Field(ge=0)]  # weight of the quality term; .inf: quality alone
    share: PositiveShare
    normalise: Literal["token", "sequence"]


Online = Asls  # the methods of `train.online`


class Train(Strict):
    """How an arm's adapters learn.

    scope: whose items an adapter learns from. `user`: the user's own and nobody else's. `population` [ours]:
    one adapter for all users, of those items that are dated no later than any test query of the period;
    `population-transductive`: of all items, also later ones.
    start: `previous` is a warm start, `base` a fresh adapter each period. `population` [ours] is a warm start
    too, and before period 0 lies the shared adapter that these settings give on everybody's period 0.
    online: text by text in time order, by one of the methods of `spring/methods`; null: in shuffled batches.
    experts: PROPER, whose first two levels are shared by all users (spring/methods/proper.py).
    """

    scope: Annotated[Literal["user", "population", "population-transductive"], added("user")]
    start: Literal["previous", "base", "population"]
    # selected items, all of this period, all so far, those it is sure of (spring/methods/cama.py)
    data: Literal["drift", "current", "cumulative", "confident"]
    experts: Annotated[Proper | None, added(None)]
    select: Select
    replay_share: Annotated[float, Field(ge=0, lt=1)]  # of each batch, drawn from the buffer
    replay_draw: Annotated[Literal["uniform", "sar"], added("uniform")]  # sar: spring/methods/sar.py
    rule: Annotated[
        Annotated[EwcLora | OLora | Surprise, Field(discriminator="method")] | None, added(None)
    ]  # what training does besides; null: nothing
    lora: Lora
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_ratio: Share
    epochs: PositiveInt
    batch_size: PositiveInt
    grad_clip: Annotated[float, Field(gt=0)] | None
    online: Annotated[Online | None, added(None)]

    @model_validator(mode="after")
    def _replay_fits_the_batch(self) -> Train:
        replayed = round(self.replay_share * self.batch_size)
        if self.replay_share > 0 and not 1 <= replayed < self.batch_size:
            raise ValueError(
                f"train.replay_share {self.replay_share} is {replayed} of {self.batch_size} items a batch; "
                f"between 1 and {self.batch_size - 1} must be replayed"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_draw(self) -> Train:
        if self.replay_draw != "uniform" and self.replay_share == 0:
            raise ValueError(f"train.replay_draw {self.replay_draw} needs train.replay_share > 0")
        return self

    @model_validator(mode="after")
    def _rules_go_on_from_the_period_before(self) -> Train:
        if self.rule is not None and self.start != "previous":
            raise ValueError(
                f"train.rule {self.rule.method} needs train.start: previous, not {self.start}: it keeps "
                f"what the adapter of the period before has learned"
            )
        return self

    @model_validator(mode="after")
    def _population_starts_from_itself(self) -> Train:
        if self.shared and self.start == "population":
            raise ValueError(
                f"train.start population is for train.scope user; with train.scope {self.scope} take "
                f"previous or base"
            )
        return self

    @model_validator(mode="after")
    def _online_is_text_by_text(self) -> Train:
        if self.online is None:
            return self
        if self.data == "cumulative":
            raise ValueError(
                "train.online learns each interaction once: train.data cumulative would learn it "
                "again in every period; take current or drift"
            )
        needed = {"scope": "user", "start": "previous", "replay_share": 0, "warmup_ratio": 0}
        needed |= {"epochs": 1, "batch_size": 1}
        for key, value in needed.items():
            if getattr(self, key) != value:
                raise ValueError(
                    f"train.online goes on from the user's own adapter, text by text: it needs train.{key} "
                    f"{value}, not {getattr(self, key)}"
                )
        return self

    @model_validator(mode="after")
    def _experts_lie_under_users(self) -> Train:
        if self.experts is None:
            return self
        if self.scope != "user" or self.start == "population":
            raise ValueError(
                f"train.experts has shared levels of its own: it needs train.scope user (is {self.scope}) "
                f"and train.start previous or base (is {self.start})"
            )
        for key in ("rule", "online"):
            if getattr(self, key) is not None:
                raise ValueError(f"train.experts cannot be combined with train.{key}: leave one of them null")
        if self.experts.level != "user" and (self.data != "current" or self.replay_share > 0):
            raise ValueError(
                f"train.experts.level {self.experts.level} learns nothing after period 0: it needs "
                f"train.data current (is {self.data}) and train.replay_share 0 (is {self.replay_share})"
            )
        return self

    @property
    def shared(self) -> bool:
        """Whether one lesson is for all users."""
        return self.scope != "user"

    def at(self, period: int) -> Train:
        """These settings in a period: where each one adds ranks, with that many and alpha / r as before."""
        if self.rule is None or not self.rule.grows:
            return self
        grown = {"r": self.lora.r * (period + 1), "alpha": self.lora.alpha * (period + 1)}
        return self.model_copy(update={"lora": self.lora.model_copy(update=grown)})

    @property
    def one_for_all(self) -> bool:
        """Whether one adapter serves all users."""
        return self.shared or (self.experts is not None and self.experts.level == "population")

    @property
    def foundation(self) -> Train | None:
        """How the shared adapter of period 0 learns that others start from or lie on; null: there is none."""
        if self.experts is not None:
            return self._of_all(self.experts.scope, epochs=self.experts.population_epochs, experts=None)
        return self._of_all("population") if self.start == "population" else None

    @property
    def group(self) -> Train | None:
        """How the last level that all users share learns, after `foundation`; null: there are no levels."""
        if self.experts is None:
            return None
        if self.experts.level == "population":
            return self.foundation
        experts = self.experts.model_copy(update={"level": "group"})
        return self._of_all(experts.scope, epochs=experts.group_epochs, experts=experts)

    def _of_all(self, scope: str, **changes: Any) -> Train:
        everything: dict[str, Any] = {"scope": scope, "start": "previous", "data": "current", "online": None}
        plain: dict[str, Any] = {"replay_share": 0.0, "replay_draw": "uniform", "rule": None}
        return self.model_copy(update=everything | plain | changes)

    @property
    def recipe(self) -> str:
        """Names the adapters that learn so, without replay."""
        return fingerprint({"train": self, "memory": None})


class Memory(Strict):
    """What retrieval searches (Eq. 3, 4)."""

    scope: Literal["buffer", "period", "history"]  # replay buffer, this period's train items, all so far
    policy: Literal[
        "global-highest", "cluster-wise", "cluster-round", "random", "loss", "novelty", "recent", "reservoir"
    ]
    capacity: PositiveInt  # N_max, per user
    first_period: Annotated[int, Field(ge=0)]  # the paper's buffer is empty after period 0


class Retrieve(Strict):
    """Retrieval and relevance gate (Eq. 5, 6)."""

    by: Literal["bm25", "dense", "hybrid"]
    top_k: PositiveInt
    gate: Literal["strict", "soft", "learned"] | None
    sigma: Literal["q2", "q3"] | Annotated[float, Field(ge=0)]  # quantile of past scores, or a number
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
        if self.profile is not None and (self.by == "bm25" or self.calibrated):
            raise ValueError(
                f"retrieve.profile mixes cosines into scores of at most 1, and no past scores of that kind "
                f"are kept for a gate: it needs by: dense or hybrid, not {self.by}, and weight: gate, with "
                f"gate: null, or gate: strict and a number as sigma"
            )
        return self


class Adaptive(Strict):
    """Drop the second path once both distributions agree [ours]."""

    threshold: Annotated[float, Field(gt=0)]  # Jensen-Shannon divergence, nats
    patience: PositiveInt  # tokens in a row


Rule = Annotated[Cope | Cad, Field(discriminator="by")]


class Decode(Strict):
    """Interpolated generation (Eq. 7, 8)."""

    lmbda: Share  # weight of the retrieval path
    repetition_penalty: Annotated[float, Field(ge=1)]
    max_new_tokens: PositiveInt
    adaptive: Adaptive | None
    confidence: Annotated[Literal["entropy", "max-probability"] | None, added(None)]  # spring/confidence.py
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
    that stays).
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
        if self.train and self.train.replay_share > 0 and (not self.memory or self.memory.scope != "buffer"):
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
    def recipe(self) -> str | None:
        """Names the adapters of this arm; arms with the same recipe share them."""
        if self.train is None:
            return None
        if self.train.replay_share == 0:
            return self.train.recipe
        return fingerprint({"train": self.train, "memory": self.memory})

    @property
    def memory_id(self) -> str | None:
        """Names the memory of this arm; arms with the same memory share it."""
        if self.memory is None:
            return None
        if self.memory.scope != "buffer":
            return fingerprint({"scope": self.memory.scope})
        return fingerprint({"recipe": self.recipe, "memory": self.memory})

    @property
    def gate_id(self) -> str | None:
        """Names the pairs that a learned gate is trained on; null for the other gates."""
        if self.memory_id is None or self.retrieve.gate != "learned":
            return None
        search = self.retrieve.model_dump(include={"by", "top_k", "pairs"})
        read = {"profile": self.profile} if self.profile else {}
        return fingerprint({"recipe": self.recipe, "memory": self.memory_id, "search": search, **read})

    @property
    def profile_id(self) -> str | None:
        """Names the profiles of this arm; arms with the same settings share them."""
        return fingerprint(self.profile) if self.profile else None

    @property
    def steer_id(self) -> str | None:
        """Names the steering vectors of this arm; arms that differ in how they use them share them."""
        if self.steer is None:
            return None
        return fingerprint({"steer": self.steer.extraction, "rejected": self.decode.single})


# --- what is made of it -----------------------------------------------------------------------------------


class Evaluate(Strict):
    """Metrics and their uncertainty."""

    against: Name  # the arm that paired differences are taken from
    resamples: PositiveInt  # of the bootstrap, and sign flips drawn in a permutation test
    confidence: Annotated[float, Field(gt=0, lt=1)]
    detect: Annotated[float, Field(gt=0)]  # relative difference for which the number of users needed is given
    power: Annotated[float, Field(gt=0, lt=1)]  # probability of detecting it


class Report(Strict):
    """Tables, plots and the page."""

    title: str
    sample_users: PositiveInt  # users drawn in the drift plot


class Tracking(Strict):
    """Weights & Biases."""

    mode: Literal["offline", "online", "disabled"]
    project: Name
    entity: str | None
    tags: tuple[str, ...]
    log_text: bool  # sample generations hold user text: off unless asked for
    init_timeout: PositiveInt  # seconds


class Params(Strict):
    """A whole `params.yaml`."""

    experiment: Name
    suite: Name  # suites/NAME.yaml is laid over params.yaml
    seed: Annotated[int, Field(ge=0)]
    periods: dict[int, int | Literal["base"]]  # each period, and the state its learning starts from
    ingest: Ingest
    prompts: dict[str, Prompt]
    split: Split
    model: Model
    arms: dict[Name, Arm] = Field(min_length=1)
    transfer: Literal["likelihood"] | None  # every learned state on the tests of every period; null: off
    evaluate: Evaluate
    report: Report
    tracking: Tracking

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        expected: dict[int, int | str] = {t: t - 1 if t else "base" for t in range(len(self.periods))}
        if self.periods != expected or len(expected) < 2:
            raise ValueError(
                f"periods is {dict(self.periods)}; it must be a chain of at least two periods, "
                f"each starting from the one before, as in {{0: base, 1: 0, 2: 1}}"
            )
        for name, arm in self.arms.items():
            if arm.profile and arm.profile.max_new_tokens >= self.model.max_length:
                raise ValueError(
                    f"arms.{name}.profile.max_new_tokens is {arm.profile.max_new_tokens}; a profile must be "
                    f"shorter than model.max_length, {self.model.max_length}"
                )
        if self.evaluate.against not in self.arms:
            raise ValueError(
                f"evaluate.against is {self.evaluate.against!r}, not one of the arms {sorted(self.arms)}"
            )
        return self


def fingerprint(value: Any, length: int = 12) -> str:
    """Short, stable name of any combination of parameter models and JSON values."""
    plain = json.dumps(value, sort_keys=True, default=lambda model: model.model_dump(mode="json"))
    return hashlib.sha256(plain.encode()).hexdigest()[:length]


def merge(base: Any, change: Any) -> Any:
    """`change` laid over `base`: mappings are merged key by key, everything else is replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merge(base.get(key), value) for key, value in change.items()}}
    return change


def parse(tree: dict[str, Any], where: str = "params.yaml") -> Params:
    """Checks a parsed parameter file; raises `ParameterError` that names every bad key."""
    tree = dict(tree)
    base, arms = tree.pop("arm", None), tree.get("arms")
    if not isinstance(base, dict) or not isinstance(arms, dict):
        raise ParameterError(
            f"{where}: needs the block `arm` (what every arm starts from) and the block `arms`"
        )
    periods = tree.get("periods")
    if isinstance(periods, dict) and any(not isinstance(key, str) for key in periods):
        raise ParameterError(
            f'{where}: write the keys of `periods` in quotes, as in {{"0": base, "1": 0}}; '
            f"DVC makes no stages of unquoted ones"
        )
    tree["arms"] = {name: merge(base, change or {}) for name, change in arms.items()}
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise ParameterError(f"{where} cannot be used, nothing was run:\n{complaints(error)}") from None


def complaints(error: ValidationError) -> str:
    """One line per bad key: its name, its value and what is allowed."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        value = "" if isinstance(item["input"], (dict, BaseModel)) else f" is {item['input']!r}:"
        lines.append(f"  {key}{value} {item['msg']}")
    return "\n".join(lines)
