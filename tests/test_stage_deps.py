"""Every stage of dvc.yaml depends on the project's code that it runs: a change there runs it again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# How parameters and files are read and checked; what is read counts by itself, under `params` and `deps`.
READING = {"tasks.files", "tasks.suites", "spring.settings.params", "spring.engine.strict"}
READING |= {f"spring.{kind}_params" for kind in ("source", "arm", "train")}
Symbol = tuple[str, str | None]  # a module, and a name at its top level; None: all of them


def file_of(module: str) -> Path | None:
    """The file of a module or package of the project."""
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what no run looks at: annotations of functions, and imports for them."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return ast.Assign([node.target], node.value or ast.Constant(None))

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


@cache
def read(module: str) -> tuple[dict[str, ast.AST], dict[str, Symbol]]:
    """What a module defines at its top level, and what it imports of the project, also inside functions."""
    file = file_of(module)
    assert file is not None, module
    tree = WithoutTypes().visit(ast.parse(file.read_text(encoding="utf-8")))
    defined: dict[str, ast.AST] = {}
    imported: dict[str, Symbol] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign):
            names = [
                name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)
            ]
            defined |= dict.fromkeys(names, node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: (alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                whole = file_of(inner) is not None
                imported[alias.asname or alias.name] = (inner, None) if whole else (node.module, alias.name)
    return defined, {name: at for name, at in imported.items() if file_of(at[0])}


def uses(symbol: Symbol) -> Iterator[Symbol]:
    """What a function, a class or a value mentions by name."""
    module, name = symbol
    defined, imported = read(module)
    if name in imported and name not in defined:
        yield imported[name]  # passed on
    for node in (inner for top in ([defined[name]] if name in defined else []) for inner in ast.walk(top)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            at, whole = imported.get(node.value.id, ("", ""))
            if whole is None:
                yield at, node.attr
        elif isinstance(node, ast.Name) and imported.get(node.id, ("", None))[1]:
            yield imported[node.id]
        elif isinstance(node, ast.Name) and node.id in defined:
            yield module, node.id


def reached(module: str) -> dict[str, Symbol]:
    """Files of the project that a module's `main` runs, each with one name that is used of it."""
    seen: set[Symbol] = set()
    todo: list[Symbol] = [(module, "main")]
    while todo:
        symbol = todo.pop()
        if symbol not in seen and symbol[0] not in READING:
            seen.add(symbol)
            todo += uses(symbol)
    return {str(path.relative_to(ROOT)): at for at in seen if (path := file_of(at[0]))}


def deps_of(stage: dict[str, Any]) -> list[str]:
    return list(stage.get("do", stage)["deps"])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(name: str) -> None:
    deps = deps_of(STAGES[name])
    files = reached(f"tasks.{name}")
    assert f"tasks/{name}.py" in files
    missing = {
        file: symbol
        for file, symbol in files.items()
        if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)
    }
    assert not missing, f"add to the deps of {name} in dvc.yaml"


@pytest.mark.parametrize("name", STAGES)
def test_deps_that_are_code_exist(name: str) -> None:
    for dep in deps_of(STAGES[name]):
        assert not dep.startswith(("tasks/", "spring/")) or (ROOT / dep).exists(), dep


def test_the_walk_goes_into_functions_and_past_what_is_not_used() -> None:
    """cells/scoring.py imports the engine where it scores; evaluate wants one set of replay.py."""
    assert "spring/engine/scoring.py" in reached("tasks.score_base")
    assert "spring/method/replay.py" in reached("tasks.evaluate")
    assert not [file for file in reached("tasks.evaluate") if file.startswith("spring/engine")]
