"""The levels of PROPER through the stages: what is shared, what is a user's own, what each learned from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from kit.params import changed
from kit.pipeline import (
    adapter_bytes,
    cells,
    changed_state,
    experiment,
    index,
    lay_out,
    learn_anew,
    run,
    stagger,
)
from safetensors.torch import load, load_file

from spring.settings.params import ParameterError, parse
from tasks import adapt
from tasks.cells.scoring import ScoreJob, score
from tasks.cells.workbench import fit_of
from tasks.measures.costs import costs
from tasks.params import load_params
from tasks.steps.experiment import Experiment
from tasks.steps.index import user_folder
from tasks.steps.levels import scored_apart
from tasks.steps.population import Case
from tasks.suites import parse_with_suite

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LORA = {"r": 2, "target_modules": ["gate_proj", "up_proj", "down_proj"]}
EXPERTS = {"name": "proper", "level": "user", "scope": "population", "count": 2, "constraint": 0.1}
EXPERTS |= {"user_embedding": 3, "population_epochs": 1, "group_epochs": 1}
PARAMETRIC: dict[str, Any] = {"memory": None, "decode": {"lmbda": 0.0}}
USERS = [f"user {u}" for u in range(3)]


def arm(level: str, **changes: Any) -> dict[str, Any]:
    return {"train": {"data": "current", "lora": LORA, "experts": {**EXPERTS, "level": level}, **changes}}


ARMS: dict[str, Any] = {
    "base": {"train": None, "memory": None},
    "plain": {"train": {"data": "current", "lora": LORA}, **PARAMETRIC},
    "proper": {**arm("user"), **PARAMETRIC},
    "group": {**arm("group"), **PARAMETRIC},
    "population": {**arm("population"), **PARAMETRIC},
    "drifting": arm("user", data="drift"),  # with SPRInG's selection, buffer and two paths on top
}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """All arms through three periods, in the current folder; users' periods overlap."""
    folder = tmp_path_factory.mktemp("levels")
    with experiment(folder, tiny_model_folder, prepare=stagger, arms=ARMS) as patch:
        yield folder, patch


@pytest.fixture
def project(finished: tuple[Path, pytest.MonkeyPatch]) -> Path:
    return finished[0]


def folder_of(project: Path, period: int, name: str, user: str | None) -> Path:
    recipe = load_params(project / "params.yaml").arms[name].recipe
    return lay_out(project, period) / f"adapt/{period}/adapters/{recipe}/{user_folder(user)}"


def test_every_level_has_its_adapters_in_every_period(project: Path) -> None:
    for period in range(3):
        assert index(project, period, "population")["user_id"].to_list() == [None]
        for name in ("proper", "group", "drifting"):
            assert set(index(project, period, name)["user_id"]) == {None, *USERS}
    said = pl.read_parquet(project / "data/generate/2/generations.parquet")
    logp = {name: said.filter(pl.col("arm") == name)["logp"].to_numpy() for name in ARMS}
    for one, other in (("base", "population"), ("population", "group"), ("group", "proper")):
        assert abs(logp[one] - logp[other]).min() > 1e-5, "each level adds something"
    page = (project / "data/report/report.html").read_text()
    assert "a LoRA and 2 experts of all users up to the first test query" in page


def test_shared_levels_are_learned_once_and_handed_on_bitwise(project: Path) -> None:
    """One cell in all periods, the same for `proper` and `group`; only users of `proper` go on learning."""
    shared = {
        (name, t): index(project, t, name).filter(pl.col("user_id").is_null())
        for name in ("proper", "group", "drifting", "population")
        for t in range(3)
    }
    keys = {place: rows["cell"].to_list() for place, rows in shared.items()}
    assert len({str(keys[name, t]) for name in ("proper", "group", "drifting") for t in range(3)}) == 1
    assert keys["population", 0] == keys["population", 2] != keys["group", 0]
    assert [shared["proper", t]["items"].item() > 0 for t in range(3)] == [True, False, False]
    part = load_file(folder_of(project, 0, "proper", None) / "experts.safetensors")
    for name in ("proper", "group"):
        again = load_file(folder_of(project, 2, name, None) / "experts.safetensors")
        assert part.keys() == again.keys() and all(torch.equal(part[n], again[n]) for n in part)
    lora = load_file(folder_of(project, 0, "population", None) / "adapter_model.safetensors")
    for name, tensor in lora.items():  # level 1 inside level 2's folder
        stem, kind = name.removeprefix("base_model.model.").removesuffix(".weight").split(".lora_")
        assert torch.equal(part[f"{stem}.population_{kind}"], tensor)
    users = pl.col("user_id").is_not_null()
    assert all(index(project, t, "proper").filter(users)["items"].to_list() == [5] * 3 for t in range(3))
    assert index(project, 2, "group").filter(users)["tokens"].sum() == 0
    assert set(index(project, 0, "group").filter(users)["cell"]) == set(
        index(project, 2, "group").filter(users)["cell"]
    )


