"""Layers that adapters lie on: read without weights, and refused by name where the model has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.pipeline import run, write_params

from spring.engine.device import ModelError
from spring.engine.folders import read_config
from spring.engine.layers import check_positions, layers_of, leaf
from spring.engine.survey import survey_twin
from tasks import model
from tasks.steps.experiment import Experiment

LLAMA = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
PLAIN: dict[str, Any] = {"memory": None, "decode": {"lmbda": 0.0}}
TOLD = r"arms\.x\.train\.lora\.target_modules is .* cannot lie on qproj of .*: "
TOLD += r"let arm\.train\.lora\.target_modules be some of down_proj, .*v_proj"


def targets(*names: str) -> dict[str, Any]:
    return {
        "base": {"train": None, "memory": None},
        "x": {"train": {"lora": {"target_modules": names}}, **PLAIN},
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    return tmp_path


def test_layers_are_those_of_the_twin(tiny_model_folder: Path, tiny: Any) -> None:
    assert sorted(survey_twin(read_config(tiny_model_folder)).layers) == LLAMA
    assert sorted({leaf(name) for name in layers_of(tiny)}) == LLAMA


def test_a_misspelt_layer_beside_a_good_one_stops_the_stage(
    project: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(project, tiny_model_folder, arms=targets("qproj", "v_proj"))
    with pytest.raises(ModelError, match=TOLD):
        run(model, monkeypatch)
    write_params(project, tiny_model_folder, arms=targets("q_proj", "v_proj"))
    run(model, monkeypatch)
    assert Experiment().base.digest


def test_texts_longer_than_the_model_reads_are_refused(tiny_model_folder: Path) -> None:
    most = json.loads((tiny_model_folder / "config.json").read_text())["max_position_embeddings"]
    check_positions(tiny_model_folder, most)
    with pytest.raises(ModelError, match=rf"model\.max_length is {most + 1} tokens, .* reads {most}"):
        check_positions(tiny_model_folder, most + 1)


def test_an_arm_that_came_after_the_stage_is_refused_when_the_model_is_loaded(
    project: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(project, tiny_model_folder)
    run(model, monkeypatch)
    write_params(project, tiny_model_folder, arms=targets("qproj", "v_proj"))
    with pytest.raises(ModelError, match=TOLD):
        _ = Experiment().base
