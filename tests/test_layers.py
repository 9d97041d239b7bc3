"""The house: flows -> tasks -> spring, rooms of spring and who may import whom, and no circle anywhere."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from spring.code import Code

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "spring": {"tasks", "flows", "bench", "prefect", "dvc", "wandb", "yaml"},
    "tasks": {"flows", "bench", "prefect", "dvc"},
    "flows": {"bench", "torch", "transformers", "wandb"},
}
# Rooms of spring, and what each may import of the others; a file at the top counts as a room.
ROOMS = {
    "code": set(),
    "store": {"code"},
    "words": set(),
    "engine": set(),
    "data": {"engine.strict", "store"},
    "live": {"engine.strict"},
    "measures": {"words"},
    "method": {"engine", "words"},
    "rivals": {"engine", "method", "measures"},
    "settings": {"engine", "data", "live", "measures", "method", "rivals", "store"},
}


def imported(path: Path) -> set[str]:
    """Every name that a module imports from or may import, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_imports_point_down_only(layer: str) -> None:
    modules = sorted((ROOT / layer).rglob("*.py"))
    assert modules
    for module in modules:
        assert not {name.split(".")[0] for name in imported(module)} & FORBIDDEN[layer], module


def test_every_room_is_known_and_says_what_it_is() -> None:
    there = {path.stem for path in (ROOT / "spring").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - {"__init__", "__pycache__"} == set(ROOMS)
    for room in ROOMS:
        file = Code().file(f"spring.{room}")
        assert file is not None and ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), room


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_what_they_may(room: str) -> None:
    place = ROOT / "spring" / room
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        for name in imported(file):
            parts = name.split(".")
            if parts[0] == "spring" and len(parts) > 1 and parts[1] != room:
                allowed = [other for other in ROOMS[room] if f"{name}.".startswith(f"spring.{other}.")]
                assert allowed, f"{file} imports {name}"


def circle(modules: dict[str, frozenset[str]]) -> list[str]:
    """A circle of imports; empty without one. A package's own __init__ is no import of its modules."""
    inner = {
        name: {other for other in found if other != name and not name.startswith(f"{other}.")}
        for name, found in modules.items()
    }
    try:
        TopologicalSorter(inner).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_anywhere() -> None:
    """Neither at the top nor hidden in a function or under TYPE_CHECKING."""
    code = Code()
    files = [path.relative_to(ROOT) for top in ("spring", "tasks") for path in (ROOT / top).rglob("*.py")]
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert len(names) > 100
    assert not circle({name: code.imports(name) for name in names})


def test_circles_are_found(tmp_path: Path) -> None:
    (tmp_path / "spring").mkdir()
    texts = {
        "__init__": "",
        "a": "from spring.b import x",
        "b": "def f():\n    import spring.c",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from spring import a",
    }
    for name, text in texts.items():
        (tmp_path / "spring" / f"{name}.py").write_text(text, encoding="utf-8")
    code = Code(tmp_path)
    assert set(circle({f"spring.{name}": code.imports(f"spring.{name}") for name in "abc"})) == {
        "spring.a",
        "spring.b",
        "spring.c",
    }
    (tmp_path / "spring" / "c.py").write_text("x = 1", encoding="utf-8")
    code = Code(tmp_path)
    assert not circle({f"spring.{name}": code.imports(f"spring.{name}") for name in "abc"})


def test_every_stage_has_a_module_of_its_name() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        command = stage.get("do", stage)["cmd"]
        assert command.startswith(f"python -m tasks.{name}"), command
        assert (ROOT / "tasks" / f"{name}.py").exists()
