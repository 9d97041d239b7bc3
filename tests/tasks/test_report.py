"""Stages evaluate and report on a made-up experiment: numbers, coverage, and a page that is safe to open."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from kit.experiment import HOSTILE, HOSTILE_USER, ROOT, run, write, write_experiment, write_params

from spring.measures.significance import holm
from spring.measures.statistics import EVERY, auroc
from tasks import evaluate, report
from tasks.measures.costs import base_seconds
from tasks.measures.scores import METRICS
from tasks.params import load_params
from tasks.reporting.names import METRIC_NAMES
from tasks.reporting.reading import metric_reading, reading, transfer_reading
from tasks.reporting.table import Table, as_plain, number, p_value, size
from tasks.tracking.arm import summary

TYPES = ("abrupt", "gradual", "noise")
HEADLINES = ("rouge1", "rougeL", "meteor", "logp_per_token")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that has been evaluated and reported; tests only read it."""
    root = tmp_path_factory.mktemp("experiment")
    write_params(root)
    write_experiment(root)
    run(root)
    return root


@pytest.fixture
def unscored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment that is ready for evaluate, and the current folder."""
    write_params(tmp_path)
    write_experiment(tmp_path, users=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "data/metrics.json").read_text(encoding="utf-8"))


# --- evaluate ---------------------------------------------------------------------------------------------


def test_means_are_over_items_then_periods_then_users(finished: Path) -> None:
    metrics = metrics_of(finished)
    generations = pl.concat(
        pl.read_parquet(finished / f"data/generate/{t}/generations.parquet") for t in (1, 2)
    )
    for arm, found in metrics["arms"].items():
        rows = generations.filter(pl.col("arm") == arm).to_dicts()
        per_user: dict[str, dict[int, list[float]]] = {}
        for row in rows:
            values = per_user.setdefault(row["user_id"], {}).setdefault(row["period"], [])
            values.append(row["logp"] / row["ref_tokens"])
        users = [np.mean([np.mean(values) for values in periods.values()]) for periods in per_user.values()]
        assert found["logp_per_token"]["mean"] == pytest.approx(np.mean(users), abs=1e-6)
        of_period = [np.mean(periods[2]) for periods in per_user.values()]
        assert found["logp_per_token"]["periods"]["2"] == pytest.approx(np.mean(of_period), abs=1e-6)


def test_paired_differences_are_differences_of_means(finished: Path) -> None:
    metrics = metrics_of(finished)
    assert set(metrics["paired"]) == set(metrics["arms"]) - {"base"}
    for arm, differences in metrics["paired"].items():
        for metric, found in differences.items():
            gap = metrics["arms"][arm][metric]["mean"] - metrics["arms"]["base"][metric]["mean"]
            assert found["difference"] == pytest.approx(gap, abs=2e-6)
            assert found["low"] <= found["difference"] <= found["high"]


def answer_in_emoji(root: Path, which: pl.Expr) -> None:
    """Test items whose reference has no word."""
    for path in root.glob("data/split/*.parquet"):
        emoji = pl.when(which & (pl.col("part") == "test")).then(pl.lit("👍👍 !!")).otherwise("response")
        write(pl.read_parquet(path).with_columns(response=emoji), path)


def write_texts(root: Path) -> None:
    """What every state and the base model write: the first words of the reference, more the later."""
    params, rows = load_params(root / "params.yaml"), []
    for tested in params.periods:
        split = pl.read_parquet(root / f"data/split/{tested}.parquet").filter(pl.col("part") == "test")
        for item, user, text in split.select("interaction_id", "user_id", "response").iter_rows():
            for learned in (None, *params.periods):
                row = {"user_id": user, "interaction_id": item, "learned": learned, "tested": tested}
                said = " ".join(text.split()[: 3 + (learned or 0)])
                rows += [{"arm": arm, "text": said} | row for arm in params.arms]
    write(pl.DataFrame(rows), root / "data/transfer/texts.parquet")


@pytest.mark.slow
def test_items_without_words_are_in_no_mean_of_words(tmp_path: Path) -> None:
    """User 1 in period 1: ROUGE is that of period 2, METEOR of both; user 2 never: of the others."""
    write_params(tmp_path, transfer="generation")
    write_experiment(tmp_path)
    user, period = pl.col("user_id"), pl.col("period")
    answer_in_emoji(tmp_path, (user == "user-2") | ((user == "user-1") & (period == 1)))
    write_texts(tmp_path)
    run(tmp_path)
    metrics, items = metrics_of(tmp_path), pl.read_parquet(tmp_path / "data/evaluate/items.parquet")
    assert metrics["inapplicable"] == {"rouge1": 3, "rougeL": 3}
    spring = items.filter(pl.col("arm") == "spring")
    assert spring.filter((user == "user-1") & (period == 1))["rouge1"].to_list() == [None]
    for metric, of in (("rouge1", spring.drop_nulls("rouge1")), ("meteor", spring)):
        means = of.group_by("user_id").agg(pl.col(metric).mean())
        found = metrics["arms"]["spring"][metric]
        assert found["mean"] == pytest.approx(means[metric].mean(), abs=1e-6)
        assert found.get("users") == (4 if metric == "rouge1" else None) and means.height in (4, 5)
        assert found["periods"]["1"] == pytest.approx(of.filter(period == 1)[metric].mean(), abs=1e-6)
    gap = metrics["arms"]["spring"]["rouge1"]["mean"] - metrics["arms"]["base"]["rouge1"]["mean"]
    paired = metrics["paired"]["spring"]
    assert paired["rouge1"]["difference"] == pytest.approx(gap, abs=2e-6)
    assert paired["rouge1"]["p"] >= 2 / 2**4 and paired["meteor"]["p"] >= 2 / 2**5
    generated = metrics["transfer"]["spring"]["generated"]
    users = {name: generated[name]["average"]["users"] for name in ("rouge1", "meteor")}
    assert users == {"rouge1": 3, "meteor": 5}  # those whose every period has words
    assert 0 < generated["rouge1"]["matrix"]["1"]["1"] < generated["rouge1"]["matrix"]["2"]["1"]
    folder = tmp_path / "data/report/tables"
    assert "left out: ROUGE-1 (3), ROUGE-L (3)" in (folder / "arms.md").read_text(encoding="utf-8")
    assert {row["rouge1_inapplicable"] for row in json.loads((folder / "arms.json").read_text())} == {3}
    assert "(n=4)" in (folder / "arms.md").read_text(encoding="utf-8")
    page = Page((tmp_path / "data/report/report.html").read_text(encoding="utf-8"))
    assert "left out: ROUGE-1 (3), ROUGE-L (3)" in page.words


@pytest.mark.slow
def test_a_metric_that_applies_to_nothing_is_said_and_not_drawn(tmp_path: Path) -> None:
    write_params(tmp_path, transfer="generation")
    write_experiment(tmp_path, users=2)
    answer_in_emoji(tmp_path, pl.lit(True))
    write_texts(tmp_path)
    run(tmp_path)
    metrics = metrics_of(tmp_path)  # not a number is no JSON
    for arm, found in metrics["arms"].items():
        assert found["rouge1"] == {"mean": None, "low": None, "high": None, "users": 0} | {
            "periods": {"1": None, "2": None}
        }
        assert found["meteor"]["mean"] is not None
        assert arm == "base" or set(metrics["paired"][arm]["rouge1"].values()) == {None}
    generated = metrics["transfer"]["spring"]["generated"]["rouge1"]
    assert generated["average"]["mean"] is None and generated["matrix"]["0"]["1"] is None
    assert dict(reading(metrics, list(metrics["arms"])))["ROUGE-1"].startswith("Applies to no test item")
    table = (tmp_path / "data/report/tables/arms.md").read_text(encoding="utf-8")
    assert "| spring | – (n=0) | – (n=0) |" in table and "nan" not in table.lower()
    page = (tmp_path / "data/report/report.html").read_text(encoding="utf-8")
    assert 'data-chart="periods-meteor"' in page and 'data-chart="periods-rouge1"' not in page
    assert 'data-chart="transfer-meteor"' in page and 'data-chart="transfer-rouge1"' not in page
    assert 'data-value="None"' not in page and "nan" not in Page(page).words.lower().split()
    logged = summary(metrics, "spring")
    assert "rouge1/mean" not in logged and logged["rouge1/inapplicable"] == 4
    assert "meteor/inapplicable" not in logged


def test_an_answer_decides_nothing_about_what_applies() -> None:
    items = pl.DataFrame({"arm": ["a", "b"]} | {metric: [0.5, None] for metric in METRICS})
    with pytest.raises(AssertionError, match="applies to an answer"):
        evaluate.inapplicable(items)


def test_buffers_pay_for_the_base_model_unless_drift_scores_have(tmp_path: Path, monkeypatch: Any) -> None:
    """Two items a period at 1 s and 10 s, of which `current` has learned the second."""
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml")

    def arm(policy: str = "global-highest", first: int = 0, **train: Any) -> Any:
        plain = params.arms["spring"]
        memory = plain.memory.model_copy(update={"policy": policy, "first_period": first})  # type: ignore[union-attr]
        return plain.model_copy(
            update={"memory": memory, "train": plain.train.model_copy(update=train)}  # type: ignore[union-attr]
        )

    recipes = [arm().recipe, arm(data="current").recipe]
    for period in (0, 1):
        names = [f"{period}-{i}" for i in range(3)]  # the last is a test item, offered to nobody
        scored = {"interaction_id": names, "seconds": [1.0, 10.0, 100.0], "part": ["train", "train", "test"]}
        write(pl.DataFrame(scored), Path(f"data/score_base/{period}.parquet"))
        learned = pl.DataFrame(
            {"recipe": recipes, "user_id": "a", "chosen": [[f"{period}-0", f"{period}-1"], [f"{period}-1"]]}
        )
        write(learned, Path(f"data/adapt/{period}/index.parquet"))
    assert [base_seconds(arm(), t) for t in (0, 1)] == [11.0, 0.0]  # Eq. 1 has asked from period 1 on
    assert [base_seconds(arm(first=1), t) for t in (0, 1)] == [0.0, 0.0]
    assert [base_seconds(arm(data="current"), t) for t in (0, 1)] == [10.0, 10.0]
    sure = arm(data="confident")
    confident = learned[1:].with_columns(recipe=pl.lit(sure.recipe))
    write(confident, Path("data/adapt/1/index.parquet"))
    assert [base_seconds(sure, t) for t in (0, 1)] == [0.0, 10.0]  # chosen by the base model in period 0
    write(learned, Path("data/adapt/1/index.parquet"))
    assert base_seconds(arm(data="current", policy="loss"), 1) == base_seconds(arm("recent"), 0) == 0.0
    untrained = arm().model_copy(update={"train": None})
    assert base_seconds(untrained, 1) == 0.0  # the buffer's own seconds are those of the base model
    late = learned.with_columns(chosen=pl.Series([["none"], ["0-0", "0-1", "1-1"]]))  # 0-1 again, 0-0 at last
    write(late, Path("data/adapt/1/index.parquet"))
    assert base_seconds(arm(data="current"), 1) == 11.0
    assert base_seconds(arm().model_copy(update={"memory": None}), 0) == 0.0


def test_costs_follow_the_recipe(finished: Path) -> None:
    """5 users x 3 periods of 1.5 s, 0.5 s of scores and 100 tokens; 0.25 s for each of 3 x 5 buffers.

    Adapters of 10 bytes; 10 answers of 0.25 s.
    """
    arms = metrics_of(finished)["arms"]
    for arm in ("spring", "spring-parametric", "oppu-each"):
        assert arms[arm]["seconds_train"] == 22.5
        assert arms[arm]["tokens_trained"] == 1500
        assert arms[arm]["adapter_bytes"] == 50
    assert arms["spring"]["seconds_score"] == 7.5 + 3.75 and arms["spring-parametric"]["seconds_score"] == 7.5
    assert arms["base"]["seconds_score"] == 0
    assert arms["base"]["seconds_train"] == arms["base"]["adapter_bytes"] == 0
    assert arms["base"]["seconds_generate"] == 2.5
    assert arms["base"]["pass_rate"] is None and arms["oppu-each"]["pass_rate"] is None
    assert arms["rag-accum"]["pass_rate"] == 1.0 and arms["spring"]["pass_rate"] == 1.0


def test_memory_is_charged_by_what_is_held_at_the_end(finished: Path) -> None:
    """The history holds all 105 train items of 5 users, a buffer one item of each."""
    arms = metrics_of(finished)["arms"]
    rows = pl.concat(pl.read_parquet(finished / f"data/split/{t}.parquet") for t in range(3))
    texts = rows.filter(pl.col("part") == "train").with_columns(
        size=(pl.col("query") + pl.col("response")).str.len_bytes()
    )
    assert texts.height == 105
    assert arms["rag-accum"]["memory_bytes"] == texts["size"].sum()
    first = texts.filter(pl.col("interaction_id").str.ends_with("-0-0"))
    assert arms["spring"]["memory_bytes"] == first["size"].sum() > 0
    for arm in ("base", "oppu-each", "spring-parametric"):
        assert arms[arm]["memory_bytes"] == 0


def test_drift_is_measured_for_arms_that_select(finished: Path) -> None:
    drift = metrics_of(finished)["drift"]
    assert set(drift) == {"spring", "spring-parametric"}
    assert drift["spring"] == drift["spring-parametric"]
    assert set(drift["spring"]) == {EVERY, *TYPES}
    means = {
        kind: {name: entry["mean"] for name, entry in of.items()} for kind, of in drift["spring"].items()
    }
    every = means[EVERY]
    assert every["auroc"] > 0.7  # the made-up scores of real changes are lifted by 1.6 deviations
    assert means["noise"]["auroc"] < 0.3
    assert every["average_precision"] > every["chance"] and every["precision"] > every["blind"]
    assert means["abrupt"]["average_precision"] > 0.5 > means["noise"]["average_precision"]
    # users 0 and 3 change abruptly, 1 and 4 gradually; 2 is noisy
    assert [drift["spring"][kind]["auroc"]["users"] for kind in (EVERY, *TYPES)] == [4, 2, 2, 1]


def test_drift_is_measured_within_a_user_and_period(finished: Path) -> None:
    """Recomputed for one user: the mean over its periods of the AUROC among that period's items."""
    detected = pl.read_parquet(finished / "data/evaluate/detection.parquet")
    labels = pl.read_parquet(finished / "data/ingest/labels.parquet")
    found = []
    for period in (1, 2):
        scores = pl.read_parquet(finished / f"data/adapt/{period}/scores.parquet")
        recipe = load_params(finished / "params.yaml").arms["spring"].recipe
        rows = scores.filter((pl.col("recipe") == recipe) & (pl.col("user_id") == "user-1"))
        rows = rows.join(labels, on="interaction_id")
        found.append(auroc(rows["drift_score"].to_numpy(), rows["is_drift"].to_numpy()))
    mine = detected.filter((pl.col("arm") == "spring") & (pl.col("user_id") == "user-1"))
    there = [value for value in found if value is not None]
    assert mine.filter(pl.col("kind") == EVERY)["auroc"].item() == pytest.approx(sum(there) / len(there))


