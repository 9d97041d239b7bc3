"""A stage that works through users in blocks leaves what it leaves of all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from kit.months import by_calendar, learn, write_rows

from tasks.files import EVERYBODY, Users, only, read_parquet
from tasks.steps import blocks as of_users
from tasks.steps import experiment as of_experiments
from tasks.steps.blocks import Parted, blocks
from tasks.steps.experiment import Experiment

IN_WORDS = {"by": "popi", "items": 3, "item_tokens": 26, "max_new_tokens": 7, "repetition_penalty": 1.2}
ASLS = {"method": "asls", "steps": 2, "learn": "each", "feedback": None, "retune": {"rho": 0.1, "limit": 3}}
ARMS: dict[str, Any] = {
    "base": {"train": None, "memory": None},
    "spring": {"retrieve": {"sigma": "q2"}},
    "confident": {"train": {"data": "confident"}, "memory": {"scope": "history"}},
    "learned": {"retrieve": {"gate": "learned", "pairs": 4}},
    "transductive": {"retrieve": {"sigma": "q2", "sigma_from": "transductive"}},
    "in-words": {"train": None, "memory": None, "profile": IN_WORDS},
    "replay": {"train": {"replay_share": 0.5}},
    "online": {
        "train": {"data": "current", "epochs": 1, "batch_size": 1, "warmup_ratio": 0, "online": ASLS},
        "memory": {"scope": "history"},
        "retrieve": {"by": "dense", "gate": None, "profile": {"rho": 0.1, "feedback": None, "weight": 0.5}},
    },
}
BATCHES = [
    {"ann": 4, "bob": 5, "eve": 4},
    {"ann": 3, "cem": 4, "eve": 3},  # bob is away, cem is new
    {"bob": 3, "dee": 4, "yan": 1, "zoe": 4},  # the text of yan waits
]
NAMES = ("arm", "recipe", "memory", "gate", "profile", "by", "period", "user_id", "known_at")  # of tables


def test_blocks_leave_what_all_at_once_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
) -> None:
    """Of users who come, go and return; cells of one are those of the other, and rows come in any order."""
    found = []
    for together in (1000, 1):
        folder = tmp_path / str(together)
        folder.mkdir()
        monkeypatch.chdir(folder)
        for module in (of_users, of_experiments):
            monkeypatch.setattr(module, "TOGETHER", together)
        write_rows(folder / "table.csv", BATCHES)
        by_calendar(folder, tiny_model_folder, arms=ARMS, periods=3, split__min_train=2)
        assert Experiment().apart
        learn(monkeypatch, 3)
        found.append({str(path.relative_to(folder)): pl.read_parquet(path) for path in tables(folder)})
        assert not list(folder.rglob(".writing-*"))
    whole, parted = found
    assert whole.keys() == parted.keys() and len(whole) > 40
    assert not whole["data/split/waiting.parquet"].is_empty()
    for name, rows in whole.items():
        same_rows(name, rows, parted[name])


def tables(folder: Path) -> list[Path]:
    """What the stages write that work in blocks."""
    stages = ("split", "score_base", "adapt", "consolidate", "generate")
    return sorted(path for stage in stages for path in folder.glob(f"data/{stage}/**/*.parquet"))


def same_rows(name: str, one: pl.DataFrame, other: pl.DataFrame) -> None:
    """The same, in an order of each user's own; numbers up to how batches were rounded."""
    assert one.schema == other.schema, name
    order = [column for column in NAMES if column in one.columns]
    one, other = (frame.sort(order, maintain_order=True) for frame in (one, other))
    for column, kind in one.schema.items():
        if column.startswith("seconds") or column == "file":
            continue
        if kind == pl.Float64:
            values = (frame[column].to_numpy() for frame in (one, other))
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6, err_msg=f"{name}: {column}")
        else:
            assert one[column].equals(other[column]), f"{name}: {column}"


def test_nobody_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands before, between or behind those that the blocks were cut by; none is in two."""
    monkeypatch.chdir(tmp_path)
    users = ["a", "b", "c", "d", "é"]
    pl.DataFrame({"user_id": [*users, None]}).write_parquet("some.parquet")
    cut = blocks([Path("some.parquet")], 2)
    assert [one.told for one in cut] == [
        ", users 1 to 2 of 5",
        ", users 3 to 4 of 5",
        ", users 5 to 5 of 5",
    ]
    everybody = ["", "A", "a", "b", "b!", "b\0", "bb", "c", "d", "da", "e\u0301", "é", "\U0001f600", "\uffff"]
    pl.DataFrame({"user_id": [*everybody, None]}).write_parquet("all.parquet")
    parts = [read_parquet(Path("all.parquet"), users=one)["user_id"].to_list() for one in cut]
    assert sorted(user for part in parts for user in part if user is not None) == sorted(everybody)
    assert all(None in part for part in parts)  # what is of all
    for user in everybody:
        assert read_parquet(Path("all.parquet"), users=only(user)).drop_nulls()["user_id"].to_list() == [user]
    pl.DataFrame({"user_id": users[:2]}).write_parquet("few.parquet")
    assert blocks([Path("few.parquet")], 2) == [EVERYBODY] == [Users()]


def fail_after(parts: int, rows: pl.DataFrame, path: Path) -> None:
    """Ends while a table is written."""
    with Parted(path) as table:
        for _ in range(parts):
            table.add(rows)
        raise ZeroDivisionError


def test_a_table_in_parts_is_the_table(tmp_path: Path) -> None:
    """Behind another, without rows, of one part, and not at all where the block fails."""
    rows = pl.DataFrame({"user_id": ["a", "b", "c"], "n": [[1], [], None]})
    rows.write_parquet(tmp_path / "before.parquet")
    for behind in (None, tmp_path / "before.parquet"):
        for cuts in ([3], [1, 2], [0, 3], [1, 0, 1, 1], [0, 0]):
            with Parted(tmp_path / "table.parquet", behind=behind) as table:
                start = 0
                for length in cuts:
                    table.add(rows.slice(start, length))
                    start += length
            expected = pl.concat([rows if behind else rows.clear(), rows.head(start)])
            assert pl.read_parquet(tmp_path / "table.parquet").equals(expected)
    for count in (1, 3):
        with pytest.raises(ZeroDivisionError):
            fail_after(count, rows, tmp_path / "none.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"before.parquet", "table.parquet"}
