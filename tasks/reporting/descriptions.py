"""Arms in words, for the table of arms: no two of them read alike.

What makes a method is said in words. Any other setting is named by its key where it differs from the block
`arm`, which every arm starts from; one of a block that `arm` lacks, where the arms that have it disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from spring.rivals.proper.levels import Proper
from spring.settings.arm import Arm, Retrieve

DATA_WORDS = {
    "drift": "drift set ({chosen})",
    "current": "this period",
    "cumulative": "all so far",
    "confident": "what it is sure of in this period",
}
SCOPES = {
    "user": "",
    "population": ", of all users up to the first test query",
    "population-transductive": ", of all users (transductive: also later than test queries)",
}
STARTS = {
    "previous": "previous adapter",
    "base": "base model",
    "population": "adapter of all users, then previous adapter",
    "population-transductive": "adapter of all users (transductive), then previous adapter",
}
COLUMNS = {  # of each block; profile and steer are what is kept of the user besides
    "train": "learns from",
    "memory": "memory",
    "profile": "memory",
    "steer": "memory",
    "retrieve": "retrieval",
    "decode": "decoding",
}
IN_WORDS = {
    "adapter",
    *(f"train.{key}" for key in ("data", "scope", "start", "replay_share", "replay_draw")),
    *("train.select.scorer", "train.select.share", "train.rule.method", "train.online.method"),
    *(f"train.experts.{key}" for key in ("name", "level", "scope", "count")),
    *(f"memory.{key}" for key in ("scope", "policy", "capacity")),
    *(f"retrieve.{key}" for key in ("by", "top_k", "gate", "sigma", "sigma_from", "weight")),
    *("decode.lmbda", "decode.confidence", "decode.rule.by", "decode.rule.alpha"),
    *("profile.by", "profile.scope", "steer.method"),
    *("train", "train.rule", "train.online", "train.experts", "memory", "profile", "steer"),  # if null
    *("retrieve.profile", "decode.adaptive", "decode.rule"),
}
KIND = ("by", "method", "name")  # keys that say which method a block is of
SET_BY_ONLINE = {"train.epochs", "train.batch_size", "train.warmup_ratio"}  # text by text leaves one value


def describe(arms: Mapping[str, Arm], start: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Every arm: column -> words. `start`: the block `arm`, as it is written."""
    start = completed(start)
    trees = {name: arm.model_dump() for name, arm in arms.items()}
    found = {}
    for name, arm in arms.items():
        columns = {head: [words] if words else [] for head, words in arm_in_words(arm).items()}
        for path, value in differences(trees[name], start):
            if not idle(arm, path) and is_told(path, value, trees[name], trees.values(), start):
                columns[column(arm, path)].append(named(path, value))
        found[name] = {head: ", ".join(parts) or "–" for head, parts in columns.items()}
    return found


# --- what is said in words --------------------------------------------------------------------------------


def arm_in_words(arm: Arm) -> dict[str, str]:
    """What makes the method; empty where there is nothing to say."""
    learns, starts = learning(arm)
    if arm.adapter == "swapped":
        starts += "; answers with another user's adapter"
    context = ""
    if arm.retrieves:
        context = f"{arm.retrieve.by}, top {arm.retrieve.top_k}, {gate_description(arm.retrieve)}"
    return {
        "learns from": learns,
        "starts from": starts,
        "memory": remembering(arm),
        "retrieval": context,
        "decoding": mixing(arm),
    }


def learning(arm: Arm) -> tuple[str, str]:
    """What an arm learns from, and what its learning starts from."""
    if arm.train is None:
        return "nothing", ""
    chosen = f"{arm.train.select.scorer}, top {arm.train.select.share:.0%}"
    learns = DATA_WORDS[arm.train.data].format(chosen=chosen)
    if arm.train.replay_share > 0:
        drawn = "of its own again" if arm.train.replay_draw == "own" else "replayed"
        learns += f", {arm.train.replay_share:.0%} {drawn}"
    if arm.train.replay_draw == "sar":
        learns += " by cluster and use"
    if arm.train.rule is not None:
        learns += f"; {arm.train.rule.method}"
    learns += SCOPES[arm.train.scope]
    if arm.train.online is not None:
        learns += f", text by text ({arm.train.online.method})"
    if arm.train.experts is not None:
        return levels_description(learns, STARTS[arm.train.start], arm.train.experts)
    return learns, STARTS[arm.train.start]


def levels_description(learns: str, starts: str, experts: Proper) -> tuple[str, str]:
    """What an arm with shared levels learns from, and what lies beneath its adapters."""
    seen = SCOPES[experts.scope].removeprefix(", ")
    if experts.level != "user":
        learns = "nothing after period 0"
    beneath = "a LoRA" if experts.level == "population" else f"a LoRA and {experts.count} experts"
    starts = {"user": f"{starts}; ", "group": "the user's embedding; ", "population": ""}[experts.level]
    return learns, f"{starts}beneath: {beneath} {seen}, learned in period 0"