def test_correlations_are_those_within_periods(finished: Path) -> None:
    """Made up so that novelty and hardness rise with the score, and quality falls with it."""
    found = metrics_of(finished)["correlations"]
    assert set(found) == {"spring", "spring-parametric"}
    signs = {
        "novelty ~ quality": -1, "novelty ~ hardness": 1, "novelty ~ drift score": 1,
        "quality ~ hardness": -1, "quality ~ drift score": -1, "hardness ~ drift score": 1,
    }  # fmt: skip
    assert found["spring"] == pytest.approx(signs | {"S' ~ loss": -1})
    assert found["spring-parametric"] == pytest.approx(signs)  # keeps nothing


def test_tests_are_corrected_for_the_arms_within_a_metric(finished: Path) -> None:
    paired = metrics_of(finished)["paired"]
    for metric in METRIC_NAMES:
        found = [of[metric] for of in paired.values()]
        assert [entry["p_holm"] for entry in found] == pytest.approx(holm([entry["p"] for entry in found]))
    surest = paired["spring-parametric"]["logp_per_token"]  # every user gains: 2 of 2^5 sign patterns
    assert surest["p"] == 0.0625 and surest["p_holm"] == 0.25
    assert surest["d_z"] > 2 and surest["users_needed"] > 2


def test_transfer_by_hand(finished: Path) -> None:
    """Arm k gains k / 10 a state. Average: -3 + 3 k / 10 + 0.02 (the mean user). Backward: 2 and 1 states.

    Forward: one state at j = 1, two at j = 2. Forgetting: the last state is one above the best before it.
    """
    found = metrics_of(finished)["transfer"]
    assert list(found) == sorted(metrics_of(finished)["arms"])
    for gain, arm in enumerate(load_params(finished / "params.yaml").arms):
        step = gain / 10
        means = {name: found[arm][name]["mean"] for name in ("average", "backward", "forward", "forgetting")}
        assert means == pytest.approx(
            {"average": -2.98 + 3 * step, "backward": 1.5 * step, "forward": 1.5 * step, "forgetting": -step},
            abs=1e-6,
        )
        own = found[arm]["personal"]["mean"]
        assert own is None if gain < 2 else own == pytest.approx((0.1 + 0.15) / 2)  # periods 1 and 2
        assert found[arm]["held"]["users"] == 0  # nobody's habits come back
        assert found[arm]["matrix"]["1"]["2"] == pytest.approx(-2.98 + 2 * step)
        assert found[arm]["untrained"] == {"0": -2.98, "1": -2.98, "2": -2.98}
        assert set(found[arm]["kinds"]) == {"abrupt", "gradual"}
        assert found[arm]["kinds"]["abrupt"]["users"] == 2  # users 0 and 3 of 5; 2 and no other is noise
        assert found[arm]["kinds"]["abrupt"]["average"] == pytest.approx(-3 + 0.015 + 3 * step)
        # every user gains alike, so that nobody who changed gains more
        assert all(at["excess"] == pytest.approx(0, abs=1e-6) for at in found[arm]["follow"].values())
    paired = metrics_of(finished)["transfer_paired"]
    assert paired["spring"]["backward"]["difference"] == pytest.approx(1.5 * 0.3)
    assert paired["spring"]["personal"]["difference"] is None  # the base model has no adapter to compare with
    assert paired["spring"]["forgetting"]["p"] == 0.0625  # every user alike: 2 of 2^5 sign patterns
    low, high = (found["spring"]["average"][end] for end in ("low", "high"))
    assert low < found["spring"]["average"]["mean"] < high


