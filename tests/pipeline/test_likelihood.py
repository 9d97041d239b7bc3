"""The matrix of states and periods on the tiny pipeline: its diagonal, what it may see, what it costs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from kit.pipeline import cells, run, run_all, write_params, write_table

from tasks import transfer
from tasks.cells import likelihood
from tasks.cells.decoding import Request
from tasks.cells.likelihood import Ask, paths, weights
from tasks.params import load_params

SPRING = load_params(Path(__file__).parents[2] / "params.yaml").arms["spring"]
pytestmark = pytest.mark.slow
CELL = ["arm", "interaction_id", "learned", "tested"]


def matrix(project: Path, adapter: str = "own") -> pl.DataFrame:
    cells = pl.read_parquet(project / "data/transfer/likelihoods.parquet")
    return cells.filter(pl.col("adapter") == adapter)


def times(project: Path) -> dict[str, object]:
    rows = pl.read_parquet(project / "data/ingest/interactions.parquet")
    return dict(rows.select("interaction_id", "timestamp").iter_rows())


def test_every_arm_state_period_and_user_is_there_once(project, done, monkeypatch):
    found = matrix(project)
    assert found.height == 5 * 3 * 3 * 3  # arms, states, periods, users with a test item each
    assert found.select(CELL).is_unique().all()
    assert found["logp"].is_finite().all() and (found["logp"] < 0).all() and (found["ref_tokens"] > 0).all()


def test_the_diagonal_is_what_generate_found(project, monkeypatch, tiny_model_folder):
    """Same gate, same mixture, another way of reading: for lambda 0, 0.3 and 1, soft gate, confidence."""
    arms = {
        "base": {"train": None, "memory": None},
        "spring": {"retrieve": {"sigma": "q2"}, "decode": {"lmbda": 0.3}},
        "alone": {"decode": {"lmbda": 0.0}},
        "context": {"retrieve": {"gate": None}, "decode": {"lmbda": 1.0}},
        "softly": {"retrieve": {"gate": "soft", "sigma": "q2"}},
        "surely": {"retrieve": {"gate": None}, "decode": {"confidence": "entropy"}},
    }
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    diagonal = matrix(project).filter(pl.col("learned") == pl.col("tested"))
    said = pl.concat(pl.read_parquet(project / f"data/generate/{t}/generations.parquet") for t in (1, 2))
    both = said.join(diagonal, on=["arm", "interaction_id"], validate="1:1")
    assert both.height == 6 * 2 * 3
    assert both["contexts"].to_list() == both["contexts_right"].to_list()
    assert both["ref_tokens"].to_list() == both["ref_tokens_right"].to_list()
    assert (both["logp"] - both["logp_right"]).abs().max() < 1e-3
    per_arm = both.group_by("interaction_id").agg(pl.col("logp").round(2).n_unique())
    assert per_arm["logp"].max() >= 5, "the arms must differ, or equality would mean nothing"


def test_the_base_model_learns_nothing_and_history_only_grows_backwards(project, done, monkeypatch):
    """`base` is the same in every state; `rag-accum` is, from the state of the query's own period on."""
    found = matrix(project)
    for arm, rows in (
        ("base", found),
        ("rag-accum", found.filter(pl.col("learned") >= pl.col("tested"))),
    ):
        values = rows.filter(pl.col("arm") == arm).group_by("interaction_id").agg(pl.col("logp").n_unique())
        assert values["logp"].to_list() == [1] * 9, arm
    base = pl.concat(pl.read_parquet(project / f"data/score_base/{t}.parquet") for t in range(3))
    both = found.filter(pl.col("arm") == "base").join(base, on="interaction_id")
    assert both.height == 27 and (both["logp"] - both["logp_right"]).abs().max() < 1e-3
    adapted = found.filter(pl.col("arm") == "spring-parametric").group_by("interaction_id")
    assert adapted.agg(pl.col("logp").n_unique())["logp"].to_list() == [3] * 9


