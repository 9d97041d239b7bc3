"""What W&B is given, of a real small run: read back from its offline files, and searched for users' text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kit.tracking import Run, bytes_under, change, read_runs

from spring.store.segments import Segment
from tasks.evaluate import read_metrics
from tasks.measures.costs import COSTS
from tasks.measures.scores import METRICS
from tasks.params import load_params
from tasks.tracking.arm import user_rows
from tasks.tracking.artifacts import add_adapter
from tasks.tracking.experiment import log_experiment
from tasks.tracking.runs import staging

pytestmark = pytest.mark.slow  # every run is a real one of W&B's client

ROOT = Path(__file__).parents[2]
ARMS = ("base", "rag-accum", "oppu-each", "spring", "spring-parametric")
LEARNING = ("oppu-each", "spring", "spring-parametric")


@pytest.fixture
def project(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the experiment, and the current one; tests leave it as it is."""
    monkeypatch.chdir(tracked)
    return tracked


@pytest.fixture(scope="module")
def runs(tracked: Path) -> dict[str, Run]:
    """The runs by name; tests only read them."""
    return read_runs(tracked)


def log_again() -> None:
    log_experiment(load_params(), read_metrics())


def test_one_run_per_arm_and_one_of_the_comparison(runs: dict[str, Run]) -> None:
    assert set(runs) == {f"{arm}/0" for arm in ARMS} | {"comparison/0"}
    for name, run in runs.items():
        job = "comparison" if name == "comparison/0" else "personas"
        assert (run.about["run_group"], run.about["job_type"], run.about["tags"]) == ("main", job, ["a tag"])
        assert run.about["run_id"].startswith(f"personas-main-0-{name.partition('/')[0]}-")


def test_config_holds_this_arm_alone(runs: dict[str, Run]) -> None:
    config = runs["spring/0"].config
    assert config["arm"] == "spring" and (config["experiment"], config["suite"], config["seed"]) == (
        "personas",
        "main",
        0,
    )
    assert config["train"]["lora"]["r"] == 2 and config["decode"]["lmbda"] == 0.5
    assert runs["base/0"].config["train"] is None
    assert config["data"]["users"] == 3 and config["model"]["digest"]
    assert config.pop("against") == "base"
    assert not any(arm in json.dumps(config) for arm in ARMS if arm != "spring")
    assert len(json.dumps(config)) < 4000


def test_history_has_periods_with_intervals_on_their_own_axis(runs: dict[str, Run], project: Path) -> None:
    table = pl.read_csv("data/evaluate/plots/periods.csv").filter(arm="spring")
    rows = [row for row in runs["spring/0"].history if "period" in row]
    assert [row["period"] for row in rows] == [1, 2]
    for row, expected in zip(rows, table.iter_rows(named=True), strict=True):
        for metric in METRICS:
            found = [row.get(f"by_period/{metric}/{end}") for end in ("mean", "low", "high")]
            assert found == [expected[metric], expected[f"{metric}_low"], expected[f"{metric}_high"]]
    assert runs["spring/0"].axes["by_period/*"] == "period"
    assert runs["spring/0"].axes["train/*"] == "train/step"


def test_learning_curves_are_there_for_arms_that_learn(runs: dict[str, Run]) -> None:
    for arm in ARMS:
        steps = [row for row in runs[f"{arm}/0"].history if "train/step" in row]
        assert bool(steps) == (arm in LEARNING)
        assert [row["train/step"] for row in steps] == list(range(len(steps)))
        assert all(row["train/loss"] > 0 and row["train/users"] <= 3 for row in steps)
        if steps:
            assert {row["train/period"] for row in steps} == {0, 1, 2}


def test_summary_holds_means_tests_and_costs(runs: dict[str, Run], project: Path) -> None:
    metrics = read_metrics()
    for arm in ARMS:
        summary, found = runs[f"{arm}/0"].summary, metrics["arms"][arm]
        for metric in METRICS:
            for end in ("mean", "low", "high"):
                assert summary.get(f"{metric}/{end}") == found[metric][end]
            for key, value in metrics["paired"].get(arm, {}).get(metric, {}).items():
                name = f"difference_{key}" if key in ("low", "high") else key
                assert summary.get(f"{metric}/{name}") == value
        for name in COSTS:
            assert summary[f"cost/{name}"] == found[name]
        assert summary["cost/seconds"] == pytest.approx(sum(found[n] for n in COSTS if n[:8] == "seconds_"))
        assert not [
            key for key in summary if key.startswith(("by_period", "train"))
        ]  # a last value says nothing
    assert runs["spring/0"].summary["transfer/backward"] == metrics["transfer"]["spring"]["backward"]["mean"]