def test_plots_hold_every_arm_and_period(finished: Path) -> None:
    table = pl.read_csv(finished / "data/evaluate/plots/periods.csv")
    assert table.height == 5 * 2
    curves = pl.read_csv(finished / "data/evaluate/plots/curves.csv")
    assert set(curves["arms"]) == {"oppu-each", "spring + spring-parametric"}
    assert set(curves["users"]) == {5}


def damage(root: Path, change: str) -> None:
    path = root / "data/generate/2/generations.parquet"
    table = pl.read_parquet(path)
    last = table.tail(1)
    others = {
        "missing": table.head(-1),
        "more than once": pl.concat([table, last]),
        "not test items": pl.concat([table, last.with_columns(pl.lit("other").alias("interaction_id"))]),
    }
    write(others[change], path)


@pytest.mark.parametrize("change", ["missing", "more than once", "not test items"])
def test_coverage_is_checked_and_items_are_named(unscored: Path, change: str) -> None:
    damage(unscored, change)
    named = "other" if change == "not test items" else "1-2-7"
    with pytest.raises(ValueError, match=rf"1 generations are .*{change}.*spring-parametric/user-1/{named}"):
        evaluate.main()


# --- report -----------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects tags, what they point to, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.handlers: list[str] = []
        self.styles, self.scripts, self.words = "", "", ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.links.append((tag, value or ""))
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "style":
                self.styles += value or ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.styles += data
        elif self.inside == "script":
            self.scripts += data
        else:
            self.words += data


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return Page((finished / "data/report/report.html").read_text(encoding="utf-8"))


