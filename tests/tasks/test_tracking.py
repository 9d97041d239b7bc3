"""What W&B is given: read back from its offline files, numbers and all, and searched for users' text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kit.tracking import ARMS, made_metrics, write_params

from spring.measures.statistics import EVERY
from tasks.params import load_params
from tasks.tracking import METRICS, log_experiment

ROOT = Path(__file__).parents[2]
USER, QUERY, REFERENCE, ANSWER = (
    "user-4711-secret",
    "query-0815-secret",
    "truth-2342-secret",
    "answer-99-secret",
)


def write_text_tables(root: Path) -> None:
    """Two periods of one user, each with a train item and a test item that both arms answered."""
    for period in (1, 2):
        rows = {"user_id": USER, "interaction_id": [f"{period}-a", f"{period}-b"], "period": period}
        rows |= {"part": ["train", "test"], "query": json.dumps({"TITLE": QUERY}), "response": REFERENCE}
        answers = {
            "arm": list(ARMS),
            "interaction_id": f"{period}-b",
            "text": [f"{ANSWER}-{a}" for a in ARMS],
        }
        for frame, folder in ((pl.DataFrame(rows), f"split/{period}"), (pl.DataFrame(answers), "generate")):
            name = folder if folder != "generate" else f"generate/{period}/generations"
            path = root / f"data/{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(path)


def logged(root: Path, **tracking: object) -> dict[str, dict[str, Any]]:
    """Logs the made-up experiment in `root`; arm -> what `read` finds."""
    write_params(root, **tracking)
    write_text_tables(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.chdir(root)
        log_experiment(load_params(), made_metrics())
    runs = [read(folder) for folder in sorted((root / "wandb").glob("offline-run-*"))]
    return {run["run"]["display_name"]: run for run in runs}


def read(folder: Path) -> dict[str, Any]:
    """One offline run as W&B's own reader sees it: run, config, history rows, summary."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in printed.splitlines()]
    found: dict[str, Any] = {"history": [], "summary": {}, "metrics": {}, "folder": folder}
    for record in records:
        body = record.get(record["type"])
        if record["type"] == "run":
            found["run"], found["config"] = body, body["config"]["update"]
        elif record["type"] == "history":
            found["history"].append(body["item"])
        elif record["type"] == "summary":
            found["summary"] |= body["update"]
        elif record["type"] == "metric":
            found["metrics"][body["name"]] = body
    assert any(record["type"] == "exit" and record["exit"]["exit_code"] == 0 for record in records)
    return found


