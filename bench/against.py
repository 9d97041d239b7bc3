"""The default experiment of an earlier build and of this one, by turns: `python -m bench.against REV`.

Both run from nothing, conversion of the model included, with this Python and its packages, each in a worktree
of its own (bench/builds.py). Parameters are those of the earlier build: of a key that both have, the later
one takes the earlier one's value; keys that only one has stay as they are there. `--users N` and `--set
KEY=VALUE` go to both. Before times are compared, results are: every metric of every arm that both have, but
for seconds and bytes, must agree to `--tolerance`, in every round; else there is no table and the exit
status is 1. Written to bench/results/against.json.
"""

from __future__ import annotations

import argparse
import copy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import yaml
from tqdm import tqdm

from bench.builds import Build, BuildError, Run, Tree, count_stages, find, git, params_of, run
from bench.machine import about, write_result
from tasks.params import load_params

USERS = "ingest.personas.users"
WHOLE = {"periods"}  # tables whose keys are themselves a parameter
COSTS = ("seconds", "bytes")  # words of a metric's name that say what it cost, not what came out
TOLD = 20  # differences that are listed
Key = tuple[str, ...]


# --- parameters -------------------------------------------------------------------------------------------


def laid(tree: Tree, other: Tree, path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """The keys of `tree` that `other` has with another value, and that value."""
    for key in tree.keys() & other.keys():
        one, two = tree[key], other[key]
        if isinstance(one, dict) and isinstance(two, dict) and key not in WHOLE:
            yield from laid(one, two, (*path, key))
        elif one != two:
            yield (*path, key), two


def put(tree: Tree, path: Key, value: Any) -> bool:
    """Sets a key if it exists; says whether it does."""
    *parents, last = path
    at: Any = tree
    for key in parents:
        at = at.get(key) if isinstance(at, dict) else None
    there = isinstance(at, dict) and last in at
    if there:
        at[last] = value
    return there


def prepare(older: Tree, newer: Tree, asked: Mapping[str, Any]) -> tuple[Tree, Tree, list[str]]:
    """Parameters of both builds, and a line for everything that was changed or cannot be."""
    old, new = copy.deepcopy(older), copy.deepcopy(newer)
    said = []
    for path, value in sorted(laid(newer, older)):
        put(new, path, value)
        if ".".join(path) not in asked:
            said.append(f"{'.'.join(path)}: {value!r}, as in the earlier build")
    for name, value in asked.items():
        there = [put(tree, tuple(name.split(".")), value) for tree in (old, new)]
        if not any(there):
            raise BuildError(f"--set {name}: neither build's params.yaml has this key")
        which = "earlier" if there[0] else "later"
        only = "" if all(there) else f", in the {which} build: the other has no such key"
        said.append(f"{name}: {value!r}{only}")
    for one, two, which in ((old, new, "earlier"), (new, old, "later")):
        if alone := sorted(one["arms"].keys() - two["arms"].keys()):
            said.append(f"only the {which} build has (and pays for) the arms {', '.join(alone)}")
    return old, new, said


# --- results ----------------------------------------------------------------------------------------------


def numbers(tree: Mapping[str, Any], path: Key = ()) -> Iterator[tuple[Key, float]]:
    """Every number in a tree of metrics, but for what was spent."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from numbers(value, (*path, key))
        elif isinstance(value, (int, float)) and not set(COSTS) & set(key.split("_")):
            yield (*path, key), value


def differences(one: Tree, other: Tree, tolerance: float) -> list[str]:
    """Metrics of arms that both have and that differ by more than `tolerance` of 1 or of the larger value."""
    arms = one["arms"].keys() & other["arms"].keys()
    if not arms:
        raise BuildError("the builds have no arm in common, so there is nothing to compare")
    found = []
    for arm in sorted(arms):
        mine, theirs = (dict(numbers(tree["arms"][arm])) for tree in (one, other))
        shared = mine.keys() & theirs.keys()
        if not shared:
            raise BuildError(f"the builds have no metric of arm {arm} in common")
        for key in sorted(shared):
            apart = abs(mine[key] - theirs[key])
            if not apart <= tolerance * max(1.0, abs(mine[key]), abs(theirs[key])):
                found.append(
                    f"arm {arm}, {'.'.join(key)}: {mine[key]:g} and {theirs[key]:g}, {apart:.2g} apart"
                )
    return found


# --- times ------------------------------------------------------------------------------------------------


def by_turns(
    builds: Sequence[tuple[Build, Tree]], rounds: int, check: Callable[[Run, Run], None]
) -> list[list[Run]]:
    """The runs of each build, `rounds` of each by turns; `check` is given the first and every later one."""
    found: list[list[Run]] = [[] for _ in builds]
    total = rounds * sum(count_stages(build, tree) for build, tree in builds)
    with tqdm(total=total, unit="stage", smoothing=0) as bar:
        for number in range(rounds):
            order = range(len(builds))
            for place in order if number % 2 == 0 else reversed(order):  # none is always the first
                build, tree = builds[place]

                def hear(stage: str, name: str = f"round {number + 1} of {rounds}, {build.name}") -> None:
                    bar.update()
                    bar.set_description(f"{name}, {stage}")

                found[place].append(run(build, tree, hear))
                check(found[0][0], found[place][-1])
    return found


def grouped(one: Run) -> dict[str, float]:
    """Seconds of a run by stage, all periods together, and of all."""
    found: dict[str, float] = {}
    for stage, seconds in one.stages.items():
        name = stage.partition("@")[0]
        found[name] = found.get(name, 0.0) + seconds
    return found | {"all": one.seconds}


def summary(older: Sequence[Run], newer: Sequence[Run]) -> dict[str, dict[str, float | None]]:
    """Stage -> medians of both builds, seconds, and of the rounds' ratios; null: there is no such stage."""
    old, new = ([grouped(one) for one in runs] for runs in (older, newer))
    stages = [name for name in dict.fromkeys([*new[0], *old[0]]) if name != "all"]
    found: dict[str, dict[str, float | None]] = {}
    for stage in [*stages, "all"]:
        sides = [[one[stage] for one in runs if stage in one] for runs in (old, new)]
        ratios = [b / a for a, b in zip(*sides, strict=False)]
        medians = [median(side) if side else None for side in sides]
        found[stage] = {
            "older": medians[0],
            "newer": medians[1],
            "ratio": median(ratios) if ratios else None,
            "lowest": min(ratios, default=None),
            "highest": max(ratios, default=None),
        }
    return found


def table(found: Mapping[str, Mapping[str, float | None]], older: str, newer: str) -> str:
    """A Markdown table."""
    lines = [f"| stage | {older}, s | {newer}, s | ratio |", "|---|---:|---:|---:|"]
    for stage, row in found.items():
        one, two = ("–" if row[side] is None else f"{row[side]:.1f}" for side in ("older", "newer"))
        ratio = "–"
        if row["ratio"] is not None:
            ratio = f"{row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
        lines.append(f"| `{stage}` | {one} | {two} | {ratio} |")
    return "\n".join(lines)


# --- all of it --------------------------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> None:
    """Runs both builds, prints the table and writes the figures; `BuildError` where results differ."""
    older, newer = find(options.rev), find(options.to)
    asked = dict(options.set) | ({USERS: options.users} if options.users is not None else {})
    old, new, said = prepare(params_of(older), params_of(newer), asked)
    print("\n".join(said))
    if options.to == "HEAD" and git("status", "--porcelain", "--untracked-files=no"):
        print("The working tree has changes that HEAD, which is measured, has not")

    def check(first: Run, later: Run) -> None:
        if found := differences(first.metrics, later.metrics, options.tolerance):
            more = f"\n  and {len(found) - TOLD} more" if len(found) > TOLD else ""
            raise BuildError(
                f"results differ by more than --tolerance {options.tolerance:g} of 1 or of the value, so "
                "times are not compared:\n  " + "\n  ".join(found[:TOLD]) + more
            )

    runs = by_turns([(older, old), (newer, new)], options.rounds, check)
    found = summary(*runs)
    peaks = [median(one.peak_mb for one in side) for side in runs]
    print(table(found, older.name, newer.name))
    print(f"Peak memory of a process: {peaks[0]:.0f} and {peaks[1]:.0f} MB, {peaks[1] / peaks[0]:.2f} x")
    sides = dict(zip(("older", "newer"), runs, strict=True))
    write_result(
        "against",
        about(load_params().model),
        older=vars(older),
        newer=vars(newer),
        changed=said,
        rounds=options.rounds,
        tolerance=options.tolerance,
        stages=found,
        peak_mb={side: [one.peak_mb for one in done] for side, done in sides.items()},
        runs={side: [one.stages for one in done] for side, done in sides.items()},
    )


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value read as in params.yaml."""
    key, given, value = text.partition("=")
    if not given or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, as in model.memory_gb=1.0")
    return key, yaml.safe_load(value)


def whole(text: str) -> int:
    """A number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def main(words: Sequence[str] | None = None) -> None:
    """Compares; what is interrupted or ended leaves no worktree behind."""
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__.splitlines()[0])
    parser.add_argument("rev", help="the earlier commit")
    parser.add_argument("--to", default="HEAD", help="the later commit (HEAD: without uncommitted changes)")
    parser.add_argument("--rounds", type=whole, default=3)
    parser.add_argument("--users", type=whole, help="of personas; else as many as the earlier build has")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    options = parser.parse_args(words)
    for ending in (signal.SIGTERM, signal.SIGINT):  # also where a shell lets its children ignore Ctrl-C
        signal.signal(ending, lambda *_: sys.exit("ended; nothing is left behind"))
    try:
        compare(options)
    except (BuildError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