def test_page_needs_no_network(page: Page) -> None:
    """Other addresses stand in links that a reader may follow; the test in a browser is surer."""
    assert len(page.links) > 10
    assert {tag for tag, address in page.links if not address.startswith(("#", "data:"))} == {"a"}
    assert "@import" not in page.styles and "http" not in page.styles
    assert not {"iframe", "object", "embed", "base", "form"} & set(page.tags)


def test_hostile_text_stays_text(page: Page) -> None:
    assert page.tags.count("script") == 3  # data, the library, and the page's own
    assert "alert('text')" not in page.scripts.replace("\\u003cscript\\u003ealert('text')", "")
    assert "49" not in page.words.split("A report", 1)[1].split("\n")[0]  # {{ 7 * 7 }} stays as it is
    assert "img" not in page.tags and page.handlers == []
    assert page.words.count(HOSTILE) >= 5  # title, reference, query
    assert page.words.count(HOSTILE_USER) >= 2  # sample's heading and drift drawing


def test_page_references_resolve_and_ids_are_unique(finished: Path, page: Page) -> None:
    text = (finished / "data/report/report.html").read_text(encoding="utf-8")
    ids = [part.split('"', 1)[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert {link[1:] for _, link in page.links if link.startswith("#")} <= set(ids)


def test_tables_agree_with_metrics(finished: Path) -> None:
    metrics, folder = metrics_of(finished), finished / "data/report/tables"
    for row in json.loads((folder / "arms.json").read_text()):
        for metric in METRIC_NAMES:
            found = metrics["arms"][row["arm"]][metric]
            assert [row[metric], row[f"{metric}_low"], row[f"{metric}_high"]] == [
                found["mean"], found["low"], found["high"],
            ]  # fmt: skip
    for row in pl.read_csv(folder / "paired.csv").iter_rows(named=True):
        found = metrics["paired"][row["arm"]][row["metric"]]
        assert {key: row[key] for key in found} == found
        assert row["excludes_zero"] == (found["low"] > 0 or found["high"] < 0)
    for row in pl.read_csv(folder / "periods-rougeL.csv").iter_rows(named=True):
        assert {key: row[key] for key in ("1", "2")} == metrics["arms"][row["arm"]]["rougeL"]["periods"]
    markdown = (folder / "arms.md").read_text(encoding="utf-8")
    assert f"| spring | {number(metrics['arms']['spring']['rouge1']['mean'])} [" in markdown


@pytest.mark.slow
def test_report_is_the_same_in_another_process(finished: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (finished / "data/report").rglob("*") if path.is_file()}
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("report"))
    code = "from tasks import report as r; r.build(r.load_params(), r.read_metrics())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "PYTHONHASHSEED": "7"}
    environment["SOURCE_DATE_EPOCH"] = "1767225600"
    subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment, check=True)
    assert len(before) > 20
    for path, content in before.items():
        assert (copy / path.relative_to(finished)).read_bytes() == content, path.name


