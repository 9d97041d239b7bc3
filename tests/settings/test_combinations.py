"""Every training of suites/compare.yaml under every way to answer of it: accepted, or refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from spring.settings.params import ParameterError, parse
from tasks.suites import valued

ROOT = Path(__file__).parents[2]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
ARMS = valued(yaml.safe_load((ROOT / "suites/compare.yaml").read_text()), TREE["suite_values"])["arms"]
BUFFERED = ("cama", "sar", "replay-random", "reservoir", "replay-loss", "surprise")  # replay from a memory
TRAININGS = (
    *("base", "oppu-each", "oppu-accum", "oppu-task", "spring", "current", "o-lora", "ewc-lora", "asls"),
    *("proper", "proper-group", "proper-population", "current-ffn"),
    *BUFFERED,
)
ANSWERS: dict[str, dict[str, Any]] = {
    "alone": {"decode": {"lmbda": 0.0}},
    "mixed": {},  # SPRInG's retrieval and mixing
    "history": {key: ARMS["rag-accum"][key] for key in ("memory", "retrieve", "decode")},
    "cope": {"decode": ARMS["cope"]["decode"]},
    "cad": {"decode": ARMS["cad"]["decode"]},
    "fints": {"steer": ARMS["fints"]["steer"]},
    "popi": {"profile": ARMS["popi"]["profile"]},
    "pag": {"profile": ARMS["pag-accum"]["profile"]},
    "asls": {key: ARMS["asls-profile"][key] for key in ("memory", "retrieve", "decode")},
}
REFUSED = {("base", "cope"): "cope contrasts an adapter with the base model: it needs a block train"}
for training in BUFFERED:  # one memory is learned from and searched: the buffer, not the history
    for answer in ("history", "asls"):
        REFUSED[training, answer] = "train.replay_share > 0 needs memory.scope: buffer to draw from"


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("training", TRAININGS)
def test_any_training_answers_in_any_way_or_is_refused(training: str, answer: str) -> None:
    tree = copy.deepcopy(TREE)
    arm = {"train": ARMS[training].get("train", {}), **ANSWERS[answer]}
    if training in BUFFERED:
        arm = {"memory": ARMS[training]["memory"], **arm}
    tree["arms"] = {"base": {"train": None, "memory": None}, "combined": arm}
    tree["evaluate"]["against"] = "base"
    if (training, answer) in REFUSED:
        with pytest.raises(ParameterError, match="nothing was run") as error:
            parse(tree)
        assert REFUSED[training, answer] in str(error.value)
        return
    combined = parse(tree).arms["combined"]
    tree["arms"]["trained"] = {
        "train": arm["train"],
        "memory": arm.get("memory", {}),
        "decode": {"lmbda": 0.0},
    }
    trained = parse(tree).arms["trained"]
    assert combined.recipe == trained.recipe  # how an arm answers does not change what it learns
    assert (combined == trained) == (answer == "alone")
