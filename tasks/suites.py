"""Ablation suites: named sets of arms in suites/NAME.yaml, laid over params.yaml by its key `suite`.

    question   what the suite asks
    compared   the first arm against each of the others, and what to call them: the report's first sentence;
               without it the sentence is of the arm that leads and of `evaluate.against`
    published  the paper's own table of it: its name in suites/published.json, and which row each arm is
    arm        changes to what every arm starts from
    evaluate   changes to how arms are compared
    transfer   what every state is put to every period's tests for, where params.yaml asks for less
    hold_out   validation: the arms are settings to choose between, so that no test item may be looked at
    arms       the arms, each its difference from `arm`; they replace those of params.yaml

A value may be `${name}`: then it is that of `suite_values` in params.yaml, for what other data and models
need otherwise.

`python -m tasks.suites` lists the suites; with a name it checks that one and lists its arms.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from spring.engine.strict import Strict, nearest
from spring.settings.complaints import complaints
from spring.settings.params import ParameterError, Params, merge, parse
from tasks.tree import read_tree

FOLDER = Path(__file__).parents[1] / "suites"
PUBLISHED = FOLDER / "published.json"  # the figures of the paper
VALUE = re.compile(r"\$\{(.*?)\}")
MAIN = "main"  # keeps the arms, and the name of the experiment, of params.yaml


class Published(Strict):
    """Where the paper reports on the same question."""

    table: str  # in suites/published.json
    rows: dict[str, str]  # arm -> row

    @field_validator("table")
    @classmethod
    def _table_is_there(cls, table: str) -> str:
        tables = [name for name in read_published() if name.startswith("table")]
        if table not in tables:
            raise ValueError(f"must be one of {', '.join(tables)} (suites/published.json)")
        return table

    @field_validator("rows")
    @classmethod
    def _rows_are_there(cls, rows: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if "table" not in info.data:  # refused already
            return rows
        there = published_rows(info.data["table"])
        for arm, row in rows.items():
            if row not in there:
                raise ValueError(
                    f"{row!r}, the row of {arm!r}, must be one of {', '.join(there)} "
                    f"({info.data['table']} in suites/published.json)"
                )
        return rows


class Suite(Strict):
    """One file of suites/."""

    question: str
    published: Published | None
    compared: dict[str, str] = Field(default_factory=dict)
    arm: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)
    transfer: Literal["likelihood", "generation"] | None = None
    hold_out: Literal["validation"] | None = None
    arms: dict[str, dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _published_rows_are_of_arms(self) -> Suite:
        """Where the arms are those of params.yaml, rows of arms that are not there are left out."""
        if self.published is not None and self.arms is not None:
            unknown = [arm for arm in self.published.rows if arm not in self.arms]
            if unknown:
                raise ValueError(
                    f"published.rows names {', '.join(unknown)}, not among the arms {', '.join(self.arms)}"
                )
        return self

    @model_validator(mode="after")
    def _compared_are_arms(self) -> Suite:
        """As above: one of `main`'s may be none of params.yaml's."""
        unknown = [arm for arm in self.compared if self.arms is not None and arm not in self.arms]
        if unknown or len(self.compared) == 1:
            what = f"{', '.join(unknown)}, not among the arms" if unknown else "a single arm"
            raise ValueError(f"compared names {what}; it must name two or more of the suite's arms")
        return self


def read_published() -> dict[str, Any]:
    """The figures of the paper: table -> task -> row -> (ROUGE-1, ROUGE-L), and `source`."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def published_rows(table: str) -> list[str]:
    """The rows that one of the paper's tables has for every task."""
    first, *others = read_published()[table].values()
    return [row for row in first if row != "periods" and all(row in other for other in others)]