@pytest.mark.slow
def test_one_user_no_labels_no_training(tmp_path: Path) -> None:
    """No interval from one user, no drift without an arm that selects: said, not drawn and not invented."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    write_params(tmp_path, arms={name: tree["arms"][name] for name in ("base", "rag-accum")})
    write_experiment(tmp_path, users=1, labelled=False)
    run(tmp_path)
    metrics = metrics_of(tmp_path)
    assert metrics["drift"] == {}
    found = metrics["paired"]["rag-accum"]["rouge1"]
    assert found["low"] is None and found["high"] is None and found["difference"] is not None
    assert {found[key] for key in ("p", "p_holm", "d_z", "users_needed")} == {None}
    assert metrics["correlations"] == {} and metrics["transfer"]["rag-accum"]["backward"]["low"] is None
    page = Page((tmp_path / "data/report/report.html").read_text(encoding="utf-8"))
    for text in (
        "A single user gives no intervals",
        "No arm of this experiment selects",
        "No arm of this experiment trains",
    ):
        assert text in page.words
    assert not (tmp_path / "data/report/plots/drift.svg").exists()


@pytest.mark.slow
def test_a_single_arm_is_compared_with_nothing(tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    alone = tree["evaluate"] | {"against": "rag-accum", "resamples": 200}
    write_params(tmp_path, arms={"rag-accum": tree["arms"]["rag-accum"]}, evaluate=alone)
    write_experiment(tmp_path, users=3)
    run(tmp_path)
    page = Page((tmp_path / "data/report/report.html").read_text(encoding="utf-8"))
    assert "No arm predicts its users’ texts better than rag-accum." in page.words
    assert not (tmp_path / "data/report/plots/answer.svg").exists()


def test_drift_without_labels_is_null(unscored: Path) -> None:
    labels = unscored / "data/ingest/labels.parquet"
    write(pl.read_parquet(labels).clear(), labels)
    evaluate.main()
    assert metrics_of(unscored)["drift"] == {}
    transfer = metrics_of(unscored)["transfer"]["spring"]
    assert transfer["kinds"] == transfer["follow"] == {} and transfer["delay"] is None


def test_print_shows_tables_and_place(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    monkeypatch.setattr(sys, "argv", ["report", "--print"])
    report.main()
    printed = capsys.readouterr().out
    assert "ROUGE-1 per period" in printed and "period 2" in printed
    assert printed.rstrip().endswith(f"Report: {finished / 'data/report/report.html'}")
    lines = [line for line in printed.splitlines() if line.startswith("spring ")]
    assert len(lines) == 2 + len(HEADLINES)  # values, differences, and each metric over periods
    assert "chrF" not in printed and max(map(len, printed.splitlines())) <= 120


@pytest.mark.parametrize(
    "change", [{"seed": 7}, {"experiment": "another"}, {"arms": {"base": {"train": None}}}]
)
def test_numbers_of_other_parameters_are_not_printed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """As after an arm was added, or an ablation was stopped."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    tree = yaml.safe_load(Path("params.yaml").read_text()) | change
    Path("params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(sys, "argv", ["report", "--print"])
    with pytest.raises(SystemExit, match=r"error: data/metrics.json is of .* run `make repro`"):
        report.main()


@pytest.mark.slow
def test_stages_do_not_import_torch() -> None:
    code = "import sys, tasks.evaluate, tasks.report; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "vl_convert" not in loaded.stdout.split()  # needed to draw, not to print
    assert not {"torch", "transformers", "wandb", "matplotlib"} & set(loaded.stdout.split())


# --- the reading ------------------------------------------------------------------------------------------


def made_up(**arms: tuple[float, float, float]) -> dict[str, Any]:
    """metrics.json with base at 0.3 and each arm's (difference, low, high) on every metric.

    p_holm is 0.01 where low and high have one sign, unless they are as far as 0.1 apart: then 0.2.
    """
    means = {"base": 0.3} | {arm: 0.3 + values[0] for arm, values in arms.items()}
    keys = ("difference", "low", "high")
    return {
        "users": 50,
        "against": "base",
        "arms": {arm: {metric: {"mean": mean} for metric in METRIC_NAMES} for arm, mean in means.items()},
        "paired": {
            arm: {
                metric: dict(zip(keys, values, strict=True))
                | {"p_holm": 0.01 if values[1] * values[2] > 0 and values[2] - values[1] < 0.1 else 0.2}
                for metric in METRIC_NAMES
            }
            for arm, values in arms.items()
        },
        "drift": {},
        "transfer": {},
        "transfer_paired": {},
    }


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        (
            {"a": (0.02, 0.01, 0.03)},
            "a has the highest mean, 0.320: +0.020 [+0.010, +0.030] against base, better (corrected p = "
            "0.010).",
        ),
        (
            {"a": (0.02, -0.01, 0.05), "b": (0.01, 0.005, 0.015), "c": (-0.02, -0.03, -0.01)},
            "a has the highest mean, 0.320: +0.020 [−0.010, +0.050] against base, which does not tell the "
            "two apart (corrected p = 0.200). Other arms above base (corrected p < 0.05): b. Other "
            "arms below base (corrected p < 0.05): c.",
        ),
        (
            {"a": (-0.02, -0.03, -0.01)},
            "No arm has a higher mean than base (0.300). Arms below base (corrected p < 0.05): a.",
        ),
        (
            {"a": (0.2, 0.05, 0.35)},  # an interval above zero is not enough
            "a has the highest mean, 0.500: +0.200 [+0.050, +0.350] against base, probably better, though "
            "the corrected test does not confirm it (corrected p = 0.200).",
        ),
    ],
)
def test_reading_says_what_the_intervals_say(arms: dict[str, Any], expected: str) -> None:
    assert metric_reading(made_up(**arms), ["base", *arms], "rouge1") == expected