def test_users_are_pseudonyms(runs: dict[str, Run]) -> None:
    tables = {arm: runs[f"{arm}/0"].table("users") for arm in ARMS}
    assert tables["base"].columns == ["user", "period", "items", *METRICS]
    assert tables["base"].height == 6
    assert all(set(table["user"]) == set(tables["base"]["user"]) for table in tables.values())
    assert all(len(user) == 12 and int(user, 16) for user in tables["base"]["user"])


def test_many_users_are_one_row_each(copy: Path) -> None:
    users = [f"Zaphod-{number}" for number in range(6000)]
    rows = pl.DataFrame({"arm": "spring", "user_id": users}).join(
        pl.DataFrame({"period": [1, 2]}), how="cross"
    )
    rows = rows.with_columns(items=pl.lit(1), **{name: pl.col("period") / 2 for name in METRICS})
    rows.write_parquet("data/evaluate/users.parquet")
    table = user_rows("spring", lambda user: f"{len(str(user))}-{hash(user)}")
    assert table.height == 6000 and table.columns == ["user", "items", *METRICS]
    assert set(table["rouge1"]) == {0.75} and set(table["items"]) == {2}


def test_comparison_has_tables_drawings_and_results(runs: dict[str, Run], project: Path) -> None:
    run, metrics = runs["comparison/0"], read_metrics()
    rows = {(row["arm"], row["metric"]): row for row in run.table("comparison").iter_rows(named=True)}
    assert rows["spring", "rouge1"]["p_holm"] == metrics["paired"]["spring"]["rouge1"]["p_holm"]
    assert rows["base", "rouge1"]["mean"] == metrics["arms"]["base"]["rouge1"]["mean"]
    assert run.table("costs").height == len(ARMS) and run.table("transfer_tests").height > 0
    media = (run.folder / "files/media/html").rglob("*.html")
    drawings = [path.read_text(encoding="utf-8") for path in media]
    assert drawings and all("<svg" in drawing for drawing in drawings)
    drawn = {path.stem.partition("_")[0] for path in (run.folder / "files/media/html").rglob("*.html")}
    assert {"periods", "paired", "cost", "curves"} <= drawn and "drift" not in drawn
    best = max(ARMS, key=lambda arm: metrics["arms"][arm]["logp_per_token"]["mean"])
    assert run.summary["highest/logp_per_token"] == best
    contents = {artifact["type"]: run.contents(artifact) for artifact in run.artifacts}
    assert {"metrics.json", "users.parquet"} == set(contents["metrics"])
    assert "report.html" not in contents["report"] and "plots/cost.svg" in contents["report"]


def test_adapters_have_lineage_and_name_their_base(runs: dict[str, Run], project: Path) -> None:
    for arm in ARMS:
        inputs = {a["type"] for a in runs[f"{arm}/0"].artifacts if a.get("use_after_commit")}
        assert "dataset" in inputs and ("lora" in inputs) == (arm == "spring-parametric")
    [adapters] = [a for a in runs["spring/0"].artifacts if a["type"] == "lora"]
    [used] = [a for a in runs["spring-parametric/0"].artifacts if a["type"] == "lora"]
    assert (adapters["name"], adapters["digest"]) == (used["name"], used["digest"])
    about = json.loads(adapters["metadata"])
    assert about["wandb.base_model"] == load_params().model.id and about["lora"]["r"] == 2
    assert about["arms"] == ["spring", "spring-parametric"] and about["adapters"] == 3
    assert "period-2" in adapters["aliases"]
    entries = runs["spring/0"].contents(adapters)
    users = set(runs["spring/0"].table("users")["user"])
    places = json.loads(Path(entries.pop("cells.json")["local_path"]).read_text(encoding="utf-8"))
    assert set(places) == users and {name for name, _ in places.values()} == set(entries)
    for name, entry in entries.items():  # nothing is copied, and what is referred to is there
        file = Path(entry["ref"].removeprefix("file://"))
        assert "local_path" not in entry
        for user in users:
            if places[user][0] == name:
                assert "adapter_model.safetensors" in Segment(file).read(places[user][1])


