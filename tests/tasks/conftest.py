"""A small experiment that W&B was told of, for the tests of what it is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from kit.pipeline import experiment


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """The folder of three users through three periods, logged offline; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("tracked")
    changes = {"tracking__mode": "offline", "tracking__tags": ["a tag"]}
    with pytest.MonkeyPatch.context() as patch:
        without_wandb(patch)
        with experiment(folder, tiny_model_folder, prepare=name_users, **changes):
            return folder


@pytest.fixture
def copy(tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a folder of its own, the current one, to be logged again."""
    shutil.copytree(tracked, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    without_wandb(monkeypatch)
    return tmp_path


def without_wandb(patch: pytest.MonkeyPatch) -> None:
    """Takes away what the environment says to W&B."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    patch.setenv("WANDB_ERROR_REPORTING", "false")


def name_users(table: Path) -> None:
    """Names and a phrase that would be found."""
    rows = pl.read_csv(table)
    secret = pl.concat_str(pl.lit("Zaphod-"), pl.col("who").str.replace(" ", "-"))
    rows.with_columns(secret.alias("who"), pl.col("body") + " xyzzyphrase").write_csv(table)
