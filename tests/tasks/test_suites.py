"""Suites: every committed one can be used, bad ones are refused by name, trained adapters are shared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.named_experiments import lay_experiment
from spring.settings.params import ParameterError, Params
from tasks import suites
from tasks.params import load_params
from tasks.reporting.published import published_table
from tasks.suites import (
    as_suite_needs,
    lay,
    parse_with_suite,
    published_rows,
    read_published,
    read_suite,
    suite_names,
)

ROOT = Path(__file__).parents[2]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
ASKED = {"selection", "alpha", "retention", "lambda", "gate", "replay", "controls"}
ASKED |= {"asls", "compare", "plus", "rate", "steering", "tune"}


def with_suite(name: str) -> Params:
    return parse_with_suite(as_suite_needs(TREE, name), "params.yaml")


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
    laid = lay(TREE, read_suite("main"))
    assert laid["arms"] == TREE["arms"] and laid["experiment"] == TREE["experiment"]


def test_a_suite_may_ask_for_the_matrix_of_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where params.yaml leaves it off; what params.yaml asks for stands."""
    suite = {"question": "Why?", "published": None, "evaluate": {"against": "x"}, "arms": {"x": {}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite | {"transfer": "likelihood"}))
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    mine = TREE | {"suite": "mine", "suite_values": {}}
    assert parse_with_suite(mine | {"transfer": None}, "params.yaml").transfer == "likelihood"
    asked = mine | {"transfer": "generation"}
    assert parse_with_suite(asked, "params.yaml").transfer == "generation"


def test_a_suite_replaces_the_arms_has_a_group_of_its_own_and_writes_nothing() -> None:
    before = yaml.safe_dump(TREE)
    params = with_suite("lambda")
    assert params.experiment == "personas-lambda" and "rag-accum" not in params.arms
    assert yaml.safe_dump(TREE) == before


def test_the_table_of_suites_says_how_many_recipes_each_trains() -> None:
    """Distinct recipes of its arms: those that train alike share adapters."""
    text = (ROOT / "docs/suites.md").read_text()
    table = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \|$", text, flags=re.MULTILINE)
    assert len(table) > 10
    for name, recipes in table:
        trained = {arm.recipe for arm in with_suite(name).arms.values()} - {None}
        assert (name, len(trained)) == (name, int(recipes))


def test_decoding_suites_share_the_adapters_of_the_main_experiment() -> None:
    spring = with_suite("main").arms["spring"].recipe
    for name in ("lambda", "gate", "retention", "replay", "controls", "alpha", "selection"):
        assert spring in {arm.recipe for arm in with_suite(name).arms.values()}


def test_a_memory_that_nothing_reads_is_none() -> None:
    """It would be filled for nothing, and its cost charged to an arm that does not need it."""
    arms, replay = with_suite("lambda").arms, with_suite("replay").arms
    assert arms["lambda-0"].memory is not None and arms["lambda-0"].memory_id is None
    assert arms["lambda-0.1"].memory_id is not None
    assert replay["no-retrieval"].memory_id is None
    assert replay["replay-50-no-retrieval"].memory_id is not None


def test_arms_of_two_suites_that_mean_the_same_share_all_they_learn_and_keep() -> None:
    plus, controls, replay = (with_suite(name).arms for name in ("plus", "controls", "replay"))
    for mine, theirs in (
        (plus["current"], controls["current"]),
        (plus["current-plus"], controls["current"]),
        (plus["current-replay"], replay["current-replay-25"]),
    ):
        assert (mine.recipe, mine.memory_id) == (theirs.recipe, theirs.memory_id)
    assert plus["current-plus"].retrieve == plus["spring-plus"].retrieve
    assert plus["current-plus"].decode == plus["spring-plus"].decode