def test_no_user_and_no_text_without_leave(runs: dict[str, Run], project: Path) -> None:
    sent = bytes_under(project / "wandb")
    assert b"rouge1/difference_low" in sent  # nothing is compressed, so a search would find text
    assert b"zaphod" not in sent.lower() and b"xyzzyphrase" not in sent and b"generations" not in sent


@pytest.mark.slow
def test_an_unchanged_experiment_is_there_once(copy: Path, runs: dict[str, Run]) -> None:
    """Ids of all runs are as before, and so is what would be sent: one folder for each."""
    change(copy, report__title="Another title", tracking__tags=["another tag"])
    log_again()
    again = read_runs(copy)
    assert len(list((copy / "wandb").glob("offline-run-*"))) == len(ARMS) + 1
    assert {n: r.about["run_id"] for n, r in again.items()} == {n: r.about["run_id"] for n, r in runs.items()}
    assert all(run.about["tags"] == ["another tag"] for run in again.values())
    listed = subprocess.run(
        [*wandb_command(), "sync", "--dry-run"], capture_output=True, text=True, check=True, cwd=copy
    )
    assert f"Would sync {len(ARMS) + 1} run(s)" in listed.stdout + listed.stderr


def test_what_was_sent_stays(copy: Path) -> None:
    for folder in (copy / "wandb").glob("offline-run-*"):
        [record] = folder.glob("*.wandb")
        record.with_suffix(".wandb.synced").touch()
    log_again()
    assert len(list((copy / "wandb").glob("offline-run-*"))) == 2 * (len(ARMS) + 1)


def test_ids_follow_from_what_shapes_an_arm(copy: Path, runs: dict[str, Run]) -> None:
    from tasks.tracking.naming import Identity, run_id

    def ids() -> dict[str, str]:
        params = load_params()
        identity = Identity(params)
        return {arm: run_id(params, arm, identity.shape(arm)) for arm in params.arms}

    before = ids()
    assert before == {arm: runs[f"{arm}/0"].about["run_id"] for arm in ARMS}
    change(copy, arms__more={"decode": {"lmbda": 0.25}}, model__memory_gb=0.7, evaluate__resamples=60)
    after = ids()
    assert {arm: after[arm] for arm in ARMS} == before and len(set(after.values())) == len(ARMS) + 1
    change(copy, arms__spring={"decode": {"lmbda": 0.3}})
    assert {arm for arm in ARMS if ids()[arm] != before[arm]} == {"spring"}
    change(copy, seed=1)
    assert not set(ids().values()) & set(before.values())
    change(copy, seed=0)
    rows = pl.read_parquet("data/split/1.parquet")
    rows.with_columns(pl.col("response") + "!").write_parquet("data/split/1.parquet")
    assert not set(ids().values()) & set(before.values())


@pytest.mark.slow
def test_text_and_drawings_with_names_are_there_when_asked_for(copy: Path) -> None:
    change(copy, tracking__log_text=True)
    log_again()
    runs = read_runs(copy)
    samples = runs["spring/0"].table("generations")
    assert samples.columns == ["period", "user_id", "query", "reference", "text"]
    assert samples["user_id"][0].startswith("Zaphod") and samples["reference"][0].endswith("xyzzyphrase")
    pages = list((runs["comparison/0"].folder / "files/media/html").rglob("report_*.html"))
    assert len(pages) == 1 and "xyzzyphrase" in pages[0].read_text(encoding="utf-8")
    contents = {a["type"]: runs["comparison/0"].contents(a) for a in runs["comparison/0"].artifacts}
    assert {"report.html", "plots/drift.svg"} <= set(contents["report"])