def test_the_cost_of_the_shared_levels_is_that_of_both(project: Path) -> None:
    """7 items (tests/test_variants.py), level 1 and level 2 one epoch each, batches of 4: two steps each."""
    both = index(project, 0, "proper").filter(pl.col("user_id").is_null())
    first = index(project, 0, "population")
    assert (first["steps"].item(), both["steps"].item()) == (2, 4)
    assert both["tokens"].item() == 2 * first["tokens"].item() and both["items"].item() == 7
    params, none = (
        load_params(project / "params.yaml"),
        pl.read_parquet(project / "data/generate/1/generations.parquet"),
    )
    charged = {name: costs(params, name, none)["tokens_trained"] for name in ("group", "population")}
    assert charged == {"group": both["tokens"].item(), "population": first["tokens"].item()}  # each once


def test_shared_levels_hold_nothing_later_than_any_test_query(project: Path) -> None:
    rows = pl.read_parquet(project / "data/split/0.parquet")
    first = rows.filter(pl.col("part") == "test")["timestamp"].min()
    for name in ("proper", "group", "population"):
        [learned] = index(project, 0, name).filter(pl.col("user_id").is_null())["chosen"].to_list()
        known = rows.filter(pl.col("interaction_id").is_in(learned))
        assert known.height == 7 and known["timestamp"].max() <= first
        assert known["part"].unique().to_list() == ["train"]


def test_a_user_level_lesson_holds_the_users_own_items_of_the_period(project: Path) -> None:
    for period in range(3):
        rows = pl.read_parquet(project / f"data/split/{period}.parquet").filter(pl.col("part") == "train")
        for user, chosen in index(project, period, "proper").select("user_id", "chosen").iter_rows():
            if user is not None:
                assert set(chosen) == set(rows.filter(pl.col("user_id") == user)["interaction_id"])


def test_users_of_level_2_have_their_embedding_and_the_unseen_the_mean(project: Path) -> None:
    """User 2 starts on day 8, after the first test query on day 5: level 2 has not seen it."""
    part = load_file(folder_of(project, 0, "group", None) / "experts.safetensors")["user_embeddings"]
    own = {
        user: load_file(folder_of(project, 1, "group", user) / "adapter_model.safetensors")["user_embedding"]
        for user in (*USERS, None)
    }
    assert part.shape == (2, 3)
    assert torch.equal(own["user 0"], part[0]) and torch.equal(own["user 1"], part[1])
    assert torch.equal(own["user 2"], part.mean(0)) and torch.equal(own[None], part.mean(0))