def suite_names() -> list[str]:
    """All suites, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def one_of_all(name: object) -> str:
    """What to write for an unknown suite."""
    near = nearest(name, suite_names())
    return f"must be one of {', '.join(suite_names())} (the files of suites/){near and f'; {near}'}"


def read_suite(name: object) -> Suite:
    """One suite; raises `ParameterError` for an unknown or unusable one."""
    if name not in suite_names():
        raise ParameterError(
            f"params.yaml cannot be used, nothing was run:\n  suite is {name!r}: {one_of_all(name)}"
        )
    return parse_suite(FOLDER / f"{name}.yaml")


def parse_suite(path: Path) -> Suite:
    """The suite in a file; raises `ParameterError` for an unusable one."""
    tree = read_tree(path)
    try:
        return Suite.model_validate(tree)
    except ValidationError as error:
        raise ParameterError(f"{path} cannot be used, nothing was run:\n{complaints(error, Suite)}") from None


def lay(tree: dict[str, Any], suite: Suite) -> dict[str, Any]:
    """A parsed params.yaml with `suite` laid over it; `tree` stays as it is."""
    values = tree.get("suite_values") or {}
    laid = merge(tree, {"arm": valued(suite.arm, values), "evaluate": valued(suite.evaluate, values)})
    if suite.arms is not None:
        laid |= {"arms": valued(suite.arms, values)}
    if suite.transfer == "generation" or tree.get("transfer") is None:
        laid |= {"transfer": suite.transfer}
    if tree.get("suite") != MAIN:
        laid |= {"experiment": f"{tree.get('experiment')}-{tree.get('suite')}"}  # so that it says which
    return laid


def valued(part: Any, values: dict[str, Any]) -> Any:
    """A part of a suite with the values that it names as `${name}`; `ParameterError` where one is missing."""
    if isinstance(part, dict):
        return {key: valued(inner, values) for key, inner in part.items()}
    if isinstance(part, list):
        return [valued(inner, values) for inner in part]
    named = VALUE.fullmatch(part) if isinstance(part, str) else None
    if named is None:
        return part
    if named[1] not in values:
        raise ParameterError(
            f"params.yaml cannot be used, nothing was run:\n"
            f"  suite_values.{named[1]} is missing: the suite refers to it as {part}; "
            f"there are {', '.join(values) or 'none'}"
        )
    return values[named[1]]


def check_values(values: Any) -> None:
    """`ParameterError` for values that no suite names: a misspelt one would change nothing."""
    if not isinstance(values, dict):
        raise ParameterError(
            f"params.yaml cannot be used, nothing was run:\n"
            f"  suite_values is {values!r}: must be a block of names and values"
        )
    named = {
        name for path in FOLDER.glob("*.yaml") for name in VALUE.findall(path.read_text(encoding="utf-8"))
    }
    for name in values:
        if name not in named:
            raise ParameterError(
                f"params.yaml cannot be used, nothing was run:\n  suite_values.{name}: no suite names it; "
                + (nearest(name, named) or f"they name {', '.join(sorted(named))}")
            )


def check_hold_out(tree: dict[str, Any], suite: Suite) -> None:
    """`ParameterError` where settings would be chosen by test items."""
    split = tree.get("split")
    held_out = split.get("hold_out") if isinstance(split, dict) else None  # what else it is `parse` refuses
    if suite.hold_out is not None and held_out != suite.hold_out:
        raise ParameterError(
            f"params.yaml cannot be used, nothing was run:\n"
            f"  split.hold_out is {held_out!r}: suite {tree['suite']} chooses between settings, which test "
            f"items must not decide; it must be {suite.hold_out!r}, as with NAME=validation"
        )


def as_suite_needs(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """A parsed params.yaml under a suite, with the items held out that it needs, as an experiment may set."""
    needed = read_suite(name).hold_out
    return merge(tree, {"suite": name} | ({"split": {"hold_out": needed}} if needed else {}))


def parse_with_suite(tree: Any, where: str, *, suite: Path | None = None) -> Params:
    """Checks a parsed parameter file together with its suite, which another file may hold as it was."""
    if not isinstance(tree, dict):
        raise ParameterError(f"{where} holds no parameters")
    name = tree.get("suite")
    over = parse_suite(suite) if suite else read_suite(name)
    if suite is None:
        check_values(tree.get("suite_values") or {})
        check_hold_out(tree, over)
    return parse(
        lay(tree, over), where=where if name == MAIN else f"{where} with {suite or f'suites/{name}.yaml'}"
    )


def main() -> None:
    """Lists suites, or the arms of one."""
    parser = argparse.ArgumentParser(prog="python -m tasks.suites", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="the suite to check")
    parser.add_argument("seeds", nargs="*", help="seeds to check")
    arguments = parser.parse_args()
    name = arguments.name
    if name and name not in suite_names():
        sys.exit(f"error: nothing was run: SUITE is {name!r}: {one_of_all(name)}")
    if wrong := [seed for seed in arguments.seeds if not seed.isdecimal()]:
        sys.exit(
            f'error: nothing was run: seed {wrong[0]!r} must be a whole number from 0 on, as in SEEDS="0 1 2"'
        )
    try:
        if not name:
            for one in suite_names():
                print(f"{one:10} {read_suite(one).question}")
            return
        params = parse_with_suite(as_suite_needs(read_tree(Path("params.yaml")), name), "params.yaml")
    except (ParameterError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"{name}: {read_suite(name).question}\narms: {', '.join(params.arms)}")


if __name__ == "__main__":
    main()
