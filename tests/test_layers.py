"""The layers: flows -> tasks -> spring, and what each may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "spring": {"tasks", "flows", "prefect", "dvc", "wandb", "yaml"},
    "tasks": {"flows", "prefect", "dvc"},
    "flows": {"torch", "transformers", "wandb"},
}


def imported(path: Path) -> set[str]:
    """Top-level names of everything a module imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_imports_point_down_only(layer):
    modules = sorted((ROOT / layer).rglob("*.py"))
    assert modules
    for module in modules:
        assert not imported(module) & FORBIDDEN[layer], module


def test_every_stage_has_a_module_of_its_name():
    import yaml

    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        command = stage.get("do", stage)["cmd"]
        assert command.startswith(f"python -m tasks.{name}"), command
        assert (ROOT / "tasks" / f"{name}.py").exists()