def test_reading_of_drift() -> None:
    """Labels missing: said; selections that differ: pointed to; the shares as percentages."""
    metrics = made_up(a=(0.02, 0.01, 0.03))
    assert [heading for heading, _ in reading(metrics, ["base", "a"])] == [
        *(METRIC_NAMES[name] for name in HEADLINES),
        "Caution",
    ]
    values = {"auroc": 0.75, "precision": 0.5, "blind": 0.25}
    found = {name: {"mean": value, "low": 0.7, "high": 0.8} for name, value in values.items()}
    metrics["drift"] = {"a": {EVERY: found}}
    sentence = dict(reading(metrics, ["base", "a"]))["Drift"]
    assert (
        "probability 0.750 [0.700, 0.800] " in sentence
        and "50% of what" in sentence
        and "reach 25%" in sentence
    )
    assert "Other selections" not in sentence
    metrics["drift"]["base"] = {EVERY: found | {"auroc": {"mean": 0.5, "low": 0.4, "high": 0.6}}}
    assert "Other selections" in dict(reading(metrics, ["base", "a"]))["Drift"]
    metrics["drift"] = {"a": {EVERY: found | {"auroc": dict.fromkeys(("mean", "low", "high"))}}}
    assert "none can be told apart" in dict(reading(metrics, ["base", "a"]))["Drift"]


