"""Ablation suites: named sets of arms in suites/NAME.yaml, laid over params.yaml by its key `suite`.

    question   what the suite asks
    published  the paper's own table of it: its name in suites/published.json, and which row each arm is
    arm        changes to what every arm starts from
    evaluate   changes to how arms are compared
    transfer   whether every state is put to every period's tests, where params.yaml leaves that off
    arms       the arms, each its difference from `arm`; they replace those of params.yaml

`python -m tasks.suites` lists the suites; with a name it checks that one and lists its arms.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Literal

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
    transfer: Literal["likelihood", "generation"] | None = None
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
    return parse_suite(FOLDER / f"{name}.yaml")


def parse_suite(path: Path) -> Suite:
    """The suite in a file; raises `ParameterError` for an unusable one."""
    try:
        return Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        raise ParameterError(f"{path} cannot be used, nothing was run:\n{complaints(error)}") from None


def lay(tree: dict[str, Any], suite: Suite) -> dict[str, Any]:
    """A parsed params.yaml with `suite` laid over it; `tree` stays as it is."""
    laid = merge(tree, {"arm": suite.arm, "evaluate": suite.evaluate})
    if suite.arms is not None:
        laid |= {"arms": suite.arms}
    if suite.transfer is not None and tree.get("transfer") is None:
        laid |= {"transfer": suite.transfer}
    if tree.get("suite") != MAIN:
        laid |= {"experiment": f"{tree.get('experiment')}-{tree.get('suite')}"}  # a group of its own in W&B
    return laid


def parse_with_suite(tree: Any, where: str, *, suite: Path | None = None) -> Params:
    """Checks a parsed parameter file together with its suite, which another file may hold as it was."""
    if not isinstance(tree, dict):
        raise ParameterError(f"{where} holds no parameters")
    name = tree.get("suite")
    over = parse_suite(suite) if suite else read_suite(name)
    return parse(
        lay(tree, over), where=where if name == MAIN else f"{where} with {suite or f'suites/{name}.yaml'}"
    )


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
