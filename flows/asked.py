"""What a flow run is asked for: its parameters become one params.yaml per seed, checked before any stage.

Nothing here touches params.yaml of the project: a run has a folder of its own (workspace.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from dvc.exceptions import DvcException

from flows.named_experiments import (
    ExperimentError,
    Tree,
    committed,
    current,
    experiment_names,
    lay_experiment,
    lay_options,
)
from spring.engine.strict import nearest
from spring.settings.params import ParameterError
from tasks.params import PARAMS
from tasks.suites import one_of_all, parse_with_suite, suite_names


class AskedError(ValueError):
    """A parameter of the flow that cannot be used; the message names it, its value, and what may be there."""


def asked_for(
    name: str | None,
    suite: str | None,
    seeds: Sequence[int] | None,
    overrides: Sequence[str] | None,
    execution: Mapping[str, Any] | None = None,
) -> dict[int, Tree]:
    """Seed -> its parsed params.yaml, as `make ablate` would have it; `AskedError` for what cannot be used.

    With `name` (one of experiments/) they start from the committed params.yaml, else from the file as it is.
    Of `execution` the keys that are named.
    """
    tree = start_of(name)
    if suite is not None:
        if suite not in suite_names():
            raise AskedError(f"suite is {suite!r}: {one_of_all(suite)}")
        tree |= {"suite": suite}
    if execution is not None:
        tree |= {"execution": {**(tree.get("execution") or {}), **execution}}
    taken = {"suite": suite is not None, "seed": seeds is not None}
    taken |= {f"execution.{key}": True for key in execution or ()} | {"execution": bool(execution)}
    for option in overrides or ():
        tree = overridden(tree, option, taken)
    for seed in seeds if seeds is not None else ():
        if seed < 0:
            raise AskedError(f"seeds has {seed}: must be whole numbers from 0 on")
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
        raise AskedError(f"seeds is {list(seeds)}: must be at least one, and each once")
    trees = {seed: tree | {"seed": seed} for seed in seeds or [tree.get("seed", 0)]}
    for one in trees.values():
        try:
            parse_with_suite(one, PARAMS.name)
        except ParameterError as error:
            raise AskedError(str(error)) from None
    return trees


def start_of(name: str | None) -> Tree:
    """The parsed params.yaml that a run starts from."""
    try:
        if name is None:
            return current()
        if name not in experiment_names():
            raise AskedError(f"name is {name!r}: must be one of {', '.join(experiment_names())}")
        return lay_experiment(name, yaml.safe_load(committed()))
    except ExperimentError as error:
        raise AskedError(str(error)) from None


def overridden(tree: Tree, option: str, taken: dict[str, bool]) -> Tree:
    """The tree under one option of `dvc exp run -S`: key=value, +new=value or ~key."""
    key = option.partition("=")[0].lstrip("+~")
    if taken.get(key):
        raise AskedError(f"overrides has {option!r}, and the run has a parameter for it: give one of them")
    known = list(keys_of(tree))
    if not option.startswith("+") and key not in known:
        near = nearest(key, known)
        raise AskedError(f"overrides has {option!r}: {PARAMS} has no {key}{near and f'; {near}'}")
    try:
        return lay_options([option], tree)
    except DvcException as error:
        why = str(error.__cause__ or error).splitlines()[0]
        raise AskedError(f"overrides has {option!r}, must be as in `dvc exp run -S`: {why}") from None


def keys_of(tree: Any, at: str = "") -> Iterator[str]:
    """Dotted names of all keys, of blocks as well."""
    for key, inner in tree.items() if isinstance(tree, dict) else ():
        name = f"{at}.{key}" if at else str(key)
        yield name
        yield from keys_of(inner, name)
