"""Ablation suites: named sets of arms in suites/NAME.yaml, laid over params.yaml by its key `suite`.

    question   what the suite asks
    published  the paper's own table of it: its name in suites/published.json, and which row each arm is
    arm        changes to what every arm starts from
    evaluate   changes to how arms are compared
    arms       the arms, each its difference from `arm`; they replace those of params.yaml

`python -m tasks.suites` lists the suites; with a name it checks that one and lists its arms.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from spring.params import ParameterError, Params, complaints, merge, parse
from spring.strict import Strict

FOLDER = Path(__file__).parents[1] / "suites"
MAIN = "main"  # keeps the arms, and the name of the experiment, of params.yaml


class Published(Strict):
    """Where the paper reports on the same question."""

    table: str  # in suites/published.json
    rows: dict[str, str]  # arm -> row


class Suite(Strict):
    """One file of suites/."""

    question: str
    published: Published | None
    arm: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, dict[str, Any]] | None = None


def suite_names() -> list[str]:
    """All suites, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_suite(name: object) -> Suite:
    """One suite; raises `ParameterError` for an unknown or unusable one."""
    if name not in suite_names():
        raise ParameterError(
            f"params.yaml cannot be used, nothing was run:\n"
            f"  suite is {name!r}: must be one of {', '.join(suite_names())} (the files of suites/)"
        )
    path = FOLDER / f"{name}.yaml"
    try:
        return Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        raise ParameterError(f"{path} cannot be used, nothing was run:\n{complaints(error)}") from None


def lay(tree: dict[str, Any]) -> dict[str, Any]:
    """A parsed params.yaml with its suite laid over it; `tree` stays as it is."""
    name = tree.get("suite")
    suite = read_suite(name)
    laid = merge(tree, {"arm": suite.arm, "evaluate": suite.evaluate})
    if suite.arms is not None:
        laid |= {"arms": suite.arms}
    if name != MAIN:
        laid |= {"experiment": f"{tree.get('experiment')}-{name}"}  # a group of its own in W&B
    return laid


def parse_with_suite(tree: Any, where: str) -> Params:
    """Checks a parsed parameter file together with its suite."""
    if not isinstance(tree, dict):
        raise ParameterError(f"{where} holds no parameters")
    name = tree.get("suite")
    return parse(lay(tree), where=where if name == MAIN else f"{where} with suites/{name}.yaml")


def main() -> None:
    """Lists suites, or the arms of one."""
    parser = argparse.ArgumentParser(prog="python -m tasks.suites", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="the suite to check")
    name = parser.parse_args().name
    if not name:
        for one in suite_names():
            print(f"{one:10} {read_suite(one).question}")
        return
    try:
        params = parse_with_suite(
            yaml.safe_load(Path("params.yaml").read_text()) | {"suite": name}, "params.yaml"
        )
    except ParameterError as error:
        sys.exit(f"error: {error}")
    print(f"{name}: {read_suite(name).question}\narms: {', '.join(params.arms)}")


if __name__ == "__main__":
    main()
