"""The census: what it calls right, wrong, refused and failed, and processes that do not answer."""

from __future__ import annotations

import os
from typing import Any

import pytest

from bench.alone import Choice
from bench.architectures import Architecture, architectures
from bench.census import census, number, outcome, table
from bench.examination import NO_DECODER, agree, examine, is_right


class Deadly(Architecture):
    """Ends the process that asks for its configuration, as a crash in a library does."""

    def config(self) -> Any:
        os._exit(7)


def test_a_right_one() -> None:
    """Llama; the adapters change what it says, and answers end at different times, or this is empty."""
    row = examine(Architecture("llama", "llama"))
    assert outcome(row) == "right" and row["class"] == "LlamaForCausalLM"
    assert row["scoring"]["nats"] < 1e-4 and row["scoring"]["adapters_nats"] > 0.1
    assert len(row["answers"]["lengths"]) > 2


def test_no_decoder_and_no_such_type() -> None:
    row = examine(Architecture("bart", "bart"))
    assert row["refused"] == NO_DECODER and outcome(row) == "refused"
    assert table([row]).endswith("No decoder-only language models: bart.")
    with pytest.raises(SystemExit, match=r"no causal model of transformers is called \['nothing'\]"):
        architectures(["llama", "nothing"])


def test_processes_that_are_late_or_die() -> None:
    [late] = census([Architecture("llama", "llama")], limit=0.01)
    assert late == {"name": "llama", "type": "llama", "failed": "it did not end in time"}
    [dead] = census([Deadly("llama", "llama")])
    assert dead == {"name": "llama", "type": "llama", "failed": "the process ended with 7"}
    [strange] = census([Architecture("none", "no-such-type")])
    assert outcome(strange) == "refused" and "no-such-type" in strange["refused"]


def test_answers_by_hand() -> None:
    """Tokens 5, 6, 7, where 7 ends; at 6 another was as good."""
    choices = [Choice(5, 1.0), Choice(6, 1e-5), Choice(7, 1.0)]
    found = [agree(tokens, choices, {7}) for tokens in ([5, 6], [5, 8], [4, 6], [5, 6, 9], [5])]
    assert found == ["equal", "tie", "wrong", "wrong", "tie"]
    assert agree([5, 6, 7], choices, set()) == "equal"


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ({"nats": 1e-5}, True),
        ({"nats": 0.1}, False),
        ({"weights": 0.5}, False),
        ({"answers": 9, "wrong": 1, "nats": 0.0}, False),
        ({"error": "ValueError: x"}, False),
    ],
)
def test_what_is_right(found: dict[str, Any], right: bool) -> None:
    assert is_right(found) == right


def test_numbers() -> None:
    assert [number(x) for x in (None, 0.0, 3.24e-6, 0.5)] == ["-", "0", "3e-06", "5e-01"]
