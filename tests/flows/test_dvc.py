"""What DVC shows: a screen of experiments, a line per arm in plots; and what it leaves of a refused run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from kit.project import ROOT, TREE, commit, git, write_programs, write_project
from kit.warm import Warm

from spring.settings.params import Params
from tasks.evaluate import arms_by_recipe, median_curves, period_table, write_csv
from tasks.files import write_parquet
from tasks.measures.scores import METRICS, stream
from tasks.params import load_params

PLOTS = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
TABLES = Path("data/evaluate/plots")


def write_plots(params: Params, *, seed: int) -> None:
    """The tables behind the plots, of made-up users who have every metric but one."""
    random = np.random.default_rng(seed)
    keys = [(arm, user, t) for arm in params.arms for user in ("a", "b") for t in stream(params)]
    users = pl.DataFrame(keys, schema=["arm", "user_id", "period"], orient="row")
    users = users.with_columns(pl.Series(metric, random.random(users.height)) for metric in METRICS)
    write_csv(period_table(params, users.with_columns(chrf=pl.lit(None, pl.Float64))), TABLES / "periods.csv")
    for t in params.periods:
        rows = [(recipe, "a", t, step) for recipe in arms_by_recipe(params) for step in range(4)]
        curves = pl.DataFrame(rows, schema=["recipe", "user_id", "period", "step"], orient="row")
        curves = curves.with_columns(pl.Series("loss", random.random(curves.height)))
        write_parquet(curves, Path(f"data/adapt/{t}/curves.parquet"))
    write_csv(median_curves(params), TABLES / "curves.csv")
    shutil.rmtree("data/adapt")


def drawn(page: Path) -> dict[str, dict[str, Any]]:
    """The Vega-Lite specifications of a page of `dvc plots`, by title."""
    specs = map(json.loads, re.findall(r"var spec = (.*);$", page.read_text("utf-8"), flags=re.MULTILINE))
    return {spec["title"]: spec for spec in specs}


def lines_of(spec: dict[str, Any], *also: str) -> set[tuple[str, ...]]:
    """What tells the lines of a plot apart: those fields of its rows that give colour, dash or panel."""
    text = json.dumps(spec)
    assert "loess" not in text and "<DVC_METRIC" not in text
    inner = spec.get("spec", spec)
    fields = [inner["encoding"][channel]["field"] for channel in ("color", "strokeDash")]
    marks = [layer["mark"] for layer in inner.get("layer", [inner])]
    assert sum("line" in (mark if isinstance(mark, str) else mark["type"]) for mark in marks) == 1
    for step in spec["transform"]:  # what is drawn comes of columns that are there
        for column in re.findall(r"datum\['(.*?)'\]", step["calculate"]):
            assert column in spec["data"]["values"][0], column
    named = {"set": "arms"}  # a shortened name
    return {
        tuple(row[named.get(field, field)] for field in [*fields, *also]) for row in spec["data"]["values"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["main", "lambda"])
def test_plots_draw_a_line_per_arm_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Warm, suite: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(TREE | {"suite": suite}), encoding="utf-8")
    Path("dvc.yaml").write_text(yaml.safe_dump({"plots": PLOTS}), encoding="utf-8")
    git("init")
    assert warm_python.run("-m", "dvc", "--quiet", "init").returncode == 0
    shutil.copytree(ROOT / ".dvc/plots", ".dvc/plots")
    params = load_params()
    write_plots(params, seed=0)
    commit("one")
    write_plots(params, seed=1)
    arms, periods = list(params.arms), [str(t) for t in params.periods]
    sets = {" + ".join(arms) for arms in arms_by_recipe(params).values()}
    for command, revs in ((["show"], ["workspace"]), (["diff", "HEAD"], ["workspace", "HEAD"])):
        done = warm_python.run("-m", "dvc", "plots", *command, "-o", "out")
        assert done.returncode == 0, done.stderr
        specs = drawn(Path("out/index.html"))
        assert len(specs) == len(METRICS) + 1
        curves = specs.pop("Learning curves")
        assert lines_of(curves, "period") == {(s, rev, t) for s in sets for rev in revs for t in periods}
        assert curves["facet"]["column"]["field"] == "period"
        for spec in specs.values():
            assert lines_of(spec) == {(arm, rev) for arm in arms for rev in revs}
            assert spec["encoding"]["color"]["sort"] is None  # in the order of params.yaml
            assert spec["layer"][0]["encoding"]["y2"] == {"field": "high"}


# What a run would leave: the headline of the arms at hand, with numbers that the parameters decide.
WORK = """
from pathlib import Path
from tasks.evaluate import write_headline
from tasks.params import load_params