def test_reading_of_transfer() -> None:
    metrics = made_up(a=(0.02, 0.01, 0.03), b=(0.02, 0.01, 0.03))
    values = {"base": (0.0, 0.0, 0.0), "a": (-0.2, -0.3, -0.1), "b": (0.1, -0.1, 0.3)}
    metrics["transfer"] = {
        arm: {"backward": dict(zip(("mean", "low", "high"), of, strict=True))} for arm, of in values.items()
    }
    assert dict(reading(metrics, ["base", "a", "b"]))["Transfer"] == (
        "By learning on, earlier periods lost under a (−0.200), in nats per token; no other interval "
        "excludes zero."
    )
    metrics["transfer"] |= {f"c{i}": {"backward": {"mean": i, "low": i, "high": i}} for i in range(1, 8)}
    [several] = transfer_reading(metrics, list(metrics["transfer"]))
    assert "gained under c7 (+7.000), c6 (+6.000), c5 (+5.000), c4 (+4.000) and 3 more, in nats" in several
    del metrics["transfer"]["a"]
    assert "nothing says" in dict(reading(metrics, ["base", "b"]))["Transfer"]


@pytest.mark.slow
def test_without_the_matrix_the_page_says_so(unscored: Path) -> None:
    write_params(unscored, transfer=None)
    run(unscored)
    assert metrics_of(unscored)["transfer"] == {}
    page = Page((unscored / "data/report/report.html").read_text(encoding="utf-8"))
    assert "Not measured" in page.words
    for name in ("transfer", "measures"):
        assert not (unscored / f"data/report/plots/{name}.svg").exists()


