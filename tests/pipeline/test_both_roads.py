"""The whole experiment on either road, and on a hybrid model that has only the padded one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from kit.pipeline import cells, changed_state, experiment

ARMS = {"base", "rag-accum", "oppu-each", "spring", "spring-parametric"}
HYBRID = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}


def answers(folder: Path) -> pl.DataFrame:
    """All answers, and the references' likelihoods."""
    found = pl.concat(pl.read_parquet(folder / f"data/generate/{t}/generations.parquet") for t in (1, 2))
    return found.sort("arm", "interaction_id")


@pytest.mark.slow
def test_both_roads_lead_to_the_same(whole_run: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    """Adapters to rounding, answers to the token, likelihoods to a ten thousandth of a nat; other cells."""
    with experiment(tmp_path, tiny_model_folder, model__road="padded"):
        pass
    said = json.loads((tmp_path / "data/model/source.json").read_text())
    assert said["road"]["padded"] and said["digest"] in (whole_run / "data/model/source.json").read_text()
    assert changed_state(whole_run, tmp_path) == set()
    one, other = answers(whole_run), answers(tmp_path)
    assert one["text"].to_list() == other["text"].to_list()
    assert (one["logp"] - other["logp"]).abs().max() < 1e-3
    assert cells(whole_run) and not cells(whole_run) & cells(tmp_path)


@pytest.mark.slow
def test_a_hybrid_of_linear_and_full_attention(
    tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Qwen 3.5 in small: from the table to the report, on the road that it finds by itself."""
    make_model("qwen3_5_text", **HYBRID).save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    with caplog.at_level("INFO"), experiment(tmp_path, tmp_path / "qwen"):
        metrics = yaml.safe_load(Path("data/metrics.json").read_text())
    assert "road: padded" in caplog.messages
    assert set(metrics["arms"]) == ARMS
    assert metrics["arms"]["spring"]["logp_per_token"] != metrics["arms"]["base"]["logp_per_token"]
