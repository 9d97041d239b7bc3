"""Pages of kept runs, the index over them, and the drawings that pages and files are made of."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from kit.experiment import ROOT

from tasks.reporting.cost_plots import cost_plot, curves_plot, frontier, spread
from tasks.reporting.looks import COLOURS, arm_styles, first_arms, on_paper
from tasks.reporting.names import METRIC_NAMES
from tasks.reporting.page import embedded
from tasks.reporting.plots import measure_plot, paired_plot, periods_plot, ratio_ticks
from tasks.reporting.provenance import duration, total_seconds
from tasks.reporting.timeline import periods
from tasks.reporting.transfer_plots import measured
from tasks.reporting.vega import library, sheet
from tasks.seeds import pages

MOST = 2_000_000  # bytes of a page


# --- kept runs --------------------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pages", *arguments])
    pages.main()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["personas-compare", "validation-tune"])
def test_kept_runs_get_the_same_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """53 arms of three seeds, and runs without a matrix of transfer: below 2 MB, and no text of anyone."""
    shutil.copytree(ROOT / f"results/{name}", tmp_path / "results" / name)
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, f"results/{name}")
    page = (tmp_path / f"results/{name}/report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < MOST
    for part in ('id="results"', 'id="provenance"', 'class="answer"', "Kept runs hold no texts"):
        assert part in page
    assert 'id="people"' not in page and 'id="curves"' not in page
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', page)[1])  # type: ignore[index]
    assert {"answer-answer", "paired-rouge1", "cost-logp_per_token"} <= specs.keys()
    assert ("transfer-logp_per_token" in specs) == (name == "personas-compare")


@pytest.mark.slow
def test_index_lists_every_folder_and_says_what_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("personas-plus", "personas-gate"):
        shutil.copytree(ROOT / f"results/{name}", tmp_path / "results" / name)
    (tmp_path / "results/personas-gate/0/users.parquet").unlink()
    monkeypatch.chdir(tmp_path)
    command(monkeypatch)
    said = capsys.readouterr()
    assert "results/personas-plus/report.html" in said.out and "results/index.html" in said.out
    assert "left out: results/personas-gate/0 lacks users.parquet" in said.err
    index = (tmp_path / "results/index.html").read_text(encoding="utf-8")
    assert 'href="personas-plus/report.html"' in index and "personas-gate/report" not in index
    assert "predicts its users’ texts best" in index and "<script" not in index


def test_a_folder_without_runs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: results/none holds no kept runs"):
        command(monkeypatch, "results/none")


# --- drawings ---------------------------------------------------------------------------------------------


def made_up(arms: int) -> dict[str, Any]:
    """Arm i costs i + 1 seconds a part; by likelihood arm i is i - 20, by METEOR the other way round."""
    found = {
        f"arm {i:02}": {
            name: {"mean": (-i if name == "meteor" else i) - 20.0, "low": i - 21.0, "high": i - 19.0}
            | {"periods": {"1": i - 20.0, "2": None}}
            for name in METRIC_NAMES
        }
        | dict.fromkeys(("seconds_train", "seconds_score", "seconds_generate"), i + 1.0)
        for i in range(arms)
    }
    paired = {
        arm: {name: {"difference": 1.0, "low": 0.5, "high": 1.5, "p_holm": 0.01 if arm != "arm 01" else None}}
        for arm in list(found)[1:]
        for name in ["rouge1"]
    }
    return {"arms": found, "against": "arm 00", "paired": paired, "users": 8}


def test_few_arms_are_all_in_colour_of_many_those_the_page_tells_of() -> None:
    assert sorted(first_arms(made_up(8))) == sorted(made_up(8)["arms"])
    many = made_up(53)
    first = first_arms(many, ["arm 30", "arm 00"])
    assert (
        first[:2] == ["arm 30", "arm 00"] and {"arm 52", "arm 51", "arm 50"} <= set(first) and len(first) <= 8
    )
    styles = arm_styles(many, first)
    assert list(styles) == list(many["arms"]) and styles["arm 00"].dash != [1, 0]
    assert len({styles[arm].colour for arm in first}) == len(first)


def test_every_value_is_drawn_and_told() -> None:
    metrics = made_up(9)
    styles = arm_styles(metrics, first := first_arms(metrics))
    drawn = periods_plot(metrics, {("arm 03", "1"): (-18.0, -16.0)}, "rouge1", styles, first)
    rows = drawn["data"]["values"]
    assert len(rows) == 9 * 2 and drawn["params"][0] == {"name": "on", "value": first}
    assert rows[6]["tip"] == "arm 03, period 1\n−17.000 [−18.000, −16.000]"
    assert rows[7]["value"] is None  # a gap: applies to no text of the period
    sure = {
        row["arm"]: row["sure"] for row in paired_plot(metrics, "rouge1", styles, first)["data"]["values"]
    }
    assert not sure.pop("arm 01") and all(sure.values()) and "arm 00" not in sure


def test_measures_of_transfer_are_drawn_where_there_are_any() -> None:
    """No mark without a value; filled: told apart from the arm compared with, which is not itself."""
    metrics = made_up(3)
    values = {"arm 00": 0.0, "arm 01": 0.4, "arm 02": None}
    names = ("average", "backward", "forward", "forgetting", "held", "personal")
    metrics["transfer"] = {
        arm: {name: {"users": 0} for name in names}
        | {"personal": {"mean": value, "low": value, "high": value, "users": 8 if value is not None else 0}}
        for arm, value in values.items()
    }
    metrics["transfer_paired"] = {"arm 01": {"personal": {"p_holm": 0.02}}}
    assert measured(metrics) == ["personal"]
    drawn = measure_plot(metrics, "personal", arm_styles(metrics, []), [])
    assert {row["arm"]: row["sure"] for row in drawn["data"]["values"]} == {"arm 00": False, "arm 01": True}


def test_costs_and_their_front() -> None:
    """Each arm better than all cheaper ones; names of near points stand apart."""
    metrics = made_up(9)
    assert frontier(metrics, "rouge1") == list(metrics["arms"]) and frontier(metrics, "meteor") == ["arm 00"]
    drawn = cost_plot(metrics, "rouge1", arm_styles(metrics, []), [])
    assert [row["seconds"] for row in drawn["data"]["values"]] == [3.0 * (i + 1) for i in range(9)]
    assert spread([("a", 1.0), ("b", 1.1), ("c", 5.0)], 0.5) == {"a": 1.0, "b": 1.5, "c": 5.0}


def test_learning_curves_are_medians_over_users_as_wide_as_their_period() -> None:
    rows = [
        {"recipe": "r", "user_id": user, "period": 1, "step": step, "loss": loss + step}
        for user, loss in (("a", 1.0), ("b", 2.0), ("c", 9.0))
        for step in (0, 1)
    ]
    styles = arm_styles(made_up(2), [])
    drawn = curves_plot(pl.DataFrame(rows), {"r": ["arm 00", "arm 01"]}, styles, [])
    found = [(row["arm"], row["at"], row["loss"]) for row in drawn["data"]["values"]]
    assert found == [
        ("arm 00", 1.25, 2.0),
        ("arm 01", 1.25, 2.0),
        ("arm 00", 1.75, 3.0),
        ("arm 01", 1.75, 3.0),
    ]


def test_ratios_are_marked_where_values_are() -> None:
    """ln 2 = 0.69, ln 5 = 1.61; a narrow axis has finer ones, and 1 is always there."""
    assert ratio_ticks(0.1, 1.9) == [0.0, 0.693147, 1.60944]
    assert ratio_ticks(-0.05, 0.04) == [-0.0202027, 0.0, 0.0198026] and 0.0 in ratio_ticks(-9.0, -7.0)


def test_files_are_drawn_on_white_with_no_variable_left() -> None:
    metrics = made_up(9)
    styles = arm_styles(metrics, first := first_arms(metrics))
    svg = sheet([periods_plot(metrics, {}, "rouge1", styles, first)], width=300, key=True)
    root = ElementTree.fromstring(svg)
    assert "var(" not in svg and root.tag.endswith("svg")
    words = {text.text for text in root.iter() if text.tag.endswith("text")}
    assert {"ROUGE-1", *first} <= words
    assert on_paper('fill="var(--ink)"') == f'fill="{COLOURS["ink"][0]}"'


def test_library_ends_no_script() -> None:
    text = library()
    assert "</script" not in text and "<!--" not in text and len(text) < 1_000_000


def test_data_in_a_page_end_no_script() -> None:
    value = {"text": "</script><!-- \u2028 & {{ x }}"}
    text = str(embedded(value))
    assert not {"<", ">", "&", "\u2028"} & set(text) and json.loads(text) == value


# --- words ------------------------------------------------------------------------------------------------


def test_seconds_of_adapters_that_arms_share_count_once() -> None:
    from tasks.params import load_params

    params = load_params(ROOT / "params.yaml")
    cost = {"seconds_train": 10.0, "seconds_score": 5.0, "seconds_generate": 1.0}
    metrics = {
        "arms": {
            arm: cost | ({} if params.arms[arm].recipe else {"seconds_train": 0.0}) for arm in params.arms
        }
    }
    # base and rag-accum 5 each, oppu-each 15, spring and spring-parametric 15 together; 5 answers
    assert total_seconds(params, metrics) == 5 + 5 + 15 + 15 + 5
    assert [duration(s) for s in (80, 600, 9000)] == ["80 s", "10 min", "2.5 h"]


def test_periods_in_words() -> None:
    assert [periods(kept) for kept in ([2], [1, 2, 3], [1, 3])] == [
        "period 2",
        "periods 1 to 3",
        "periods 1, 3",
    ]