def test_the_shared_adapter_of_period_0_is_what_user_adapters_start_from() -> None:
    """`population-0` stays at what `population-then-user` goes on from: their difference is personal."""
    arms = with_suite("controls").arms
    frozen, on_top = arms["population-0"].train, arms["population-then-user"].train
    assert frozen is not None and on_top is not None and frozen.foundation is not None
    assert frozen.foundation == on_top.foundation
    assert frozen.one_for_all and frozen.group == frozen.foundation, "nothing is learned on top"
    assert arms["population-0-retrieval"].recipe == arms["population-0"].recipe


@pytest.mark.parametrize("name", ["oppu-task", "proper"])
def test_transductive_twins_differ_in_what_users_share_alone(name: str) -> None:
    arms = with_suite("compare").arms
    own, twin = arms[name].train, arms[f"{name}-transductive"].train
    assert own is not None and twin is not None
    assert own.foundation is not None and twin.foundation is not None
    assert twin.foundation == own.foundation.model_copy(update={"scope": "population-transductive"})
    assert twin.model_copy(update={"start": own.start, "experts": own.experts}) == own


def test_every_arm_of_compare_that_is_called_like_a_row_of_the_paper_stands_beside_it() -> None:
    published = read_suite("compare").published
    assert published is not None
    rows = set(published_rows("table1"))
    assert len(rows) == 12
    assert published.rows == {row: row for row in published.rows}
    assert set(published.rows) == rows & set(with_suite("compare").arms)