def test_reading_is_cautious() -> None:
    metrics = made_up(a=(0.02, 0.01, 0.03))
    assert "one seed" in reading(metrics, ["base", "a"])[-1][1]
    assert "only 8 users" not in reading(metrics, ["base", "a"])[-1][1]
    metrics["users"] = 8
    assert "only 8 users are rough" in reading(metrics, ["base", "a"])[-1][1]


@pytest.mark.parametrize(("count", "text"), [(7, "7 B"), (1500, "1.5 kB"), (2_340_000, "2.3 MB")])
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_an_empty_table_says_so() -> None:
    assert as_plain(Table("tests", "Tests", [], [])) == "Tests\nNothing to show.\n"


def test_rows_per_step_by_hand() -> None:
    """At most 4 tokens: 3 and a stop, both paths (8 rows); 4, of which 2 with both (6); 0 and a stop (1)."""
    from tasks.measures.costs import rows_per_step

    generations = pl.DataFrame({"tokens": [3, 4, 0], "row_steps": [8, 6, 1]})
    assert rows_per_step(generations, 4) == pytest.approx(15 / 9)


@pytest.mark.parametrize(
    ("p", "said"), [(0.2, "p = 0.200"), (0.001, "p = 0.001"), (0.00099, "p < 0.001"), (0.0, "p < 0.001")]
)
def test_a_small_p_value_is_a_bound_and_never_none_at_all(p: float, said: str) -> None:
    assert p_value(p) == said