@pytest.mark.slow
@pytest.mark.parametrize(("adapters", "kept"), [("upload", 6), (None, 0)])
def test_adapters_can_be_sent_or_left_out(copy: Path, adapters: str | None, kept: int) -> None:
    change(copy, tracking__adapters=adapters)
    log_again()
    run = read_runs(copy)["spring/0"]
    entries = [entry for a in run.artifacts if a["type"] == "lora" for entry in run.contents(a).values()]
    assert len(entries) == kept and all(Path(entry["local_path"]).is_file() for entry in entries)
    assert b"zaphod" not in bytes_under(copy / "wandb").lower()


def named(value: Any, *keys: str) -> list[Any]:
    """Everything that stands under one of `keys` anywhere in a tree of JSON."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value[key] for key in keys if isinstance(value, dict) and value.get(key)]
    return own + [found for one in inner for found in named(one, *keys)]


def test_the_workspace_draws_what_runs_have(runs: dict[str, Run], project: Path) -> None:
    """Built as it is saved, and every key that a panel names is in the run of the arm that has most."""
    from tasks.tracking.workspace import varied, workspace

    params, run = load_params(), runs["spring/0"]
    spec = json.loads(workspace(params, "me")._to_model().spec.model_dump_json(by_alias=True))
    panels = named(spec["section"]["panelBankConfig"]["sections"], "panels")
    kinds = [panel["viewType"] for section in panels for panel in section]
    assert {"Run History Line Plot", "Scatter Plot", "Parallel Coordinates Plot", "Bar Chart"} == set(kinds)
    logged = {key for row in run.history for key in row}
    lines = [panel for section in panels for panel in section if panel["viewType"] == "Run History Line Plot"]
    for line in lines:
        assert {line["config"]["xAxis"], *line["config"]["metrics"]} <= logged
        assert line["config"]["groupBy"] == "arm.value" and line["config"]["groupAgg"] == "mean"
    asked = [key.removeprefix("summary:") for key in named(panels, "xAxis", "yAxis") if "summary:" in key]
    asked += [column["accessor"] for columns in named(panels, "columns") for column in columns]
    asked = [key.removeprefix("summary:") for key in asked]
    assert set(asked) >= {"cost/seconds", "logp_per_token/mean", "config:arm.value"}
    for key in asked:
        if key.startswith("config:"):
            first, *rest = key.removeprefix("config:").replace(".value", "", 1).split(".")
            value = run.config[first]
            for part in rest:
                value = value[part]
        else:
            assert key in run.summary
    assert {"decode.lmbda", "train.data"} <= set(varied(params))
    assert "decode.max_new_tokens" not in varied(params)
    [[runset]] = named(spec, "runSets")
    assert {"personas", "main"} == set(named(runset["filters"], "value"))
    assert [found["name"] for found in runset["grouping"]] == ["arm.value"]


def test_shared_levels_are_sent_without_the_names_in_them(tmp_path: Path) -> None:
    import wandb

    described = json.dumps({"peft_type": "PROPER", "users": ["Zaphod"]}).encode()
    artifact = wandb.Artifact("levels", type="model")
    with staging(tmp_path / "staged"):
        add_adapter(artifact, {"adapter_config.json": described, "uses.json": b"{}"}, "all-users")
    assert set(artifact.manifest.entries) == {"all-users/adapter_config.json"}
    sent = Path(str(artifact.manifest.entries["all-users/adapter_config.json"].local_path))
    assert json.loads(sent.read_text(encoding="utf-8")) == {"peft_type": "PROPER"}


def wandb_command() -> list[str]:
    return [sys.executable, "-m", "wandb"]


def log_in_process(root: Path, after: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`log_experiment` in a fresh Python, with `after` run behind it."""
    code = (
        "import sys; from tasks.params import load_params; from tasks.evaluate import read_metrics;"
        "from tasks.tracking.experiment import log_experiment;"
        f"log_experiment(load_params(), read_metrics()); {after}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_disabled_imports_and_writes_nothing(copy: Path) -> None:
    shutil.rmtree(copy / "wandb")
    change(copy, tracking__mode="disabled")
    ended = log_in_process(copy, "assert 'wandb' not in sys.modules")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "" and not (copy / "wandb").exists()


@pytest.mark.slow
def test_offline_prints_nothing(copy: Path) -> None:
    ended = log_in_process(copy)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
