"""Controls and gates on a tiny model: who shares what, what a learned gate saw, what is transductive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from kit.pipeline import cells, changed_state, experiment, index, learn_anew, stagger

from spring.engine.scoring import token_logps
from spring.method.retrieval import document_text, query_text
from spring.store.cells import CellStore
from tasks import generate
from tasks.cells.likelihood import Likelihood, of_answer
from tasks.cells.scoring import place
from tasks.measures.costs import costs
from tasks.params import load_params
from tasks.steps.calibration import Known
from tasks.steps.experiment import Experiment
from tasks.steps.gate import Gate
from tasks.steps.memory import Library
from tasks.steps.partners import swap

pytestmark = pytest.mark.slow

PARAMETRIC: dict[str, Any] = {"memory": None, "decode": {"lmbda": 0.0}}
LEARNED: dict[str, Any] = {"retrieve": {"gate": "learned", "pairs": 3}, "memory": {"first_period": 0}}
FROZEN = {"name": "proper", "level": "population", "scope": "population", "count": 2, "constraint": 0.1}
FROZEN |= {"user_embedding": 3, "population_epochs": 2, "group_epochs": 1}
ARMS: dict[str, Any] = {
    "base": {"train": None, "memory": None},
    "own": PARAMETRIC,
    "swapped": {"adapter": "swapped", **PARAMETRIC},
    "population": {"train": {"scope": "population", "data": "current"}, **PARAMETRIC},
    "population-buffer": {"train": {"scope": "population-transductive"}},
    "population-memory": {"train": {"scope": "population", "data": "current"}},
    "population-cumulative": {"train": {"scope": "population", "data": "cumulative"}},
    "population-0": {"train": {"data": "current", "experts": FROZEN}},  # with a buffer
    "population-0-early": {"train": {"data": "current", "experts": FROZEN}, "memory": {"first_period": 0}},
    "on-top": {"train": {"start": "population"}, **PARAMETRIC},
    "on-top-transductive": {"train": {"start": "population-transductive"}, **PARAMETRIC},
    "learned": LEARNED,
    "learned-surely": LEARNED | {"decode": {"confidence": "entropy"}},
    "transductive": {"retrieve": {"sigma": "q2", "sigma_from": "transductive"}},
    "relevance": {"retrieve": {"gate": None, "weight": "score"}},
}
USERS = [f"user {u}" for u in range(3)]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """All arms through three periods, in the current folder."""
    folder = tmp_path_factory.mktemp("variants")
    with experiment(folder, tiny_model_folder, prepare=stagger, arms=ARMS) as patch:
        yield folder, patch


@pytest.fixture
def project(finished: tuple[Path, pytest.MonkeyPatch]) -> Path:
    return finished[0]


def test_a_population_has_one_adapter_and_it_answers_for_every_user(project: Path) -> None:
    for period in range(3):
        assert index(project, period, "population")["user_id"].to_list() == [None]
        assert index(project, period, "own")["user_id"].to_list() == USERS
    adapters = Experiment().adapters(2)
    recipe = load_params().arms["population"].recipe
    assert len({adapters.of(recipe, user) for user in USERS}) == 1


def test_a_shared_lesson_holds_nothing_later_than_any_test_query(project: Path) -> None:
    """By day: user u's period t has train items on days 4u + 6t .. 4u + 6t + 4 and its test item a day later.

    The first test query comes on days 5, 11, 17, always of user 0.
    Until 5: five items of user 0, of user 1 days 4 and 5.
    Until 11: five and two again; of user 1 the late 6, 7, 8, of user 2 the late 8 to 11.
    Until 17: five and two again; of user 1 the late 12, 13, 14, of user 2 the late 12 and 14 to 17.
    Transductive: all 15 in period 0, then the drift sets, two of each user.
    """
    for period, count in enumerate((5 + 2, 5 + 2 + 3 + 4, 5 + 2 + 3 + 5)):
        (learned,) = index(project, period, "population")["chosen"].to_list()
        assert len(learned) == len(set(learned)) == count
        rows = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in range(period + 1))
        first = rows.filter((pl.col("part") == "test") & (pl.col("period") == period))["timestamp"].min()
        known = rows.filter(pl.col("interaction_id").is_in(learned))
        assert known["timestamp"].max() <= first and known["part"].unique().to_list() == ["train"]
    everything = [index(project, period, "population-buffer") for period in range(3)]
    assert everything[0]["items"].to_list() == [15] and everything[1]["items"].to_list() == [6]


def test_the_buffer_of_a_user_holds_that_users_items_even_if_training_is_shared(project: Path) -> None:
    memory = load_params().arms["population-buffer"].memory_id
    owner = dict(
        pl.read_parquet(project / "data/ingest/interactions.parquet")
        .select("interaction_id", "user_id")
        .iter_rows()
    )
    kept = pl.read_parquet(project / "data/consolidate/2/buffers.parquet").filter(pl.col("memory") == memory)
    assert kept.group_by("user_id").len()["len"].to_list() == [4, 4, 4]  # two a period, from period 1 on
    assert all(owner[item] == user for user, item in kept.select("user_id", "interaction_id").iter_rows())


@pytest.mark.parametrize("name", ["population-memory", "population-cumulative"])
def test_what_a_shared_lesson_learns_late_is_remembered(project: Path, name: str) -> None:
    """Items of periods 1 and 2, those that waited for a later lesson among them; nothing of period 0."""
    memory = load_params().arms[name].memory_id
    held = pl.read_parquet(project / "data/consolidate/2/buffers.parquet").filter(pl.col("memory") == memory)
    rows = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in range(3))
    learned = pl.concat(index(project, t, name) for t in (1, 2))["chosen"].explode()
    expected = rows.filter((pl.col("period") >= 1) & pl.col("interaction_id").is_in(learned.to_list()))
    assert set(held["interaction_id"]) == set(expected["interaction_id"])
    late = expected.filter(~pl.col("interaction_id").is_in(index(project, 1, name)["chosen"][0]))
    assert (late["period"] == 1).any(), "something must have waited"


def test_a_score_is_known_once_the_memory_it_was_taken_from_is(project: Path) -> None:
    """A buffer is that after its owner's whole period, so no score of it is known before the last train item.

    User 0's test query of period 1 comes when the periods of both others still run.
    """
    scores = pl.read_parquet(project / "data/consolidate/1/gate_scores.parquet")
    rows = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in (0, 1))
    ends = rows.filter(pl.col("part") == "train").group_by("user_id", "period").agg(pl.col("timestamp").max())
    known = scores.join(ends, on=["user_id", "period"], validate="m:1")
    assert known.height == scores.height > 0 and (known["known_at"] == known["timestamp"]).all()
    query = rows.filter(
        (pl.col("part") == "test") & (pl.col("period") == 1) & (pl.col("user_id") == "user 0")
    )
    now = scores.filter((pl.col("known_at") <= query["timestamp"][0]) & (pl.col("period") == 1))
    assert set(now["user_id"]) == {"user 0"}


def test_on_top_starts_from_the_adapter_of_all_users(project: Path) -> None:
    """The shared adapter of period 0 is trained once, and user adapters go on from it, each its own way."""
    shared = index(project, 0, "population")["cell"].to_list()
    on_top = index(project, 0, "on-top")["cell"].to_list()
    assert len(set(on_top)) == 3 and not set(on_top) & set(shared)
    assert set(on_top).isdisjoint(index(project, 0, "own")["cell"])
    params = load_params().arms["on-top"].train
    assert params is not None and params.foundation is not None
    assert params.foundation.recipe == load_params().arms["population"].recipe


def test_a_shared_start_is_charged_once_though_another_arm_goes_on_from_it(project: Path) -> None:
    """`on-top` starts from what `population` is after period 0, and `population` learns on."""
    shared, own = (
        [index(project, t, name)["tokens"].sum() for t in range(3)] for name in ("population", "on-top")
    )
    answers = pl.read_parquet(project / "data/generate/1/generations.parquet")
    charged = costs(load_params(), "on-top", answers)["tokens_trained"]
    assert charged == sum(own) + shared[0] < sum(own) + sum(shared)


def test_the_frozen_shared_adapter_is_that_cell_in_every_period_and_each_user_has_a_buffer(
    project: Path,
) -> None:
    shared = index(project, 0, "population")["cell"].to_list()
    for period in range(3):
        assert index(project, period, "population-0")["cell"].to_list() == shared
    buffers = pl.read_parquet(project / "data/consolidate/2/buffers.parquet")
    for name, count in (("population-0", 10), ("population-0-early", 15)):  # of periods 1 and 2; and of 0
        kept = buffers.filter(pl.col("memory") == load_params().arms[name].memory_id)
        assert dict(kept.group_by("user_id").len().iter_rows()) == dict.fromkeys(USERS, count), name


def test_a_transductive_start_has_learned_all_items_of_period_0(project: Path) -> None:
    """All 15, also those later than user 0's test query, where `on-top` starts from 7 of them."""
    train = load_params().arms["on-top-transductive"].train
    assert train is not None and train.foundation is not None
    learned = pl.read_parquet(project / "data/adapt/0/index.parquet")
    shared = learned.filter(pl.col("recipe") == train.foundation.recipe)
    assert shared["items"].to_list() == [15] and index(project, 0, "population")["items"].to_list() == [7]


