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


MISTAKES = [
    ("experiment NAME=alc", "NAME is 'alc': must be one of acl, acl-validation, "),
    ("experiment NAME=changelog", "; did you mean changelogs?"),
    ("experiment NAME=acl SEEDS=1", "make experiment takes no SEEDS: make ablate "),
    ("ablate SUITE=lamda", "SUITE is 'lamda': must be one of alpha, "),
    ("ablate SUITE=lamda", "; did you mean lambda?"),
    ("ablate SUITE=lambda SEEDS=one", "seed 'one' must be a whole number from 0 on"),
    ("ablate SUITE=lambda SEEDS=0,1", "seed '0,1' must be a whole number from 0 on"),
    ("ablate SUITE=lambda SEED=1", "make reads no SEED; it reads NAME, SUITE, SEEDS and RESULTS"),
    ("ablate SUITE=lambda NAME=alc", "NAME is 'alc': must be one of acl, "),
    ("repro SUITE=lambda", "make repro takes no SUITE: it runs params.yaml as it stands"),
    ("repro NAME=acl", "make repro takes no NAME: "),
    ("compare SUITE=lambda", "make compare takes no SUITE: "),
]


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "said"), MISTAKES)
def test_mistakes_are_told_before_any_work(typed: str, said: str, project: Path) -> None:
    done = make(project, *typed.split())
    assert done.returncode != 0 and said in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) <= 5 and not (project / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["repro"], ["ablate", "SUITE=lambda"]])
def test_parameters_are_checked_before_dvc_starts(words: list[str], project: Path) -> None:
    """There is none here: it would say so."""
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("    lmbda: 0.5", "    lmbda: 2"), encoding="utf-8")
    done = make(project, *words)
    params.write_text(text, encoding="utf-8")
    assert done.returncode != 0 and "arm.decode.lmbda is 2: must be less than or equal to 1" in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) <= 5 and not (project / "data").exists()