def bytes_under(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The runs of one experiment without text; tests only read them."""
    return logged(tmp_path_factory.mktemp("quiet"))


def test_one_run_per_arm_in_one_group(quiet: dict[str, dict[str, Any]]) -> None:
    assert set(quiet) == set(ARMS)  # folders of the same second sort at random
    for run in (run["run"] for run in quiet.values()):
        assert (run["run_group"], run["job_type"], run["tags"]) == ("made-up", "arm", ["a-tag"])


def test_history_holds_the_periods(quiet: dict[str, dict[str, Any]]) -> None:
    for arm, expected in made_metrics()["arms"].items():
        rows = [{key: row[key] for key in ("period", *METRICS)} for row in quiet[arm]["history"]]
        assert rows == [
            {"period": period} | {metric: expected[metric]["periods"][str(period)] for metric in METRICS}
            for period in (1, 2)
        ]
        assert {quiet[arm]["metrics"][metric]["step_metric"] for metric in METRICS} == {"period"}


def test_summary_holds_means_intervals_and_costs(quiet: dict[str, dict[str, Any]]) -> None:
    metrics, own = made_metrics(), {}
    for arm, run in quiet.items():
        own[arm] = {key: value for key, value in run["summary"].items() if "/" in key or key == "pass_rate"}
        for metric in METRICS:
            for name in ("mean", "low", "high"):
                assert own[arm].pop(f"{metric}/{name}", None) == metrics["arms"][arm][metric][name]
        for name in (
            "seconds_train",
            "seconds_score",
            "seconds_generate",
            "tokens_trained",
            "tokens_generated",
            "rows_per_step",
        ):
            assert own[arm].pop(f"cost/{name}") == metrics["arms"][arm][name]
        assert own[arm].pop("cost/adapter_bytes") == 300 and own[arm].pop("cost/memory_bytes") == 400
    assert own["base"] == {}  # nothing to be compared with, no gate, no drift; and no interval of rouge1
    for metric in METRICS:
        for name, value in metrics["paired"]["spring"][metric].items():
            assert own["spring"].pop(f"{metric}/against_base/{name}") == value
    for name in ("average", "backward", "forward", "forgetting", "personal"):
        assert own["spring"].pop(f"transfer/{name}") == metrics["transfer"]["spring"][name]["mean"]
    drift = metrics["drift"]["spring"]
    assert own["spring"] == {
        "pass_rate": 0.25,
        "drift/auroc": drift[EVERY]["auroc"]["mean"],
        "drift/average_precision": drift[EVERY]["average_precision"]["mean"],
        "drift/auroc_abrupt": drift["abrupt"]["auroc"]["mean"],
        "drift/average_precision_abrupt": drift["abrupt"]["average_precision"]["mean"],
    }


def test_config_holds_the_resolved_arm(quiet: dict[str, dict[str, Any]]) -> None:
    config = quiet["spring"]["config"]
    assert config["arm"]["name"] == "spring" and quiet["base"]["config"]["arm"]["train"] is None
    assert config["arm"]["train"]["lora"]["r"] == 8  # written nowhere under `arms`: inherited
    assert config["seed"] == 0 and set(config["arms"]) == set(ARMS)


def test_no_user_and_no_text_without_leave(quiet: dict[str, dict[str, Any]]) -> None:
    everything = bytes_under(quiet["base"]["folder"].parent)
    assert b"against_base" in everything  # the files are not compressed, so a search would find text
    assert b"secret" not in everything and b"generations" not in everything


def test_text_is_there_when_asked_for(tmp_path: Path) -> None:
    run = logged(tmp_path, log_text=True)["spring"]
    [table] = run["folder"].rglob("*.table.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"] == ["period", "user_id", "query", "reference", "text"]
    query = json.dumps({"TITLE": QUERY})
    assert content["data"] == [[period, USER, query, REFERENCE, f"{ANSWER}-spring"] for period in (1, 2)]


def test_rerun_overwrites_nothing_and_is_recognised(quiet: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    again = logged(tmp_path, tags=["another-tag"])
    for arm in ARMS:
        assert again[arm]["run"]["run_id"] != quiet[arm]["run"]["run_id"]
        assert again[arm]["config"]["fingerprint"] == quiet[arm]["config"]["fingerprint"]
    write_params(tmp_path)
    other = tmp_path / "params.yaml"
    other.write_text(other.read_text(encoding="utf-8").replace("seed: 0", "seed: 1"), encoding="utf-8")
    from tasks.tracking import config

    assert config(load_params(other), "base")["fingerprint"] != quiet["base"]["config"]["fingerprint"]


def log_in_process(root: Path, after: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`log_experiment` in a fresh Python, with `after` run behind it."""
    (root / "metrics.json").write_text(json.dumps(made_metrics()), encoding="utf-8")
    code = (
        "import json, sys; from tasks.params import load_params; from tasks.tracking import log_experiment;"
        f"log_experiment(load_params(), json.load(open('metrics.json'))); {after}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_disabled_imports_and_writes_nothing(tmp_path: Path) -> None:
    write_params(tmp_path, mode="disabled")
    ended = log_in_process(tmp_path, "assert 'wandb' not in sys.modules")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "" and not (tmp_path / "wandb").exists()


@pytest.mark.slow
def test_offline_prints_nothing(tmp_path: Path) -> None:
    write_params(tmp_path)
    ended = log_in_process(tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.slow
def test_unreachable_server_is_an_error_and_no_hang(tmp_path: Path) -> None:
    write_params(tmp_path, mode="online", init_timeout=1)
    closed = "http://127.0.0.1:9"  # the port `discard`: nothing listens
    ended = log_in_process(tmp_path, WANDB_BASE_URL=closed, WANDB_API_KEY="a" * 40)
    last = ended.stderr[ended.stderr.rindex("TrackingError") :]
    assert "arm 'base'" in last and "tracking.mode: online" in last and "wandb sync" in last