def test_a_newcomer_is_answered_by_level_2(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody trained for them: the mean embedding over the shared experts, in arms of level 2 and 3 alike."""
    monkeypatch.chdir(project)
    bench = Experiment()
    adapters = bench.adapters(2)
    rows = pl.read_parquet("data/split/2.parquet").head(2).to_dicts()
    found = {}
    for name in ("proper", "group"):
        adapter = adapters.of(bench.params.arms[name].recipe, "newcomer")
        assert adapter is not None and adapter.over is not None and adapter.over.experts.level == "group"
        found[name] = score(bench, [ScoreJob(rows, adapter)], "newcomer")[0].logp
    unseen = adapters.of(bench.params.arms["group"].recipe, "user 2")
    expected = score(bench, [ScoreJob(rows, unseen)], "unseen")[0].logp
    assert found["proper"].tolist() == found["group"].tolist()
    assert found["group"] == pytest.approx(expected)
    base = score(bench, [ScoreJob(rows, None)], "base")[0].logp
    assert abs(base - expected).min() > 1e-4


def test_adapters_of_one_shared_part_are_read_together(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank is the same for all users of a level, in all periods, and another one for another level."""
    monkeypatch.chdir(project)
    bench = Experiment()
    fits = {
        name: {
            fit_of(bench.adapters(t).of(bench.params.arms[name].recipe, user))
            for user in USERS
            for t in (0, 2)
        }
        for name in ("plain", "proper", "group", "population")
    }
    assert all(len(fit) == 1 for fit in fits.values())
    assert fits["plain"] == fits["population"] and len(fits["proper"] | fits["group"] | fits["plain"]) == 3


def test_a_change_of_one_user_reaches_others_by_the_shared_levels_alone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User 2 is in no shared lesson: its texts reach nobody. User 1 is: everything on top is learned anew."""
    everybody = {"population", "user-0", "user-1", "user-2"}
    touched = {
        "user 2": {"plain": {"user-2"}, "proper": {"user-2"}, "group": set(), "population": set()},
        "user 1": {"plain": {"user-1"}, "proper": everybody, "population": {"population"}},
    }
    for user, expected in touched.items():
        learn_anew(tmp_path / user, project, monkeypatch, edited=user, prepare=stagger)
        changed = [name.split("/") for name in changed_state(project, tmp_path / user)]
        for name, those in expected.items():
            recipe = load_params().arms[name].recipe
            assert {place[4].rsplit("-", 1)[0] for place in changed if place[3] == recipe} == those, name


def test_a_second_run_computes_nothing_and_needs_no_cells_of_the_shared_part(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is handed on comes from the period before, which may have been pulled without its cells."""
    folder = tmp_path / "again"
    shutil.copytree(project, folder)
    monkeypatch.chdir(folder)
    before, adapters = cells(folder), adapter_bytes(folder, 2)
    with monkeypatch.context() as patch:
        patch.setattr(
            "tasks.cells.workbench.Workbench.base", property(lambda self: pytest.fail("model loaded"))
        )
        run(adapt, monkeypatch, 0)
        run(adapt, monkeypatch, 2)
    assert cells(folder) == before and adapter_bytes(folder, 2) == adapters
    shutil.rmtree(folder / ".cells")
    run(adapt, monkeypatch, 2)
    again = {name: load(content) for name, content in adapter_bytes(folder, 2).items()}
    assert again.keys() == adapters.keys()
    for name, tensors in again.items():
        old = load(adapters[name])
        assert all((tensor - old[key]).abs().max() < 2e-4 for key, tensor in tensors.items())


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"experts": {**EXPERTS, "count": 1}}, "experts.count is 1"),
        ({"experts": {**EXPERTS, "level": "person"}}, "experts.level is 'person'"),
        ({"experts": {**EXPERTS, "constraint": -1}}, "experts.constraint is -1"),
        ({"experts": {"name": "proper"}}, "experts.level"),
        (
            {"experts": EXPERTS, "scope": "population", "data": "current"},
            "needs train.scope user (is population)",
        ),
        ({"experts": EXPERTS, "start": "population"}, "previous or base (is population)"),
        ({"experts": {**EXPERTS, "level": "group"}, "data": "drift"}, "train.data current (is drift)"),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError, match="nothing was run") as error:
        parse(changed("arms.spring", {"train": change}))
    assert named in str(error.value)


def test_a_population_has_no_adapter_to_swap() -> None:
    swapped = {"adapter": "swapped", **arm("population")}
    with pytest.raises(ParameterError, match="swapped needs an adapter per user"):
        parse(changed("arms.spring", swapped))
    assert parse(changed("arms.spring", {"adapter": "swapped", **arm("group")}))


def test_unused_experts_stand_in_no_fingerprint_and_levels_share_their_lessons() -> None:
    tree = changed("arms.proper", arm("user"))
    tree["arms"]["group"] = arm("group")
    arms = parse(tree).arms
    spring, proper, group = (arms[name].train for name in ("spring", "proper", "group"))
    assert spring is not None and proper is not None and group is not None
    assert "experts" not in spring.model_dump() and spring.group is None
    assert proper.recipe != group.recipe
    assert proper.foundation == group.foundation and proper.group == group.group
    assert proper.foundation is not None and proper.foundation.epochs == 1
    assert proper.foundation.experts is None


def test_choosing_is_charged_to_users_that_have_rows_of_their_own_and_once() -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"suite": "compare"}
    arms = parse_with_suite(tree, "params.yaml").arms
    for name, apart in (("proper", True), ("proper-group", True), ("proper-population", False)):
        train = arms[name].train
        assert train is not None
        case = Case(
            "recipe", "user 0", train, [], [], [], None, scores=[{}], confidences=[{}], seconds_score=1
        )
        shared = replace(case, **scored_apart(case))
        assert not shared.scores
        assert (shared.seconds_score, shared.confidences) == ((0.0, []) if apart else (1, [{}]))


def test_the_suite_has_the_three_levels() -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"suite": "compare"}
    levels = {
        name: found.train.experts.level
        for name, found in parse_with_suite(tree, "params.yaml").arms.items()
        if found.train is not None and found.train.experts is not None
    }
    shared = {"proper-group": "group", "proper-population": "population"}
    assert levels == {"proper": "user", "proper-transductive": "user", **shared}