def test_every_arm_of_compare_has_a_row_in_the_table_of_methods() -> None:
    rows = [line for line in (ROOT / "docs/methods.md").read_text().splitlines() if line.startswith("| `")]
    named = [arm for row in rows for arm in re.findall("`([^`]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(with_suite("compare").arms)


def test_a_suite_takes_the_values_that_params_yaml_has_for_it() -> None:
    assert with_suite("compare").arms["replay-random"].memory.capacity == 10  # type: ignore[union-attr]
    tree = lay_experiment("acl", TREE) | {"suite": "compare"}
    authors = parse_with_suite(tree, "params.yaml")
    assert authors.arms["replay-random"].memory.capacity == 4  # type: ignore[union-attr]
    assert with_suite("asls").arms["asls"].train.lr == 0.003  # type: ignore[union-attr]


def test_a_value_that_params_yaml_lacks_is_named() -> None:
    tree = TREE | {"suite": "compare", "suite_values": {"asls_lr": 0.003}}
    with pytest.raises(
        ParameterError, match=r"suite_values\.buffer is missing: .*\$\{buffer\}; there are asls_lr"
    ):
        parse_with_suite(tree, "params.yaml")


def test_a_suite_that_needs_generations_gets_them_and_other_suites_leave_the_matrix_to_params_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `-S transfer=null` leaves it out."""
    suite = {"question": "Why?", "published": None, "evaluate": {"against": "x"}, "arms": {"x": {}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite | {"transfer": "generation"}))
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    tree = TREE | {"suite_values": {}}
    assert parse_with_suite(tree | {"suite": "mine"}, "params.yaml").transfer == "generation"
    assert parse_with_suite(tree | {"suite": "plain"}, "params.yaml").transfer == "likelihood"
    assert parse_with_suite(tree | {"suite": "plain", "transfer": None}, "params.yaml").transfer is None


@pytest.mark.parametrize("name", ["tune", "rate"])
def test_settings_are_not_chosen_by_test_items(name: str) -> None:
    with pytest.raises(ParameterError, match=r"split\.hold_out is 'test': .*must be 'validation'"):
        parse_with_suite(TREE | {"suite": name}, "params.yaml")


def test_values_are_put_wherever_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In lists and in the block evaluate too."""
    suite = {"question": "Why?", "published": None, "evaluate": {"against": "x", "detect": "${d}"}}
    suite |= {"arms": {"x": {"train": {"lora": {"target_modules": ["q_proj", "${t}"]}}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    tree = TREE | {"suite": "mine", "suite_values": {"d": 0.02, "t": "v_proj"}}
    params = parse_with_suite(tree, "params.yaml")
    train = params.arms["x"].train
    assert params.evaluate.detect == 0.02 and train is not None
    assert list(train.lora.target_modules) == ["q_proj", "v_proj"]


@pytest.mark.parametrize("values", [5, "buffer", ["buffer"]])
def test_values_must_be_a_block(values: object) -> None:
    with pytest.raises(ParameterError, match=r"suite_values is .*must be a block"):
        parse_with_suite(TREE | {"suite_values": values}, "params.yaml")


def test_seeds_are_checked_before_the_first_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tasks.suites", "lambda", "0", "x"])
    with pytest.raises(SystemExit, match="nothing was run: seed 'x'"):
        suites.main()


def test_a_value_that_no_suite_names_is_refused() -> None:
    """A misspelt one would change nothing, and the number would be taken for another's."""
    for name, said in {"bufer": "did you mean buffer", "x": "they name asls_lr, buffer"}.items():
        tree = TREE | {"suite_values": TREE["suite_values"] | {name: 3}}
        with pytest.raises(ParameterError, match=rf"suite_values\.{name}: no suite names it; {said}"):
            parse_with_suite(tree, "params.yaml")


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
        ({"more": 1, "arms": {"x": {}}}, r"more: no such key; allowed are arm, arms"),
    ],
)
def test_bad_values_in_a_suite_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], named: str
) -> None:
    suite = {"question": "Why?", "published": None, "evaluate": {"against": "x"}} | change
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    with pytest.raises(ParameterError, match=named) as error:
        parse_with_suite(TREE | {"suite": "mine", "suite_values": {}}, "params.yaml")
    assert "nothing was run" in str(error.value) and "mine.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("published", "named"),
    [
        ({"table": "table9", "rows": {}}, r"published\.table is 'table9': .*one of table1, .*table8_sigma"),
        ({"table": "users", "rows": {}}, r"published\.table is 'users'"),
        ({"table": "table3_lambda", "rows": {"x": "0.7"}}, r"'0\.7', the row of 'x', .*0\.5, 1\.0"),
        ({"table": "table1", "rows": {"x": "periods"}}, r"'periods', the row of 'x', must be one of base"),
        ({"table": "table1", "rows": {"x": "base", "y": "base"}}, r"names y, not among the arms x"),
    ],
)
def test_a_row_of_the_paper_that_is_not_there_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: dict[str, Any], named: str
) -> None:
    suite = {"question": "Why?", "published": published, "evaluate": {"against": "x"}, "arms": {"x": {}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    with pytest.raises(ParameterError, match=named):
        with_suite("mine")


def test_rows_of_arms_that_params_yaml_no_longer_has_are_left_out() -> None:
    tree = TREE | {"arms": {"base": TREE["arms"]["base"]}}
    params = parse_with_suite(tree, "params.yaml")
    table = published_table(params, {"arms": {"base": {"rouge1": {"mean": 0.1}, "rougeL": {"mean": 0.2}}}})
    assert table is not None and [row["arm"] for row in table.rows] == ["base"]


def test_an_arm_that_stands_twice_is_refused_in_suites_and_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = "arms:\n  spring: {}\n  other: {}\n  spring: {memory: null}\n"
    text = f"question: Why?\npublished: null\n{twice}"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "params.yaml").write_text(twice)
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    with pytest.raises(ParameterError, match=r"mine\.yaml .*\n.* 'spring' stands twice, on lines 4 and 6"):
        with_suite("mine")
    with pytest.raises(ParameterError, match=r"params\.yaml .*\n.*'spring' stands twice, on lines 2 and 4"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "mine.yaml").write_text(text.replace("  spring: {m", "  spring-2: {m"))
    assert set(read_suite("mine").arms or {}) == {"spring", "other", "spring-2"}


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
