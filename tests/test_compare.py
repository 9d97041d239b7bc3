"""All methods of suites/compare.yaml in one experiment on a tiny model, from interactions to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from test_pipeline import experiment
from test_pipeline import tiny_model_folder as tiny_model_folder
from test_variants import stagger

SUITE = yaml.safe_load((Path(__file__).parents[1] / "suites/compare.yaml").read_text())
SMALL = {"arm__memory__capacity": 4}  # of a buffer, so that something has to go
ALIKE = [  # arms that must share adapters, since they differ in how they answer alone
    ("oppu-accum", "cope"),
    ("oppu-each", "fints-oppu"),
    ("spring", "spring-popi", "fints-spring", "cope-spring", "cad-spring"),
    *((name, f"{name}-retrieval") for name in ("cama", "sar", "o-lora", "ewc-lora", "surprise")),
]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> dict[str, Any]:
    """data/metrics.json of three users and three periods, which overlap: some items come too late."""
    folder = tmp_path_factory.mktemp("compare")
    changes = {"arms": SUITE["arms"], "evaluate__against": "spring", **SMALL}
    with experiment(folder, tiny_model_folder, prepare=stagger, **changes):
        found: dict[str, Any] = json.loads(Path("data/metrics.json").read_text())
        learned = pl.read_parquet("data/adapt/2/index.parquet")
        found["recipes"] = {r: set(c) for r, c in learned.group_by("recipe").agg("cell").iter_rows()}
    return found


def test_every_method_answers_and_is_compared(metrics: dict[str, Any]) -> None:
    assert set(metrics["arms"]) == set(SUITE["arms"])
    assert set(metrics["paired"]) == set(SUITE["arms"]) - {"spring"}
    for arm in SUITE["arms"]:
        assert metrics["arms"][arm]["logp_per_token"]["mean"] < 0, arm
        assert metrics["transfer"][arm]["forgetting"]["mean"] is not None, arm


def test_methods_differ(metrics: dict[str, Any]) -> None:
    """No two arms give references the same likelihood: each method does something of its own."""
    seen: dict[float, list[str]] = {}
    for arm in SUITE["arms"]:
        seen.setdefault(metrics["arms"][arm]["logp_per_token"]["mean"], []).append(arm)
    assert [arms for arms in seen.values() if len(arms) > 1] == []


def test_arms_share_adapters(metrics: dict[str, Any]) -> None:
    """As many recipes as there are trainings, whatever the number of arms."""
    from tasks.suites import parse_with_suite

    tree = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    arms = parse_with_suite(tree | {"suite": "compare"}, "params.yaml").arms
    for first, *others in ALIKE:
        assert {arms[other].recipe for other in others} == {arms[first].recipe}, first
    assert len({arm.recipe for arm in arms.values()} - {None}) == len(metrics["recipes"])
