"""experiments/NAME: what a run starts from, whatever earlier runs have left in params.yaml."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from kit.project import git, write_programs, write_project
from kit.warm import Warm

from flows.named_experiments import (
    ExperimentError,
    changed,
    check,
    experiment_names,
    lay_experiment,
    start,
)
from spring.settings.params import ParameterError
from tasks.suites import parse_with_suite

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
TREE = yaml.safe_load(TEXT)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """params.yaml, committed, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    git("init")
    git("add", path.name)
    git("commit", "--message", "start")
    return path


def put(path: Path, tree: dict[str, Any]) -> str:
    """Writes parameters as a run leaves them, comments aside."""
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_can_be_used(name: str) -> None:
    laid = lay_experiment(name, TREE)
    assert parse_with_suite(laid, name).experiment == name
    assert laid != TREE == yaml.safe_load(TEXT)


def test_options_by_hand() -> None:
    laid = lay_experiment("acl", TREE)
    assert laid["periods"] == {"0": "base", "1": 0, "2": 1}
    assert laid["report"]["title"] == "Authors write their abstracts"
    assert laid["ingest"]["max_quarantined"] == 0.7


def test_changed_keys_are_named() -> None:
    before = {"a": 1, "b": {"c": None, "d": [1, 2]}, "e": {"f": 1}}
    now = {"a": 1, "b": {"c": 0, "d": [1, 2], "g": None}, "e": 2}
    assert list(changed(before, now)) == ["b.c", "b.g", "e"]


@pytest.mark.slow
@pytest.mark.parametrize("left", experiment_names())
@pytest.mark.parametrize("name", ["", "acl"])
def test_what_an_experiment_left_is_taken_back(params: Path, left: str, name: str) -> None:
    """`paper-abstracts` has a rate that DVC writes as 3e-05, which is a string to PyYAML."""
    options = shlex.split((ROOT / "experiments" / left).read_text(encoding="utf-8"))[1::2]  # behind -S
    apply_overrides(params, [*options, "suite=lambda", "seed=7"])
    assert f"had left experiments/{left}" in start(name)
    assert params.read_text(encoding="utf-8") == TEXT
    assert start(name) == ""


def test_an_experiment_of_ones_own_is_laid_as_dvc_lays_it(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a block that is null, with numbers and texts of any form; one that DVC refuses left nothing."""
    options = ["+arm.profile.by=pag", "arm.train.lr=1e-4", "report.title='a: b'"]
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "mine").write_text("".join(f'-S "{option}"\n' for option in options) + "--name mine\n")
    (folder / "odd").write_text("-S no.such.key=1\n")
    monkeypatch.setattr("flows.named_experiments.FOLDER", folder)
    apply_overrides(params, options)
    assert "had left experiments/mine" in start()
    assert params.read_text(encoding="utf-8") == TEXT


def test_suite_and_seed_stay_unless_an_experiment_starts(params: Path) -> None:
    text = put(params, TREE | {"suite": "lambda", "seed": 7})
    assert start(sets=["suite=gate", "seed=1"]) == ""
    assert start(sets=["suite=gate"]) == "Used as they stand in params.yaml, though not committed: seed."
    assert params.read_text(encoding="utf-8") == text
    assert "had left suite and seed" in start("acl")
    assert params.read_text(encoding="utf-8") == TEXT


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, "acl"])
def test_edits_of_ones_own_are_used_and_named_and_never_taken_back(params: Path, left: str | None) -> None:
    tree = lay_experiment(left, TREE) if left else TREE
    text = put(params, tree | {"arm": tree["arm"] | {"adapter": "swapped"}})
    assert "arm.adapter" in start()
    with pytest.raises(ExperimentError, match=r"another .*arm\.adapter.* Nothing was run\.\n.*git commit"):
        start("acl")
    assert params.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("name", "sets", "said"),
    [
        ("", ["suite=tune"], r"split\.hold_out is 'test': suite tune .*, as with NAME=validation"),
        ("", ["suite=lambda", "seed=-1"], r"suites/lambda\.yaml cannot be used.*\n  seed is -1"),
        ("mine", [], r"params\.yaml under experiments/mine cannot be used.*\n  arm\.decode\.lmbda is 3"),
        ("odd", [], r"experiments/odd cannot be used.*\n.*'no\.such\.key'"),
    ],
)
def test_what_a_run_would_set_is_checked(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sets: list[str], said: str
) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "mine").write_text("-S arm.decode.lmbda=3\n")
    (folder / "odd").write_text("-S no.such.key=1\n")
    monkeypatch.setattr("flows.named_experiments.FOLDER", folder)
    with pytest.raises((ParameterError, ExperimentError), match=said):
        check(name, sets)
    check("", ["suite=tune", "split.hold_out=validation"])


def test_rates_are_chosen_on_the_very_data_that_they_are_used_on() -> None:
    """`acl-validation` differs from `acl` in what is held out, in no line that says what is read or cut."""
    acl, validation = (
        {
            line
            for line in (ROOT / "experiments" / name).read_text().splitlines()
            if line.startswith(("-S ingest", "-S ~periods"))
        }
        for name in ("acl", "acl-validation")
    )
    assert acl == validation


def test_an_unknown_name_is_refused_with_all_that_exist(params: Path) -> None:
    with pytest.raises(ExperimentError, match=r"NAME is 'alc': must be one of acl, acl-validation, "):
        start("alc")


@pytest.mark.parametrize("text", ["", "a: [", "just words"])
def test_a_file_that_was_cut_short_is_left_to_its_owner(params: Path, text: str) -> None:
    params.write_text(text, encoding="utf-8")
    with pytest.raises(ExperimentError, match=r"git checkout HEAD params\.yaml"):
        start("acl")
    assert params.read_text(encoding="utf-8") == text


def holders_of_locks(folder: Path) -> list[int]:
    """Processes that hold one of DVC's locks on files and are still listed, also as dead."""
    file = folder / ".dvc/tmp/rwlock"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [pid for pid in map(int, re.findall(r'"pid": (\d+)', text)) if Path(f"/proc/{pid}").exists()]


@pytest.mark.long
def test_seeds_of_an_experiment_can_be_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Warm
) -> None:
    """`make compare` with real DVC, NAME from the command line alone; then without NAME."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAME", "of-the-machine")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of a `make test` that this runs under
        monkeypatch.delenv(name, raising=False)
    write_project(tmp_path)
    ran = tmp_path / "ran"
    command = ["make", "VENV=venv", "compare", "SEEDS=3 4", "NAME=validation"]
    (tmp_path / "wait").touch()
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not ran.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the stage did not start"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while holders_of_locks(tmp_path):  # killed, but not yet gone: DVC would think that they work
        assert time.monotonic() < deadline
        time.sleep(0.1)
    git("add", "params.yaml")  # as DVC does when a stage ends; with this left, it would refuse to run
    (tmp_path / "wait").unlink()
    ran.unlink()
    write_programs(tmp_path, warm_python.folder / "python")
    plain = ["make", "VENV=venv", "compare", "SEEDS=3"]
    for words in (command, command, plain):
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    expected = ["validation compare 3 0 1", "validation compare 4 0 1", "personas compare 3 0 1 2 3 4"]
    assert ran.read_text().splitlines() == expected  # the second time everything was there
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == TREE | {"suite": "compare", "seed": 3}
    refused = subprocess.run([*plain, "NAME=alc"], capture_output=True, text=True)
    assert refused.returncode != 0 and "must be one of acl" in refused.stderr
