"""`make gpu-check` where there is no GPU: all of it, small; and that what is wrong is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import checks, report
from bench.gpu.__main__ import main
from bench.gpu.models import KINDS, ROADS
from bench.gpu.pace import Pace
from bench.gpu.timing import Job, timed
from spring.engine.roads import road_of

CPU = torch.device("cpu")
NAMES = {kind.name for kind in KINDS}


@pytest.mark.long
def test_a_small_run_says_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--tiny", "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found) == {
        "about",
        "tiny",
        "checks",
        "jobs",
        "inside",
        "left_out",
        "failed",
        "seconds",
    }
    assert found["tiny"] and found["failed"] == [] and found["left_out"] == []
    assert set(found["about"]) >= {"machine", "device", "torch", "peft", "date", "commit", "limits"}
    assert all(row["holds"] and row["error"] <= row["bound"] for row in found["checks"])
    seen = {(row["model"], row["dtype"], row["road"]) for row in found["checks"]}
    wanted = {(name, dtype, road) for name in NAMES for dtype in ("float32", "bfloat16") for road in ROADS}
    assert seen >= wanted
    assert {row["model"] for row in found["jobs"]} == NAMES
    assert {row["job"] for row in found["jobs"]} == {
        "score",
        "score texts of 48",
        "train q, v",
        "train all linear",
        "generate",
        "score, padded road",
        "generate, padded road",
    }
    for row in found["jobs"]:
        assert row["tokens_per_second"] > 0 and row["of_limit"] > 0 and row["rounds"] == 1
        assert row["peak_gb"] is None, "a processor counts no memory of a card"
    for name in NAMES:
        assert set(found["inside"][name]["decoding"]) == {"rows", "step_ms", "least_ms"}
        assert set(found["inside"][name]["training"]) == {"users", "step_ms", "least_ms"}
    said = capsys.readouterr().out
    assert f"All {len(found['checks'])} checks hold." in said
    assert said.count("| gemma-3-4b | generate |") == 2


def spoiled(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every number of one layer's B off by a hundredth."""
    name = next(name for name in state if "lora_B" in name)
    return {**state, name: 1.01 * state[name]}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_adapter_that_is_a_little_off_is_found(kind: Any, road: str) -> None:
    """float32: likelihoods and gradients tell; that the same case holds unspoiled, the test above says."""
    case = checks.case(kind, CPU, torch.float32, road=road, spoil=spoiled)
    assert road_of(case.sides.model).padded == (road == "padded")
    for check in (checks.scoring, checks.training):
        assert not check(case)[0].holds
    assert all(one.holds for one in checks.caching(case)), "this one asks the engine alone"


def test_a_wrong_weight_of_the_paths_is_found() -> None:
    """The engine mixes with 0.5; judged as if it had been 0.9, its tokens are not the best."""
    case = checks.case(KINDS[1], CPU, torch.float32)
    [first, *_] = case.queries
    [answer] = case.sides.answer([first], checks.DECODING)
    assert max(case.exact.regrets(first, answer.tokens, checks.DECODING)) < 1e-3
    other = type(first)(first.prompt, first.context_prompt, 0.9, first.slot)
    assert max(case.exact.regrets(other, answer.tokens, checks.DECODING)) > 0.1


def test_no_number_holds_nothing() -> None:
    """NaN is within no bound; it is told and is no JSON."""
    one = checks.Check("scores", "a model", "float32", "packed", float("nan"), 1.0)
    assert not one.holds
    row = {"check": "scores", "model": "a model", "dtype": "float32", "road": "packed", "holds": False}
    said = report.verdict({"checks": [{**row, "error": None, "bound": 1.0}], "failed": [], "left_out": []})
    assert said == ["WRONG: scores (a model, float32, packed): no number, at most 1.0e+00"]


def test_no_time_leaves_parts_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is checked then, and that is told, not that all holds."""
    out = tmp_path / "gpu.json"
    assert main(["--tiny", "--minutes", "0", "--out", str(out)]) == 1
    assert "Not everything was checked" in capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["checks"] == [] and found["jobs"] == []
    assert {one["why"] for one in found["left_out"]} == {"no time", "no model, or its sides do not agree"}


def test_time_is_shared_out() -> None:
    """100 seconds less 5 spare, in parts of 1 to 3; what the first leaves goes to the second."""
    pace = Pace(100, {"a": 1, "b": 3})
    assert pace.begin("a") == pytest.approx(95 / 4, abs=0.1)
    pace.end("a")
    assert pace.begin("b") == pytest.approx(95, abs=0.1)
    pace.end("b")
    pace.close()


def test_rounds_are_as_many_as_time_allows() -> None:
    """By turns, PEFT first, after once each to warm up."""
    turns: list[str] = []
    job = Job("job", 1, lambda: turns.append("engine"), lambda: turns.append("peft"), 10, 5, 1e-9)
    assert timed(job, CPU, allowed=0.0)["rounds"] == 1
    assert turns == ["peft", "engine"] * 2
    assert timed(job, CPU, allowed=60.0)["rounds"] == 5
