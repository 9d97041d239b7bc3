"""Settings that an arm makes itself and that then do nothing.

Only what an arm's own line changes is looked at. What it inherits may well be idle: with `memory: null` the
settings of the gate are, and nobody has to clear them away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spring.settings.arm import Arm


@dataclass(frozen=True)
class Change:
    """An arm as it was written: the block `arm`, and the arm's difference from it."""

    base: dict[str, Any]
    line: dict[str, Any]

    def made(self, *path: str) -> Any:
        """What the arm's line sets a key to; null if it says nothing, or what the block says anyway."""
        before: Any = self.base
        after: Any = self.line
        for key in path:
            before = before.get(key) if isinstance(before, dict) else None
            after = after.get(key) if isinstance(after, dict) else None
        return None if before == after else after


def idle_keys(arm: Arm, change: Change) -> Iterator[str]:
    """One line per key that an arm sets for nothing: the key, its value, why, and the remedy."""
    yield from _idle_selection(arm, change)
    yield from _idle_mixing(arm, change)
    yield from _idle_keeping(arm, change)


def _idle_selection(arm: Arm, change: Change) -> Iterator[str]:
    """Who learns everything selects nothing; buffers score what they keep by `alpha` and `normalise` too."""
    if arm.train is None or arm.train.data == "drift" or not isinstance(change.base.get("train"), dict):
        return  # a block train that is written in full has to say how it would select
    buffered = arm.memory is not None and arm.memory.scope == "buffer"
    for key in ("scorer", "share") if buffered else ("scorer", "share", "alpha", "normalise"):
        value = change.made("train", "select", key)
        if value is not None:
            yield (
                f"train.select.{key} is {value!r}: only train.data drift selects, and train.data is "
                f"{arm.train.data}; leave it out, or take train.data drift"
            )


def _idle_mixing(arm: Arm, change: Change) -> Iterator[str]:
    """Without memory, or at lambda 0, nothing is retrieved; then, and at lambda 1, a single path is read."""
    lmbda = change.made("decode", "lmbda")
    if arm.memory is None and lmbda:
        yield (
            f"decode.lmbda is {lmbda!r}: it weighs the path with context, and memory is null; leave it out "
            f"or 0, or give a block memory"
        )
    scaled = arm.retrieve.gate in ("soft", "learned") or arm.retrieve.weight == "score"
    if arm.memory is not None and arm.decode.lmbda == 1 and not scaled:
        for key in ("confidence", "adaptive"):
            value = change.made("decode", key)
            if value is not None:
                yield f"decode.{key} is {value!r}: decode.lmbda is 1: only one path is read; leave it out"
    why = "memory is null" if arm.memory is None else "decode.lmbda is 0" if arm.decode.lmbda == 0 else None
    if why is None:
        return
    for path in (("retrieve", "profile"), ("decode", "confidence"), ("decode", "adaptive")):
        value = change.made(*path)
        if value is not None:
            yield f"{'.'.join(path)} is {value!r}: {why}, so that nothing is retrieved; leave it out"
    if change.made("retrieve", "gate") == "learned":
        yield f"retrieve.gate is 'learned': {why}, so that nothing is retrieved; leave it out"


def _idle_keeping(arm: Arm, change: Change) -> Iterator[str]:
    """Only a buffer has a capacity and a policy; some gates read a threshold, one learns from pairs."""
    if arm.memory is not None and arm.memory.scope != "buffer":
        for key in ("capacity", "policy"):
            value = change.made("memory", key)
            if value is not None:
                yield (
                    f"memory.{key} is {value!r}: only a buffer has one, and memory.scope is "
                    f"{arm.memory.scope}; leave it out, or take memory.scope buffer"
                )
    gate = arm.retrieve.gate
    for key, gates in (("sigma", ("strict", "soft")), ("pairs", ("learned",))):
        value = change.made("retrieve", key)
        if value is not None and gate not in gates:
            yield (
                f"retrieve.{key} is {value!r}: only gate {' or '.join(gates)} reads it, and retrieve.gate is "
                f"{gate or 'null'}; leave it out"
            )
