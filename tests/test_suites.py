"""Suites: every committed one can be used, bad ones are refused by name, trained adapters are shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from spring.params import ParameterError, Params
from tasks import suites
from tasks.published import published_table, read_published
from tasks.suites import lay, parse_with_suite, read_suite, suite_names

ROOT = Path(__file__).parents[1]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
ASKED = {"selection", "alpha", "retention", "lambda", "gate", "replay", "controls"}
ASKED |= {"asls", "compare", "plus", "steering", "tune"}


def with_suite(name: str) -> Params:
    return parse_with_suite(TREE | {"suite": name}, "params.yaml")


def test_the_suites_that_were_asked_for_are_there() -> None:
    assert ASKED | {"main"} <= set(suite_names())


@pytest.mark.parametrize("name", sorted(ASKED | {"main"}))
def test_every_suite_can_be_used_and_its_rows_are_arms_and_rows_of_the_paper(name: str) -> None:
    params, published = with_suite(name), read_suite(name).published
    if published is not None:
        assert set(published.rows) <= set(params.arms)
        for task in ("abstract", "review"):
            assert set(published.rows.values()) <= set(read_published()[published.table][task])


def test_main_leaves_the_parameters_as_they_are() -> None:
    laid = lay(TREE)
    assert laid["arms"] == TREE["arms"] and laid["experiment"] == TREE["experiment"]


def test_a_suite_replaces_the_arms_has_a_group_of_its_own_and_writes_nothing() -> None:
    before = yaml.safe_dump(TREE)
    params = with_suite("lambda")
    assert params.experiment == "personas-lambda" and "rag-accum" not in params.arms
    assert yaml.safe_dump(TREE) == before


@pytest.mark.parametrize(
    ("name", "adapters"),
    [("lambda", 1), ("gate", 1), ("retention", 1), ("alpha", 4), ("replay", 4), ("controls", 8)],
)
def test_arms_that_train_alike_share_adapters(name: str, adapters: int) -> None:
    """Distinct recipes per suite; `controls`: spring, random, current, oppu and population twice, on top."""
    assert len({arm.recipe for arm in with_suite(name).arms.values()} - {None}) == adapters


def test_decoding_suites_share_the_adapters_of_the_main_experiment() -> None:
    spring = with_suite("main").arms["spring"].recipe
    for name in ("lambda", "gate", "retention", "replay", "controls", "alpha", "selection"):
        assert spring in {arm.recipe for arm in with_suite(name).arms.values()}


def test_an_unknown_suite_is_refused_with_all_that_exist() -> None:
    with pytest.raises(
        ParameterError, match=r"nothing was run:\n  suite is 'lamda': must be one of alpha, .*selection"
    ):
        with_suite("lamda")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"arms": {"x": {"decode": {"lmbda": 2}}}},
            r"arms\.x\.decode\.lmbda is 2: .*less than or equal to 1",
        ),
        ({"arms": {"x": {"train": {"select": {"share": 0}}}}}, r"share is 0: .*greater than 0"),
        ({"arms": {"x": {"train": {"select": {"scorer": "magic"}}}}}, r"scorer is 'magic': .*'likelihood'"),
        ({"arm": {"retrieve": {"gate": "tight"}}, "arms": {"x": {}}}, r"gate is 'tight': .*'learned'"),
        ({"question": None, "arms": {"x": {}}}, r"question is None"),
        ({"more": 1, "arms": {"x": {}}}, r"more is 1"),
    ],
)
def test_bad_values_in_a_suite_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], named: str
) -> None:
    suite = {"question": "Why?", "published": None, "evaluate": {"against": "x"}} | change
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    with pytest.raises(ParameterError, match=named) as error:
        with_suite("mine")
    assert "nothing was run" in str(error.value) and "mine.yaml" in str(error.value)


def test_the_papers_rows_stand_beside_the_arms() -> None:
    """Table 3 of the paper: lambda 0.5 has ROUGE-1 0.350 on abstracts, 0.326 on reviews."""
    arms = {name: {"rouge1": {"mean": 0.1}, "rougeL": {"mean": 0.2}} for name in with_suite("lambda").arms}
    table = published_table(with_suite("lambda"), {"arms": arms})
    assert table is not None and "another model and other data" in table.title
    row = next(row for row in table.rows if row["arm"] == "lambda-0.5")
    assert (row["rouge1"], row["published_abstract_rouge1"], row["published_review_rouge1"]) == (
        0.1,
        0.35,
        0.326,
    )
    assert list(table.shown[0]) == [
        "arm",
        "ROUGE-1, here",
        "ROUGE-1, paper's abstracts",
        "ROUGE-1, paper's reviews",
        "ROUGE-L, here",
        "ROUGE-L, paper's abstracts",
        "ROUGE-L, paper's reviews",
    ]


def test_of_rows_with_periods_the_average_is_shown() -> None:
    """Table 1, SPRInG on abstracts: 0.346, 0.353, 0.351, 0.351 and their mean 0.350."""
    params = with_suite("main")
    arms = {name: {"rouge1": {"mean": 0.0}, "rougeL": {"mean": 0.0}} for name in params.arms}
    table = published_table(params, {"arms": arms})
    assert table is not None
    assert next(row for row in table.rows if row["arm"] == "spring")["published_abstract_rouge1"] == 0.350


def test_without_a_table_of_the_paper_there_is_none() -> None:
    assert published_table(with_suite("replay"), {"arms": {}}) is None