params = load_params()
arms = {
    arm: {name: {"mean": -3.21987654 + number / 7 + found.decode.lmbda} for name in
          ("rouge1", "rougeL", "meteor", "logp_per_token")}
    for number, (arm, found) in enumerate(params.arms.items())
}
against = arms[params.evaluate.against]["logp_per_token"]["mean"]
paired = {
    arm: {"logp_per_token": {"difference": found["logp_per_token"]["mean"] - against}}
    for arm, found in arms.items() if arm != params.evaluate.against
}
write_headline({"arms": arms, "paired": paired})
Path("data/report").mkdir(exist_ok=True)
Path("data/report/report.html").write_text(str(arms))
"""
STAGE = {
    "cmd": "python work.py",
    "deps": ["work.py", "suites/${suite}.yaml"],
    "params": list(TREE),
    "outs": ["data/report"],
    "metrics": [{"data/headline.json": {"cache": False}}],
}


def run(*words: str, columns: int = 160) -> subprocess.CompletedProcess[str]:
    """A command on a terminal of so many columns, `make` without what an outer one passes on."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment |= {"COLUMNS": str(columns), "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def call(*words: str, columns: int = 160) -> str:
    """What it prints, having ended well."""
    done = run(*words, columns=columns)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_experiments_fit_a_screen_and_a_run_without_work_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Warm
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, stage=STAGE, work=WORK)
    (tmp_path / ".gitignore").write_text("data/*\n!data/headline.json\nvenv\n__pycache__\n", encoding="utf-8")
    write_programs(tmp_path, warm_python.folder / "python")
    make, dvc = ["make", "VENV=venv"], str(tmp_path / "venv/bin/dvc")
    assert call(*make, "repro").splitlines()[0] == "work"  # the stage
    again = call(*make, "repro").splitlines()
    assert len(again) == 2 and again[0].startswith("Nothing to do") and "report.html" in again[1]
    (tmp_path / "data/report/report.html").unlink()
    assert "Nothing to do" not in call(*make, "repro")
    commit("default")
    monkeypatch.setenv("PATH", f"{tmp_path / 'venv/bin'}{os.pathsep}{os.environ['PATH']}")
    call(dvc, "exp", "run", "-S", "arm.decode.lmbda=0.4")
    own = call(*make, "show")
    assert all(word in own for word in ("lead.arm", "lead.gain", "arm.decode.lmbda", "0.4")), own
    assert len(call(dvc, "metrics", "diff").splitlines()) <= 26
    call("git", "checkout", "params.yaml")
    call(dvc, "exp", "run", "-S", "suite=lambda")
    both = call(*make, "show")
    assert all(word in both for word in ("lead.arm", "suite", "lambda ", "max-probability")), both
    for shown in (own, both, call(*make, "show", columns=120)):
        assert max(map(len, shown.splitlines())) <= 160, shown
    (tmp_path / "dvc.yaml").write_text("stages: {work: {comand: x}}", encoding="utf-8")
    refused = run(*make, "repro")  # what DVC itself says is shown
    assert refused.returncode != 0 and "comand" in refused.stderr and "The run stopped" in refused.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("lmbda: 0.5", "lmbda: 2", "arm.decode.lmbda is 2: must be less than or equal to 1"),
        ("seed: 0", "seed:\t0", "has a tab"),
    ],
)
def test_dvc_alone_ends_with_the_mistake_and_takes_no_counts_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Warm, was: str, becomes: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("spring", "tasks", "suites", "dvc.yaml", "params.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert was in text
    Path("params.yaml").write_text(text.replace(was, becomes, 1), encoding="utf-8")
    Path("data").mkdir()
    Path("data/ingest.json").write_text("{}", encoding="utf-8")
    path = f"{warm_python.folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    assert (
        warm_python.run("-m", "dvc", "init", "--no-scm", "--quiet", environment=environment).returncode == 0
    )
    done = warm_python.run("-m", "dvc", "repro", environment=environment)
    *lines, last = done.stderr.strip().splitlines()
    assert done.returncode != 0 and last.startswith("ERROR: failed to reproduce")
    assert said in lines[-1] and len(lines) <= 4 and "Traceback" not in done.stderr, done.stderr
    assert Path("data/ingest.json").exists()