def test_swapped_answers_with_the_partners_adapter_and_trains_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []

    def spy(bench: Experiment, asked: list[Any], what: str) -> Any:
        jobs.extend(asked)
        raise InterruptedError

    monkeypatch.setattr(generate, "generate", spy)
    monkeypatch.setattr("sys.argv", ["stage", "--period", "2"])
    with pytest.raises(InterruptedError):
        generate.main()
    own = {job.user: job.adapter.key for job in jobs if job.arm == "own"}
    swapped = {job.user: job.adapter.key for job in jobs if job.arm == "swapped"}
    partner = swap(USERS, seed=0)
    assert swapped == {user: own[partner[user]] for user in USERS}
    assert all(swapped[user] != own[user] for user in USERS)
    said = pl.read_parquet(project / "data/generate/2/generations.parquet")
    logp = {arm: said.filter(pl.col("arm") == arm)["logp"].to_numpy() for arm in ("own", "swapped")}
    assert np.abs(logp["own"] - logp["swapped"]).min() > 1e-4  # the adapters differ: the test is not empty


def test_only_arms_that_say_so_learn_from_another_user(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user's texts change, all is learned anew: adapters of others stay, what shares with it does not."""
    edited = tmp_path / "edited"
    learn_anew(edited, project, monkeypatch, edited="user 1", prepare=stagger)
    changed = changed_state(project, edited)
    arms = load_params().arms
    for arm in ARMS:
        if arms[arm].recipe is None:
            continue
        touched = {
            name.split("/")[4].rsplit("-", 1)[0] for name in changed if f"/{arms[arm].recipe}/" in name
        }
        if arm.startswith("on-top"):
            assert touched == {"user-0", "user-1", "user-2"}
        elif arm.startswith("population"):
            assert touched == {"population"}
        else:
            assert touched == {"user-1"}, arm


# --- learned gate -----------------------------------------------------------------------------------------


def gains_of(project: Path, arm: str) -> pl.DataFrame:
    gains = pl.read_parquet(project / "data/consolidate/2/gains.parquet")
    return gains.filter(pl.col("gate") == load_params().arms[arm].gate_id)


def test_gains_are_bounded_and_from_before_the_query_was_learned(project: Path) -> None:
    gains = gains_of(project, "learned")
    counts = gains.group_by("period", "user_id").len().sort("period", "user_id")
    assert counts["period"].to_list() == [1, 1, 1, 2, 2, 2]  # the buffer of period 0 serves the first
    assert counts["len"].to_list() == [3] * 6
    assert (gains["age"] >= 0).all() and gains["gain"].is_finite().all() and (gains["gain"] != 0).any()
    for period in (1, 2):
        tests = pl.read_parquet(project / f"data/split/{period}.parquet").filter(pl.col("part") == "test")
        known = gains.filter(pl.col("period") == period).join(tests, on="user_id")
        assert known.height == 9 and (known["known_at"] < known["timestamp"]).all()


def test_a_gain_is_that_of_the_mixture_under_the_adapter_before(project: Path) -> None:
    """Recomputed for one user of period 2: the queries, items and adapter of the state after period 1.

    At lambda 1/2 the mixture gains more than half of what the context alone does, since log is concave.
    """
    bench = Experiment()
    arm = bench.params.arms["learned"]
    gains = gains_of(project, "learned")
    mine = gains.filter((pl.col("period") == 2) & (pl.col("user_id") == "user 0"))
    before = project / "data/consolidate/1"
    library = Library(
        bench, pl.read_parquet(before / "history.parquet"), pl.read_parquet(before / "buffers.parquet"), 1
    )
    shelf = library.shelf(arm.memory_id or "", "user 0", "bm25")
    rows = pl.read_parquet(project / "data/split/2.parquet").filter(pl.col("user_id") == "user 0").to_dicts()
    adapter = bench.adapters(1).of(arm.recipe, "user 0")
    assert adapter is not None and mine.height == 3
    with bench.bank(adapter.lora, 1) as bank:
        place(bank, 0, adapter)
        for pair in mine.iter_rows(named=True):
            (row,) = [r for r in rows if r["timestamp"] == pair["known_at"]]
            item = shelf.top(query_text(row["query"]), 2)[0][int(pair["rank"]) - 1]
            assert np.expm1(pair["item_words"]) == pytest.approx(
                len(document_text(item["query"], item["response"]).split())
            )
            asked = row["task"], row["query"], row["response"]
            texts = [
                bench.prompter.text(*asked, slot=0),
                bench.prompter.text(*asked, slot=0, context=[(item["query"], item["response"])]),
            ]
            alone, given = token_logps(bench.base.model, bank, texts, budget=4096)
            mixed = np.log((np.exp(alone) + np.exp(given)) / 2)
            assert arm.decode.lmbda == 0.5 and pair["gain"] == pytest.approx((mixed - alone).mean(), abs=1e-5)
            assert pair["gain"] > (given - alone).mean() / 2 and pair["seconds"] > 0


def test_weights_by_confidence_judge_the_same_pairs_otherwise(project: Path) -> None:
    plainly, surely = gains_of(project, "learned"), gains_of(project, "learned-surely")
    judged = ("gate", "gain", "seconds")
    assert surely.height == 18 and surely.drop(judged).equals(plainly.drop(judged))
    assert (surely["gain"] - plainly["gain"]).abs().min() > 1e-6 and (surely["seconds"] > 0).all()
    answer = {"logp": -6.0, "ref_tokens": 3, "seconds": 2.0, "ref_seconds": 0.5}
    assert of_answer(answer) == Likelihood(-6.0, 3, 2.5)  # the prompts are read in `seconds`


def test_a_reference_that_stands_twice_in_a_cell_is_paid_once(project: Path) -> None:
    """The two items of a query are judged against the same path without either."""
    again = 0
    store = CellStore(project / ".cells")
    for key in cells(project, "logps.json"):
        cell = json.loads(store.read(key)["logps.json"])
        for i, (logps, seconds) in enumerate(zip(cell["logps"], cell["seconds"], strict=True)):
            assert (seconds == 0) == (logps in cell["logps"][:i])
            again += seconds == 0
    assert again > 0


def test_a_learned_gate_is_fitted_on_what_was_known_at_the_query(project: Path) -> None:
    """Of two queries the earlier one must not profit from pairs between them; without any it stays closed."""
    arm = load_params().arms["learned"]
    when = [pl.datetime(2024, 1, day, time_zone="UTC") for day in (2, 3, 4, 5)]
    gains = [-1.0, 1.0, -1.0, 1.0]
    pairs = pl.select(
        gate=pl.lit(arm.gate_id),
        known_at=pl.concat_list(when).explode(),
        **dict.fromkeys(("score", "standing", "rank", "query_words", "item_words", "age"), pl.lit(1.0)),
    ).with_columns(gain=pl.Series(gains))
    gate = Gate(arm, Known(pl.DataFrame(schema={"known_at": pl.Datetime, "score": pl.Float64})), pairs)
    times = pairs["known_at"].to_list()
    assert gate.learned({"timestamp": times[0]}).closed and gate.closed == 1
    assert not gate.learned({"timestamp": times[1]}).closed and gate.closed == 1
    assert gate.learned({"timestamp": times[3]}) is not gate.learned({"timestamp": times[1]})


# --- transductive and relevance-weighted ------------------------------------------------------------------


def test_only_the_transductive_arm_has_scores_of_test_queries(project: Path) -> None:
    """Its sigma is the median over all test queries so far of all users, each against its buffer."""
    bench, arm = Experiment(), load_params().arms["transductive"]
    found = pl.read_parquet(project / "data/consolidate/2/transductive.parquet")
    assert found["memory"].unique().to_list() == [arm.memory_id]
    expected: list[float] = []
    for period in (1, 2):
        folder = project / f"data/consolidate/{period}"
        frames = (pl.read_parquet(folder / f"{name}.parquet") for name in ("history", "buffers"))
        library = Library(bench, *frames, period)
        tests = pl.read_parquet(project / f"data/split/{period}.parquet").filter(pl.col("part") == "test")
        for row in tests.to_dicts():
            shelf = library.shelf(arm.memory_id or "", row["user_id"], "bm25")
            expected += shelf.scores(query_text(row["query"])).tolist()
    np.testing.assert_allclose(np.sort(found["score"]), np.sort(expected))
    said = pl.read_parquet(project / "data/generate/2/generations.parquet")
    sigmas = said.filter(pl.col("arm") == "transductive")["sigma"].unique().to_list()
    assert sigmas == [pytest.approx(np.median(expected))]


def test_lambda_is_scaled_by_the_standing_of_the_scores(project: Path) -> None:
    said = pl.read_parquet(project / "data/generate/2/generations.parquet").filter(
        pl.col("arm") == "relevance"
    )
    assert said["lmbda"].is_between(0, 0.5).all() and said["lmbda"].n_unique() > 1
    assert ((said["lmbda"] > 0) == (said["contexts"].list.len() > 0)).all()


def test_the_report_marks_what_is_shared_and_what_is_transductive(project: Path) -> None:
    page = (project / "data/report/report.html").read_text()
    for words in ("of all users up to the first test query", "another user&#39;s adapter", "transductive"):
        assert words in page, words
