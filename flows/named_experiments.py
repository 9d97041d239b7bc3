"""Experiments: named differences from params.yaml, experiments/NAME, one `dvc exp run` option a line.

    python -m flows.named_experiments                          lists them
    python -m flows.named_experiments --start [NAME] [-S ...]  makes params.yaml what such a run starts from

`dvc exp run` writes what it sets into params.yaml, where it stays when the run ends or is stopped. So that no
run takes over what an earlier one has set:

NAME is given    the run starts from the params.yaml of the last commit; edits of your own are refused
no NAME          it starts from params.yaml as it is, but for an experiment that an earlier run left there

What the run would set is checked before DVC starts. Staged changes of these files are unstaged.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides

from flows.before import mend
from spring.engine.strict import nearest
from spring.settings.params import ParameterError
from tasks.files import write_text
from tasks.params import PARAMS
from tasks.suites import parse_with_suite
from tasks.tree import read_tree

FOLDER = Path(__file__).parents[1] / "experiments"
PASSING = {"suite", "seed"}  # `make ablate` sets them, any experiment goes with any of them
KEEP = f"To keep that: git commit {PARAMS}"
UNDO = f"To undo it:   git checkout HEAD {PARAMS} dvc.lock data"
Tree = dict[str, Any]


class ExperimentError(RuntimeError):
    """An experiment that cannot start; the message says why and what to do."""


def main() -> None:
    """Lists the experiments, or prepares for a run."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.named_experiments", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--start", metavar="NAME", nargs="?", const="", help="prepare params.yaml for a run")
    parser.add_argument("-S", metavar="KEY=VALUE", action="append", default=[], help="what else the run sets")
    arguments = parser.parse_args()
    if arguments.start is None:
        print("\n".join(experiment_names()))
        return
    try:
        said = start(arguments.start, arguments.S)
        check(arguments.start, arguments.S)
        mend(lambda line: print(line, file=sys.stderr))
        unstage()
    except (ExperimentError, ParameterError) as error:
        sys.exit(f"error: {error}")
    if said:
        print(said)


def experiment_names() -> list[str]:
    """All experiments, by name."""
    return sorted(path.name for path in FOLDER.iterdir() if "." not in path.name)


def start(name: str = "", sets: Sequence[str] = ()) -> str:
    """Makes params.yaml what a run starts from, and says what it did; `ExperimentError` where it may not.

    `sets`: what the run sets itself, KEY=VALUE.
    """
    if name and name not in experiment_names():
        near = nearest(name, experiment_names())
        raise ExperimentError(
            f"NAME is {name!r}: must be one of {', '.join(experiment_names())} (the files of experiments/)"
            + (near and f"; {near}")
        )
    text = committed()
    before, now = yaml.safe_load(text), current()
    edits = list(changed(before, now))
    own = [key for key in edits if key not in PASSING]
    left = [other for other in experiment_names() if own and leaves(other, before, now)]
    if left or (name and not own and edits):
        write_text(text, PARAMS)
        what = f"experiments/{left[0]}" if left else " and ".join(edits)
        return f"{PARAMS} is that of the last commit again; an earlier run had left {what}."
    if name and own:
        raise ExperimentError(
            f"NAME={name} starts from the last commit, and {PARAMS} has another {', '.join(own)}. "
            f"Nothing was run.\n  {KEEP}\n  {UNDO}"
        )
    edits = [key for key in edits if key not in {option.partition("=")[0] for option in sets}]
    return f"Used as they stand in {PARAMS}, though not committed: {', '.join(edits)}." if edits else ""


def unstage() -> None:
    """Takes out of Git's index what a killed `dvc exp run` has put there, and would refuse to start with.

    The files stay as they are.
    """
    subprocess.run(["git", "reset", "--quiet", "--", PARAMS, "dvc.lock", "data"], check=True)


def check(name: str, sets: Sequence[str] = ()) -> None:
    """Raises what says why the run would stop before or at its first stage."""
    try:
        laid = lay_options([*(options_of(name) if name else []), *sets], current())
    except DvcException as error:
        said = str(error.__cause__ or error).splitlines()[0]
        raise ExperimentError(f"experiments/{name} cannot be used, nothing was run:\n  {said}") from None
    parse_with_suite(laid, f"{PARAMS} under experiments/{name}" if name else str(PARAMS))


def committed() -> str:
    """params.yaml of the last commit."""
    command = ["git", "show", f"HEAD:./{PARAMS}"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise ExperimentError(f"`dvc exp run` needs {PARAMS} in git: {done.stderr.strip()}")
    return done.stdout


def current() -> Tree:
    """params.yaml as it is."""
    try:
        tree = read_tree(PARAMS)
    except FileNotFoundError:
        raise ExperimentError(f"{PARAMS} is missing.\n  {UNDO}") from None
    except ParameterError as error:
        raise ExperimentError(f"{error}\n  {UNDO}") from None
    if not isinstance(tree, dict):
        raise ExperimentError(f"{PARAMS} holds no parameters.\n  {UNDO}")
    return tree


def leaves(name: str, before: Tree, now: Tree) -> bool:
    """Whether `now` is what a run of this experiment leaves, under any suite and seed."""
    try:
        return set(changed(lay_experiment(name, before), now)) <= PASSING
    except DvcException:  # DVC would refuse its options: no run of it has left anything
        return False


def lay_experiment(name: str, tree: Tree) -> Tree:
    """A parsed params.yaml as DVC leaves it under the options of an experiment; `tree` stays as it is."""
    return lay_options(options_of(name), tree)


def options_of(name: str) -> list[str]:
    """What an experiment sets, KEY=VALUE."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    words = shlex.split((FOLDER / name).read_text(encoding="utf-8"))
    return list(parser.parse_known_args(words)[0].set_param)


def lay_options(options: Sequence[str], tree: Tree) -> Tree:
    """A parsed params.yaml as DVC leaves it under options; `tree` stays as it is."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS.name
        path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
        apply_overrides(path, list(options))
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def changed(before: Any, now: Any, at: str = "") -> Iterator[str]:
    """Dotted names of the keys whose values differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        if before != now:
            yield at
        return
    nothing = object()
    for key in dict.fromkeys([*before, *now]):
        yield from changed(before.get(key, nothing), now.get(key, nothing), f"{at}.{key}" if at else key)


if __name__ == "__main__":
    main()