def test_another_users_adapter_is_read_on_the_diagonal(project, monkeypatch, tiny_model_folder):
    """As the arm `adapter: swapped` answers, which trains nothing and is not swapped again."""
    arms = {
        "base": {"train": None, "memory": None},
        "spring": {"retrieve": {"gate": None}},
        "stranger": {"retrieve": {"gate": None}, "adapter": "swapped"},
        "everybody": {"train": {"scope": "population", "data": "current"}, "memory": None},
    }
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    swapped = matrix(project, "swapped")
    assert set(swapped["arm"]) == {"spring"} and swapped.height == 3 * 3  # periods, users
    assert (swapped["learned"] == swapped["tested"]).all()
    keys = ["interaction_id", "learned", "tested"]
    as_arm = matrix(project).filter(pl.col("arm") == "stranger").select(*keys, "logp")
    both = swapped.join(as_arm, on=keys, validate="1:1")
    assert both.height == 9 and (both["logp"] - both["logp_right"]).abs().max() < 1e-6
    own = matrix(project).filter(pl.col("arm") == "spring").select(*keys, own="logp")
    differences = both.join(own, on=keys).select((pl.col("own") - pl.col("logp")).abs())
    assert differences.min().item() > 1e-4, "the adapters must differ, or this would mean nothing"
    metrics = json.loads((project / "data/metrics.json").read_text())["transfer"]
    assert metrics["spring"]["personal"]["mean"] is not None
    assert all(metrics[arm]["personal"]["mean"] is None for arm in ("base", "stranger", "everybody"))


def test_nothing_later_than_a_query_is_retrieved_in_any_cell(project, done, monkeypatch):
    """Also not by later states, whose buffers hold later items: those are hidden from old queries."""
    when, seen = times(project), 0
    for item, contexts in matrix(project).select("interaction_id", "contexts").iter_rows():
        seen += len(contexts)
        assert all(when[c] < when[item] for c in contexts)
    assert seen > 0
    later = matrix(project).filter((pl.col("learned") > pl.col("tested")) & (pl.col("tested") > 0))
    assert later.filter(pl.col("arm") == "spring")["contexts"].list.len().sum() > 0


def test_later_items_change_no_retrieval_for_earlier_queries(project, done, monkeypatch):
    """Texts of period 2 rewritten: state 2's contexts for the tests of periods 0 and 1 stay as they were."""
    whole = pl.col("arm") == "rag-accum"  # remembers the whole history: nothing is evicted either
    old = (pl.col("learned") == 2) & (pl.col("tested") < 2) & whole
    before = matrix(project).filter(old)
    table = pl.read_csv(project / "table.csv")
    late = table["when"] >= "2024-01-13"  # the 13th of 18 items a user
    subjects = pl.when(late).then(pl.lit("the old new red blue cup lamp chair")).otherwise(pl.col("subject"))
    table.with_columns(subject=subjects).write_csv(project / "table.csv")
    run_all(monkeypatch)
    assert matrix(project).filter(old).select(*CELL, "contexts").equals(before.select(*CELL, "contexts"))


def test_one_more_period_computes_its_row_and_column_only(project, done, monkeypatch, tiny_model_folder):
    kept, older = matrix(project), cells(project, "logps.json")
    write_table(project / "table.csv", users=3, items=24)
    write_params(project, tiny_model_folder, periods=4)
    asked: list[tuple[str, str]] = []
    compute = likelihood._compute

    def note(bench, lora, chosen, done):
        for path in chosen.values():
            asked.extend(
                (path.adapter.key if path.adapter else "", row["interaction_id"]) for row, *_ in path.texts
            )
        compute(bench, lora, chosen, done)

    monkeypatch.setattr("tasks.cells.likelihood._compute", note)
    run_all(monkeypatch, periods=4)
    assert older < cells(project, "logps.json")
    old = matrix(project).filter((pl.col("learned") < 3) & (pl.col("tested") < 3))
    named = ["arm", "user_id", "learned", "tested", "logp"]  # ids are row numbers of the table, which grew
    assert old.select(named).sort(named).equals(kept.select(named).sort(named))
    last = set(pl.read_parquet(project / "data/split/3.parquet")["interaction_id"])
    newest = set(pl.read_parquet(project / "data/adapt/3/index.parquet")["cell"])
    assert asked and all(adapter in newest or row in last for adapter, row in asked)


