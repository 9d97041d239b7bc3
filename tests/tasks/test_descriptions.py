"""The table of arms: what is said of an arm, and that no two arms read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spring.settings.params import merge, parse
from tasks.reporting.descriptions import describe
from tasks.suites import as_suite_needs, lay, parse_with_suite, read_suite, suite_names
from tasks.tree import read_tree

TREE = read_tree(Path(__file__).parents[2] / "params.yaml")
LEARNS, STARTS, MEMORY, RETRIEVAL, DECODING = "learns from", "starts from", "memory", "retrieval", "decoding"
EWC = {"method": "ewc-lora", "lmbda": 1000, "gamma": 1.0}
ASLS = {"method": "asls", "steps": 2, "learn": "each", "feedback": 5, "retune": None}
ONLINE = {"data": "current", "epochs": 1, "batch_size": 1, "warmup_ratio": 0, "online": ASLS}
PROFILE = {"by": "popi", "items": 10, "item_tokens": 128, "max_new_tokens": 96, "repetition_penalty": 1.2}
RANKED = {"by": "dense", "gate": None, "profile": {"rho": 0.1, "feedback": 5, "weight": 0.5}}
EXPERTS = {"name": "proper", "level": "user", "scope": "population", "count": 4, "constraint": 0.1}
EXPERTS |= {"user_embedding": 64, "population_epochs": 3, "group_epochs": 2}


def words(arms: dict[str, Any], **start: Any) -> dict[str, dict[str, str]]:
    """The descriptions of `arms`; `start`: changes to what they start from."""
    tree = TREE | {"arm": merge(TREE["arm"], start), "arms": arms, "evaluate": TREE["evaluate"]}
    tree = merge(tree, {"evaluate": {"against": next(iter(arms))}})
    return describe(parse(tree).arms, tree["arm"])


@pytest.mark.parametrize("name", suite_names())
def test_no_two_arms_of_a_suite_read_alike_and_none_is_long(name: str) -> None:
    tree = as_suite_needs(TREE, name)
    described = describe(
        parse_with_suite(tree, "params.yaml").arms, lay(tree, read_suite(tree["suite"]))["arm"]
    )
    seen: dict[tuple[str, ...], list[str]] = {}
    for arm, columns in described.items():
        seen.setdefault(tuple(columns.values()), []).append(arm)
        assert max(map(len, columns.values())) <= 130, arm
    assert [arms for arms in seen.values() if len(arms) > 1] == []


def test_what_every_arm_starts_from_goes_without_saying() -> None:
    described = words({"spring": {}, "base": {"train": None, "memory": None}})
    assert described["spring"] == {
        LEARNS: "drift set (likelihood, top 30%)",
        STARTS: "previous adapter",
        MEMORY: "buffer of 50, global-highest",
        RETRIEVAL: "bm25, top 2, strict gate, sigma q3",
        DECODING: "lambda 0.5",
    }
    assert described["base"] == dict.fromkeys(described["spring"], "–") | {LEARNS: "nothing", MEMORY: "none"}
    slower = words({"spring": {}, "faster": {"train": {"lr": 0.01}}}, train={"lr": 0.001})
    assert "lr" not in slower["spring"][LEARNS] and slower["faster"][LEARNS].endswith("), lr 0.01")


@pytest.mark.parametrize(
    ("change", "head", "said"),
    [
        ({"train": {"batch_size": 2}}, LEARNS, ", batch_size 2"),
        (
            {"train": {"lora": {"target_modules": ["up_proj", "down_proj"]}}},
            LEARNS,
            "modules up_proj/down_proj",
        ),
        ({"train": {"grad_clip": None}}, LEARNS, ", grad_clip null"),
        ({"train": {"replay_share": 0.5, "replay_draw": "own"}}, LEARNS, ", 50% of its own again"),
        ({"train": {"select": {"alpha": 0.5}}}, LEARNS, ", select.alpha 0.5"),
        ({"train": {"data": "current", "select": {"alpha": 0.5}}}, MEMORY, ", select.alpha 0.5"),
        ({"train": {"start": "population-transductive"}}, STARTS, "all users (transductive)"),
        ({"memory": {"first_period": 0}}, MEMORY, "buffer of 50, global-highest, first_period 0"),
        ({"steer": {"method": "fints"}}, MEMORY, "; steering vectors (fints)"),
        ({"retrieve": {"gate": "learned", "pairs": 8}}, RETRIEVAL, "learned gate, pairs 8"),
        ({"decode": {"repetition_penalty": 1.0}}, DECODING, "lambda 0.5, repetition_penalty 1"),
        ({"decode": {"confidence": "entropy"}}, DECODING, "weighed by confidence (entropy)"),
        ({"decode": {"adaptive": {"threshold": 0.01, "patience": 3}}}, DECODING, "one path once both agree"),
    ],
)
def test_a_difference_is_said_where_it_belongs(change: dict[str, Any], head: str, said: str) -> None:
    described = words({"spring": {}, "x": change})
    assert said in described["x"][head]
    others = [column for column in described["x"] if column not in (head, LEARNS)]
    assert all(described["x"][column] == described["spring"][column] for column in others)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"train": {"rule": EWC}}, {"train": {"rule": EWC | {"lmbda": 10}}}, "ewc-lora, rule.lmbda 10"),
        (
            {"train": {"experts": EXPERTS}},
            {"train": {"experts": EXPERTS | {"constraint": 0}}},
            "constraint 0",
        ),
        ({"train": ONLINE}, {"train": ONLINE | {"online": ASLS | {"steps": 1}}}, "(asls), online.steps 1"),
        ({"steer": {"method": "fints"}}, {"steer": {"method": "fints", "c": 2}}, "(fints), c 2"),
        ({"profile": PROFILE}, {"profile": PROFILE | {"items": 5}}, "carried on, items 5"),
        (
            {"retrieve": RANKED},
            {"retrieve": merge(RANKED, {"profile": {"weight": 1}})},
            "too, profile.weight 1",
        ),
    ],
)
def test_settings_of_a_method_are_named_where_its_arms_disagree(
    one: dict[str, Any], other: dict[str, Any], said: str
) -> None:
    key = said.split()[-2].rpartition(".")[2]
    twins = words({"one": one, "other": other})
    assert any(said in text for text in twins["other"].values())
    assert any(f"{key} " in text for text in twins["one"].values())
    alone = words({"other": other, "spring": {}})
    assert not any(f"{key} " in text for text in alone["other"].values())


def test_an_arm_that_only_replays_does_not_seem_to_retrieve() -> None:
    replays = {"train": {"data": "current", "replay_share": 0.25}, "decode": {"lmbda": 0.0}}
    found = words({"replays": replays, "spring": {}})
    assert found["replays"][RETRIEVAL] == "–" and "bm25" in found["spring"][RETRIEVAL]
    assert found["replays"][MEMORY] == found["spring"][MEMORY]


def test_settings_that_do_nothing_are_not_named() -> None:
    """Without memory none of retrieval's, and of a memory that holds everything not a buffer's."""
    idle = {"memory": None, "decode": {"lmbda": 0.0}}
    described = words({"one": idle, "other": idle}, retrieve={"top_k": 4, "pairs": 8})
    assert described["one"] == described["other"] and described["one"][RETRIEVAL] == "–"
    whole = words({"spring": {}, "whole": {"memory": {"scope": "history", "first_period": 0}}})
    assert whole["whole"][MEMORY] == "all so far"
