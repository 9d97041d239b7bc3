"""The Makefile: what is typed for NAME, SUITE and SEEDS is checked before any work, and never run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("spring", "tasks", "flows", "suites", "experiments")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in a folder with a blank in its name, its environment that of this Python."""
    root = tmp_path_factory.mktemp("a clone")
    for name in CODE:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "params.yaml", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, root / name)
        os.utime(root / name, (0, 0))  # older than the environment, which is not made anew
    if not (Path(sys.prefix) / ".ready").exists():
        pytest.skip("this Python's environment was not made by `make setup`")
    (root / ".venv").symlink_to(sys.prefix)
    return root


def make(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SUITE", "SEEDS"}  # of a `make test` that this runs under
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment["NAME"] = "of the environment"
    return subprocess.run(["make", *words], cwd=project, env=environment, capture_output=True, text=True)


TYPED = [
    "; touch hacked",
    "$(touch hacked)",
    "`touch hacked`",
    "$(shell touch hacked)",
    '" ; touch hacked; "',
]
TYPED += ["--help", "../params.yaml", "acl extra"]


@pytest.mark.slow
@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("variable", ["NAME", "SUITE", "SEEDS"])
def test_nothing_typed_is_run(variable: str, typed: str, project: Path) -> None:
    words = {"NAME": ["experiment"], "SUITE": ["ablate"], "SEEDS": ["ablate", "SUITE=lambda"]}[variable]
    done = make(project, *words, f"{variable}={typed}")
    assert done.returncode != 0
    assert "error: " in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(project.rglob("hacked")) and not (project / "data").exists()


@pytest.mark.slow
def test_lists_and_a_blank_in_the_path(project: Path) -> None:
    """Without a name both list what there is; the environment's NAME is nobody's."""
    assert make(project, "experiment").stdout.split() == sorted(
        path.name for path in (ROOT / "experiments").iterdir() if "." not in path.name
    )
    assert "lambda" in make(project, "ablate").stdout
    assert "make repro" in make(project, "help").stdout