def remembering(arm: Arm) -> str:
    """What an arm keeps of a user besides adapters."""
    parts = []
    if arm.memory is not None:
        scopes = {"period": "this period", "history": "all so far"}
        buffer = f"buffer of {arm.memory.capacity}, {arm.memory.policy}"
        parts.append(scopes.get(arm.memory.scope, buffer))
    if arm.profile is not None:
        parts.append(arm.profile.described)
    if arm.steer is not None:
        parts.append(f"steering vectors ({arm.steer.method})")
    return "; ".join(parts) or "none"


def gate_description(retrieve: Retrieve) -> str:
    """A gate in words; one that has seen the test queries says so."""
    if retrieve.gate == "learned":
        text = "learned gate"
    else:
        text = f"{retrieve.gate} gate, sigma {retrieve.sigma}" if retrieve.gate else "no gate"
    if retrieve.sigma_from == "transductive":
        text += " (transductive: from the test queries themselves)"
    text += ", ranked by the user's profile too" if retrieve.profile else ""
    return text + (", lambda scaled by the scores' standing" if retrieve.weight == "score" else "")


def mixing(arm: Arm) -> str:
    """How the paths of an arm become one; empty where there is one path."""
    if arm.decode.rule is not None:
        return arm.decode.rule.described
    if arm.memory is None:
        return ""
    text = f"lambda {arm.decode.lmbda:g}"
    if arm.decode.confidence is not None:
        text += f", weighed by confidence ({arm.decode.confidence})"
    return text + (", one path once both agree" if arm.decode.adaptive else "")


# --- what is named by its key -----------------------------------------------------------------------------


def completed(start: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block `arm` with the defaults of its methods, if it is an arm by itself, which it need not be."""
    try:
        return Arm.model_validate(start).model_dump()
    except ValidationError:
        return start


def differences(found: Any, before: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every setting in `found` that `before` lacks or has otherwise; null for a lost one."""
    for key in {**before, **found}:
        name = f"{path}.{key}".removeprefix(".")
        value, old = found.get(key), before.get(key)
        if isinstance(value, dict):
            yield from differences(value, old if isinstance(old, dict) else {}, name)
        elif plain(value) != plain(old) and name not in IN_WORDS:
            yield name, value


def is_told(path: str, value: Any, tree: Any, trees: Iterable[Any], start: Any) -> bool:
    """Whether to name a difference: one in a block that `start` lacks, if arms of that method disagree."""
    block = absent(start, path)
    if block is None:
        return True
    alike = [other for other in trees if kind(at(other, block)) == kind(at(tree, block))]
    return any(at(other, path) != value for other in alike)


def kind(block: Any) -> list[Any] | None:
    """Which method a block is of; null without the block."""
    return [block.get(key) for key in KIND] if isinstance(block, dict) else None


def at(tree: Any, path: str) -> Any:
    """The value at a path; null where there is none."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def absent(start: Mapping[str, Any], path: str) -> str | None:
    """The block around `path` that `start` does not have; null if it has the key's own block."""
    keys = path.split(".")
    blocks = (".".join(keys[:depth]) for depth in range(1, len(keys)))
    return next((block for block in blocks if not isinstance(at(start, block), dict)), None)


def idle(arm: Arm, path: str) -> bool:
    """Whether a setting does nothing in this arm, or follows from what words say."""
    buffered = arm.memory is not None and arm.memory.scope == "buffer"
    if path.startswith("retrieve."):
        return not arm.retrieves or (path == "retrieve.pairs" and arm.retrieve.gate != "learned")
    if path.startswith("memory."):
        return not buffered
    if path.startswith("train.select."):
        return not buffered and (arm.train is None or arm.train.data != "drift")
    if path.startswith("decode.adaptive"):
        return arm.decode.adaptive is None or not arm.retrieves
    return path in SET_BY_ONLINE and arm.train is not None and arm.train.online is not None


def column(arm: Arm, path: str) -> str:
    """The column that a setting belongs to; without drift, the parts of its score rank a buffer's items."""
    if path.startswith("train.select.") and arm.train is not None and arm.train.data != "drift":
        return "memory"
    return COLUMNS[path.partition(".")[0]]


def named(path: str, value: Any) -> str:
    """A setting by its key inside its block: `lora.target_modules q_proj/v_proj`, `grad_clip null`."""
    value = plain(value)
    if isinstance(value, list):
        text = "/".join(str(part) for part in value)
    elif isinstance(value, float):
        text = f"{value:g}"
    else:
        text = "null" if value is None else str(value)
    return f"{path.partition('.')[2]} {text}"


def plain(value: Any) -> Any:
    """As YAML gives it."""
    return list(value) if isinstance(value, tuple) else value
