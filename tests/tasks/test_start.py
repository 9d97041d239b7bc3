"""What a stage imports: nothing heavy where all is there, and with the model no more than it needs."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit.pipeline import ROOT, run, write_params, write_table

from spring.engine.heap import SELDOM, USUAL, collect_as_usual, collect_seldom
from tasks import ingest, model, score_base, split

OTHERS = {"faiss", "matplotlib", "nltk", "pandas", "peft", "prefect", "ray", "sklearn", "wandb"}
HEAVY = OTHERS | {"jinja2", "numba", "scipy", "sympy", "tokenizers", "torch", "transformers"}
STAGE = """
import sys
from tasks import score_base
score_base.main()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture
def project(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with rows and a model."""
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    monkeypatch.chdir(tmp_path)
    write_table(Path("table.csv"), users=2, items=12)
    write_params(Path(), tiny_model_folder)
    for stage in (ingest, split, model):
        run(stage, monkeypatch)
    return tmp_path


def imported(project: Path) -> set[str]:
    """The packages that a process of the stage `score_base` has imported by its end."""
    done = subprocess.run(
        [sys.executable, "-c", STAGE],
        cwd=project,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_a_stage_whose_cells_are_there_starts_light(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run, in this process, fills the store; without it the model is back."""
    run(score_base, monkeypatch)
    assert not imported(project) & HEAVY
    shutil.rmtree(project / ".cells")
    found = imported(project)
    assert {"torch", "transformers", "numba"} <= found
    assert not found & OTHERS


def modules_of(stage: str) -> set[str]:
    """All modules that importing a stage brings."""
    program = f"import sys; from tasks import {stage}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("stage", ["code", "params"])
def test_what_runs_with_nothing_to_do_is_lighter_still(stage: str) -> None:
    found = modules_of(stage)
    assert f"tasks.{stage}" in found and not found & HEAVY
    assert stage == "params" or not found & {"numpy", "polars"}


@pytest.mark.parametrize("stage", ["evaluate", "report"])
def test_libraries_of_scores_wait_until_there_are_texts(stage: str) -> None:
    late = {"nltk", "rouge_score", "sacrebleu", "sklearn", "scipy.stats", "torch"}
    assert not modules_of(stage) & late


def test_circles_of_garbage_are_found_soon_once_the_model_is_there() -> None:
    """A stage starts with rare looks at what it imports; with a model, tensors may lie in circles."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        collect_seldom()
        assert gc.get_threshold() == SELDOM
        collect_as_usual()
        assert gc.get_threshold() == USUAL and gc.get_freeze_count() > frozen
        frozen = gc.get_freeze_count()
        held: list[object] = [[] for _ in range(100)]
        collect_as_usual()  # a second model: what was made meanwhile may still become garbage
        assert gc.get_freeze_count() <= frozen and len(held) == 100
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