def test_arms_that_differ_in_lambda_read_nothing_twice(project, monkeypatch, tiny_model_folder):
    arms = {"base": {"train": None, "memory": None}, "half": {"retrieve": {"gate": None}}}
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    before = cells(project, "logps.json")
    arms["tenth"] = {"retrieve": {"gate": None}, "decode": {"lmbda": 0.1}}
    write_params(project, tiny_model_folder, arms=arms)
    run_all(monkeypatch)
    assert cells(project, "logps.json") == before
    both = matrix(project).pivot("arm", index=CELL[1:], values="logp")
    given = both.join(
        matrix(project).filter((pl.col("arm") == "half") & (pl.col("contexts").list.len() > 0)), on=CELL[1:]
    )
    assert given.height > 0 and (given["half"] != given["tenth"]).all()


def test_off_computes_nothing(project, monkeypatch, tiny_model_folder):
    write_params(project, tiny_model_folder, transfer=None)
    run_all(monkeypatch)
    assert matrix(project).height == 0 and not cells(project, "logps.json")
    assert (project / "data/report/report.html").exists()


def test_generation_settings_play_no_role(project, done, monkeypatch, tiny_model_folder):
    before = cells(project, "logps.json")
    write_params(
        project, tiny_model_folder, arm__decode__max_new_tokens=3, arm__decode__repetition_penalty=1.0
    )
    run(transfer, monkeypatch)
    assert cells(project, "logps.json") == before


@pytest.mark.parametrize(
    ("context", "lmbda", "expected", "read"),
    [([], 0.5, (1, 0), (1, 0)), ([{}], 0.5, (0.5, 0.5), (1, 1)), ([{}], 1.0, (0, 1), (0, 1)),
     ([{}], 0.0, (1, 0), (1, 0))],
)  # fmt: skip
def test_a_path_without_weight_is_not_read(context, lmbda, expected, read):
    request = Request({}, context, lmbda, len(context), None)
    assert weights(request) == expected
    assert tuple(len(path.texts) for path in paths(Ask([request], None, SPRING.decode.decoding))) == read


def test_every_state_answers_every_period_where_params_ask(project, monkeypatch, tiny_model_folder):
    """On the diagonal as `generate`, above it as the state before; the base model's answers set the zero."""
    arms = {
        "base": {"train": None, "memory": None},
        "spring": {"retrieve": {"sigma": "q2"}},
        "rag": {"train": None, "memory": {"scope": "history"}, "retrieve": {"gate": None}},
    }
    write_params(project, tiny_model_folder, arms=arms, transfer="generation")
    run_all(monkeypatch)
    texts = pl.read_parquet(project / "data/transfer/texts.parquet")
    assert texts.height == 3 * (3 + 1) * 3 * 3  # arms, states and none, periods, users with a test item each
    said = pl.concat(pl.read_parquet(project / f"data/generate/{t}/generations.parquet") for t in (1, 2))
    diagonal = texts.filter(pl.col("learned") == pl.col("tested"))
    both = said.join(diagonal, on=["arm", "interaction_id"], validate="1:1")
    assert both.height == 3 * 2 * 3 and both["text"].to_list() == both["text_right"].to_list()
    of_base = texts.filter(pl.col("arm") == "base")
    assert (of_base.group_by("interaction_id").agg(pl.col("text").n_unique())["text"] == 1).all()
    of_spring = texts.filter(pl.col("arm") == "spring")
    assert (of_spring.group_by("interaction_id").agg(pl.col("text").n_unique())["text"] > 1).any()
    metrics = json.loads((project / "data/metrics.json").read_text())
    generated = {arm: found["generated"] for arm, found in metrics["transfer"].items()}
    assert all(generated["base"][metric]["forward"]["mean"] == 0 for metric in ("rouge1", "meteor"))
    assert generated["base"]["rouge1"]["forgetting"]["mean"] == 0
    diagonal_means = [generated["spring"]["rouge1"]["matrix"][str(t)][str(t)] for t in (1, 2)]
    assert sum(diagonal_means) / 2 == pytest.approx(metrics["arms"]["spring"]["rouge1"]["mean"], abs=1e-6)
    table = pl.read_csv(project / "data/report/tables/transfer-generated.csv")
    assert table.height == 3 * 4 and set(table["metric"]) == {"rouge1", "rougeL", "meteor", "chrf"}
