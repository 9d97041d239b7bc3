"""Runs under several seeds, pooled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from spring.measures.chrf import CHRF_SETTING
from spring.measures.meteor import meteor_setting
from spring.measures.rouge import ROUGE_SETTING
from spring.measures.statistics import EVERY
from spring.settings.params import Params
from tasks.evaluate import settings
from tasks.files import write_json
from tasks.measures.detection import DETECTED
from tasks.measures.matrix import LIKELIHOOD, MEASURED, MEASURES
from tasks.measures.scores import METRICS
from tasks.params import load_params
from tasks.reporting.findings import seeds_table, significance_table
from tasks.reporting.names import titles
from tasks.reporting.published import tables_and_published
from tasks.reporting.table import arms_table, as_markdown, paired_table
from tasks.seeds import __main__ as command
from tasks.seeds import keeping, pooling
from tasks.seeds.keeping import Run, SeedError, keep, params_of, read_kept
from tasks.seeds.pooling import average, pool, together

ROOT = Path(__file__).parents[2]
ARMS = ("base", "spring")


def values(offset: float) -> pl.DataFrame:
    """Two users, two periods: base is `offset` everywhere, spring 1 more for u0 and 3 more for u1."""
    rows = [
        {"arm": arm, "user_id": user, "period": period, "items": 1}
        | dict.fromkeys(METRICS, offset + (gain if arm == "spring" else 0.0))
        for arm in ARMS
        for user, gain in (("u0", 1.0), ("u1", 3.0))
        for period in (1, 2)
    ]
    return pl.DataFrame(rows)


def measured(offset: float) -> pl.DataFrame:
    """What the matrices of u0, whose habits recur, and u1 say: every measure `offset`, of u1 2 more."""
    rows = [
        {"arm": arm, "user_id": user, "kinds": kinds, "metric": metric}
        | dict.fromkeys(MEASURES, offset + gain)
        for arm in ARMS
        for user, kinds, gain in (("u0", ["recurring"], 0.0), ("u1", [], 2.0))
        for metric in (LIKELIHOOD, "rouge1")
    ]
    return pl.DataFrame(rows, schema=MEASURED)


def made(experiment: str, seed: int) -> dict[str, Any]:
    """`seed` + 1 changes, followed by twice as much."""
    costs = {"seconds_train": 10.0 * seed, "pass_rate": None, "tokens_trained": 100 + seed}
    follow = {"0": {"excess": 0.0, "changes": 1}, "1": {"excess": 2.0 * (seed + 1), "changes": seed + 1}}
    wrong = {"mean": 99.0, "low": 99.0, "high": 99.0}  # of one seed alone, to be replaced
    transfer = {"matrix": {"0": {"0": float(seed)}}, "follow": follow, "delay": 0, "average": wrong}
    transfer["generated"] = {"rouge1": {"matrix": {"0": {"0": 2.0 * seed}}}}
    return {
        "experiment": experiment,
        "seed": seed,
        "interactions": 100 * (seed + 1),
        "rouge": "rouge",
        "meteor": "meteor",
        "periods": [1, 2],
        "arms": {
            "base": costs | {metric: {"mean": 0.0} for metric in METRICS},
            "spring": costs | {metric: {"mean": 2.0} for metric in METRICS},
        },
        "transfer": dict.fromkeys(ARMS, transfer),
    }


def run(experiment: str, seed: int) -> Run:
    tables = {"users": values(float(seed)), "transfer": measured(float(seed)), "detection": detected(seed)}
    return made(experiment, seed), tables


def detected(seed: int) -> pl.DataFrame:
    """Spring's scores find every change of u1; u0 has none to find."""
    rows = [
        {"arm": "spring", "user_id": user, "kind": EVERY, "auroc": found, "precision": seed / 2}
        for user, found in (("u0", None), ("u1", 1.0))
    ]
    return pl.DataFrame(rows, schema=DETECTED)


@pytest.fixture
def params() -> Params:
    """The project's own, with two arms."""
    plain = load_params(ROOT / "params.yaml")
    return plain.model_copy(update={"arms": {name: plain.arms[name] for name in ARMS}})


def of(params: Params, source: str) -> Params:
    ingest = params.ingest.model_copy(update={"source": source})
    return params.model_copy(update={"ingest": ingest})


def test_personas_of_every_seed_are_users_of_their_own(params: Params) -> None:
    """Differences 1, 3 under either seed: mean 2 over 4 users, whose sign patterns give p = 2/16."""
    runs = {seed: run("personas", seed) for seed in (0, 1)}
    found = pool(params, runs)
    assert found["users"] == 4 and found["seeds"] == [0, 1] and "seed" not in found
    assert found["interactions"] == 100 + 200
    assert pool(params.model_copy(update={"seed": 7}), runs) == found  # whichever run was the last
    paired = found["paired"]["spring"]["rouge1"]
    assert paired["difference"] == pytest.approx(2.0)
    assert paired["p"] == pytest.approx(2 / 16)
    assert found["arms"]["base"]["rouge1"]["mean"] == pytest.approx(0.5)
    assert found["arms"]["spring"]["seconds_train"] == 5.0
    assert found["arms"]["spring"]["pass_rate"] is None
    drift = found["drift"]["spring"][EVERY]
    assert (drift["auroc"]["mean"], drift["auroc"]["users"]) == (1.0, 2)
    assert (drift["precision"]["mean"], drift["precision"]["users"]) == (0.25, 4)


def test_people_are_averaged_over_seeds(params: Params) -> None:
    """u0 has 0 and 1 under the base model, so 0.5; two users, whatever the number of seeds."""
    runs = {seed: run("personas", seed) for seed in (0, 1)}
    found = pool(of(params, "table"), runs)
    assert found["users"] == 2
    assert found["paired"]["spring"]["rouge1"]["p"] == pytest.approx(2 / 4)
    frames = {seed: tables["users"] for seed, (_, tables) in runs.items()}
    users = together(of(params, "table"), frames, ["arm", "user_id", "period"])
    u0 = users.filter((pl.col("user_id") == "u0") & (pl.col("arm") == "base"))
    assert u0["rouge1"].to_list() == [0.5, 0.5]


def test_transfer_is_of_all_users(params: Params) -> None:
    """u0 has 0 and 1, u1 2 and 3: four personas, or two people of 0.5 and 2.5. Changes: 1 of 2, 2 of 4."""
    runs = {seed: run("personas", seed) for seed in (0, 1)}
    found = pool(params, runs)["transfer"]["spring"]
    assert found["average"]["mean"] == found["generated"]["rouge1"]["backward"]["mean"] == pytest.approx(1.5)
    assert 0 <= found["average"]["low"] < 1.5 < found["average"]["high"] <= 3
    assert found["kinds"] == {"recurring": {"users": 2} | dict.fromkeys(MEASURES, pytest.approx(0.5))}
    assert found["follow"]["1"] == {"excess": pytest.approx((1 * 2 + 2 * 4) / 3), "changes": 3}
    assert found["matrix"] == {"0": {"0": 0.5}} and found["delay"] == 1
    paired = pool(params, runs)["transfer_paired"]["spring"]["forgetting"]
    assert paired["difference"] == 0 and paired["p"] == 1  # both arms were given the same
    assert found["generated"]["rouge1"]["matrix"] == {"0": {"0": 1.0}}
    people = pool(of(params, "table"), runs)["transfer"]["spring"]
    assert people["average"]["mean"] == pytest.approx(1.5) and people["average"]["low"] >= 0.5
    assert people["kinds"]["recurring"]["users"] == 1


@pytest.mark.parametrize("without", [0, 1])
def test_transfer_may_be_of_some_seeds_alone(params: Params, without: int) -> None:
    runs = {seed: run("personas", seed) for seed in (0, 1)}
    alone = pool(params, {1 - without: runs[1 - without]})
    metrics, tables = runs[without]
    runs[without] = metrics | {"transfer": {}}, tables | {"transfer": tables["transfer"].clear()}
    found = pool(params, runs)
    assert (
        found["users"] == 4
        and found["arms"]["spring"]["rouge1"]["mean"] != alone["arms"]["spring"]["rouge1"]["mean"]
    )
    measured, expected = found["transfer"]["spring"], alone["transfer"]["spring"]
    assert measured["average"]["mean"] == pytest.approx(expected["average"]["mean"])
    assert (measured["matrix"], measured["follow"]) == (expected["matrix"], expected["follow"])


@pytest.mark.parametrize("some", [{0}, {1}, {0, 1}])
def test_a_metric_that_some_run_lacks_is_left_out(params: Params, some: set[int]) -> None:
    """Rouge1, which has a matrix too, stands for one that came after some run was kept, or after both."""
    runs = {seed: run("personas", seed) for seed in (0, 1)}
    whole = pool(params, runs)
    assert pooling.lacking(runs) == []
    for seed in some:
        metrics, tables = json.loads(json.dumps(runs[seed][0])), runs[seed][1]
        for found in metrics["arms"].values():
            del found["rouge1"]
        for found in metrics["transfer"].values():
            del found["generated"]["rouge1"]
        texts = tables["transfer"].filter(pl.col("metric") != "rouge1")
        runs[seed] = metrics, tables | {"users": tables["users"].drop("rouge1"), "transfer": texts}
    assert pooling.lacking(runs) == ["rouge1"]
    found = pool(params, runs)
    for blocks in ("arms", "paired", "by_seed"):
        for arm, there in whole[blocks].items():
            assert found[blocks][arm] == {name: there[name] for name in there if name != "rouge1"}
    assert found["transfer"]["spring"] == whole["transfer"]["spring"] | {"generated": {}}
    assert "ROUGE-1" not in titles(found).values() and titles(whole)["rouge1"] == "ROUGE-1"
    shown = [
        as_markdown(table)
        for make in (arms_table, paired_table, significance_table, seeds_table)
        for table in [make(found, ARMS)]
    ]
    assert all("METEOR" in text and "ROUGE-L" in text and "ROUGE-1" not in text for text in shown)


def without_words(some: Run, user: str) -> Run:
    """A run in which rouge1 applies to no text of `user`, two in all."""
    metrics, tables = some
    users = tables["users"].with_columns(
        pl.when(pl.col("user_id") != user).then("rouge1").alias("rouge1"),
    )
    return metrics | {"inapplicable": {"rouge1": 2}}, tables | {"users": users}


def test_users_without_words_are_in_no_difference_of_words(params: Params) -> None:
    """In seed 0 of personas u0 has no words: differences 3, 1, 3 of rouge1, and 1, 3, 1, 3 of others."""
    runs = {0: without_words(run("personas", 0), "u0"), 1: run("personas", 1)}
    found = pool(params, runs)
    assert found["inapplicable"] == {"rouge1": 2} and found["users"] == 4
    paired = found["paired"]["spring"]
    assert paired["rouge1"]["difference"] == pytest.approx(7 / 3)
    assert paired["rouge1"]["p"] == pytest.approx(2 / 8)
    assert paired["rougeL"]["difference"] == pytest.approx(2) and paired["rougeL"]["p"] == 2 / 16
    assert found["arms"]["spring"]["rouge1"]["users"] == 3 and "users" not in found["arms"]["base"]["rougeL"]
    assert found["by_seed"]["spring"]["rouge1"] == [pytest.approx(3), pytest.approx(2)]


def test_people_without_words_are_counted_once(params: Params) -> None:
    """Of a source that no seed makes the test items are the same; without any, there is no difference."""
    some = {seed: without_words(run("table", seed), "u1") for seed in (0, 1)}
    found = pool(of(params, "table"), some)
    assert found["inapplicable"] == {"rouge1": 2} and found["arms"]["spring"]["rouge1"]["users"] == 1
    nobody = {seed: without_words(run, "u0") for seed, run in some.items()}
    found = pool(of(params, "table"), nobody)
    assert found["by_seed"]["spring"]["rouge1"] == [None, None]
    assert set(found["paired"]["spring"]["rouge1"].values()) == {None}
    assert found["arms"]["spring"]["rouge1"]["mean"] is None
    assert "| spring | – (n=0) |" in as_markdown(arms_table(found, ARMS))
    assert "| spring | –, – |" in as_markdown(seeds_table(found, ARMS))


def test_runs_of_before_words_are_not_pooled_with_later_ones(tmp_path: Path) -> None:
    """Published runs pool as they are, and not with one that was scored by the words of today."""
    folder = tmp_path / "personas-plus"
    shutil.copytree(ROOT / "results/personas-plus", folder)
    params = params_of(folder)
    assert list(read_kept(params, folder)) == [3, 4]
    metrics = json.loads((folder / "4/metrics.json").read_text())
    for seed, versions in ((3, "nltk 1"), (4, "nltk 2")):
        write_json(metrics | {"scored_by": versions}, folder / f"{seed}/metrics.json")
    with pytest.raises(SeedError, match="4 was scored with another scored_by than"):
        read_kept(params, folder)
    write_json(metrics, folder / "3/metrics.json")
    assert list(read_kept(params, folder)) == [3, 4], "an earlier run does not say"
    now = {"rouge": ROUGE_SETTING, "meteor": meteor_setting(False), "chrf": CHRF_SETTING}
    write_json(metrics | now, folder / "4/metrics.json")
    with pytest.raises(SeedError, match="4 was scored with another meteor, rouge than"):
        read_kept(params, folder)
    early = json.loads((folder / "3/metrics.json").read_text())
    write_json(early | now, folder / "3/metrics.json")
    assert list(read_kept(params, folder)) == [3, 4]
    write_json(early | now | {"chrf": "other"}, folder / "3/metrics.json")
    with pytest.raises(SeedError, match="another chrf than"):
        read_kept(params, folder)


def test_what_is_left_out_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published runs without METEOR, by the command that pools them: other tables are as they lie there."""
    folder, copy = ROOT / "results/personas-plus", tmp_path / "personas-plus"
    shutil.copytree(folder, copy)
    for part in ("3", "4"):
        metrics = json.loads((copy / part / "metrics.json").read_text())
        for found in metrics["arms"].values():
            del found["meteor"]
        (copy / part / "metrics.json").write_text(json.dumps(metrics))
        users = pl.read_parquet(copy / part / "users.parquet").drop("meteor")
        users.write_parquet(copy / part / "users.parquet")
    monkeypatch.setattr("sys.argv", ["seeds", str(copy)])
    command.main()
    assert f"not every run in {copy} has it: meteor" in capsys.readouterr().err
    left = {path.name for path in (copy / "tables").iterdir()}
    assert left == {path.name for path in (folder / "tables").iterdir()} - {"periods-meteor.md"}
    for name in ("periods-rouge1.md", "periods-logp_per_token.md", "cost.md", "drift.md"):
        assert (copy / "tables" / name).read_text() == (folder / "tables" / name).read_text()


def test_settings_part_runs_unless_one_lacks_the_matrix(params: Params) -> None:
    off, on = (settings(params.model_copy(update={"transfer": how})) for how in (None, "likelihood"))
    other = settings(params.model_copy(update={"transfer": "generation"}))
    assert keeping.differences(off, on) == "" and keeping.differences(on, other) == "transfer"


def test_average() -> None:
    assert average([{"a": 1.0, "b": None, "c": "x"}, {"a": 2.0, "b": 4.0, "c": "x"}]) == {
        "a": 1.5,
        "b": 4.0,
        "c": "x",
    }
    assert average([100, 103]) == 102 and average([[1, 2], [1, 2]]) == [1, 2]
    costs = [{"arms": {"x": {"seconds_train": seconds, "tokens": seconds}}} for seconds in (1.0, 2.0, 9.0)]
    assert average(costs) == {"arms": {"x": {"seconds_train": 2.0, "tokens": 4.0}}}


def test_other_settings_are_not_pooled(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = keeping.FOLDER / params.experiment
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    with pytest.raises(SeedError, match="nothing is kept"):
        read_kept(params, folder)
    with pytest.raises(SeedError, match="holds no kept runs"):
        params_of(folder)
    Path("data/evaluate").mkdir(parents=True)
    for seed in (0, 1):
        keeping.METRICS_FILE.write_text(json.dumps(made("personas", seed) | {"settings": settings(params)}))
        values(0.0).write_parquet("data/evaluate/users.parquet")
        measured(0.0).write_parquet("data/evaluate/transfer.parquet")
        detected(0).write_parquet("data/evaluate/detection.parquet")
        keep(params.model_copy(update={"seed": seed}))
    assert list(read_kept(params, folder)) == [0, 1]
    assert params_of(folder).model_copy(update={"arms": params.arms}) == params
    kept = pl.read_parquet(folder / "0/users.parquet")
    assert kept.drop("user_id").equals(values(0.0).drop("user_id"))
    assert kept["user_id"].n_unique() == 2 and not set(kept["user_id"]) & {"u0", "u1"}
    values(0.1).write_parquet("data/evaluate/users.parquet")  # of another run than the metrics
    with pytest.raises(SeedError, match=r"is not of the run .* rouge1 of base is 0\.1.*dvc checkout"):
        keep(params.model_copy(update={"seed": 1}))
    values(0.0).write_parquet("data/evaluate/users.parquet")
    detection = Path("data/evaluate/detection.parquet").rename(tmp_path / "aside.parquet")
    with pytest.raises(FileNotFoundError):
        keep(params.model_copy(update={"seed": 1}))
    detection.rename("data/evaluate/detection.parquet")
    assert list(read_kept(params, folder)) == [0, 1], "what was kept stays whole"
    (folder / "1/detection.parquet").rename(tmp_path / "aside.parquet")
    with pytest.raises(SeedError, match=r"personas/1 lacks detection\.parquet: it was kept by an earlier"):
        read_kept(params, folder)
    (tmp_path / "aside.parquet").rename(folder / "1/detection.parquet")
    other = params.model_copy(update={"split": params.split.model_copy(update={"test_share": 0.2})})
    with pytest.raises(SeedError, match=r"other settings \(split\)"):
        read_kept(other, folder)
    write_json(made("personas", 1) | {"settings": settings(params), "meteor": "other"}, keeping.METRICS_FILE)
    keep(params.model_copy(update={"seed": 1}))
    with pytest.raises(SeedError, match=r"1 was scored with another meteor"):
        read_kept(params, folder)
    with pytest.raises(SeedError, match=r"made under other settings \(split\)"):
        keep(other.model_copy(update={"seed": 1}))
    with pytest.raises(SeedError, match=r"seed 1, params\.yaml says personas with seed 0"):
        keep(params)


def test_kept_runs_are_read_by_the_suite_they_were_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arms and its `transfer`, though today's suite has another arm and no transfer."""
    folder = tmp_path / "personas-lambda"
    (folder / "0").mkdir(parents=True)
    plain = (ROOT / "params.yaml").read_text()
    (folder / "0/params.yaml").write_text(plain.replace("suite: main", "suite: lambda"))
    (folder / "0/suite.yaml").write_text(
        "question: What was asked?\npublished: null\ntransfer: likelihood\n"
        "evaluate: {against: earlier}\narms: {earlier: {}, another: {decode: {lmbda: 0.0}}}\n"
    )
    found = params_of(folder)
    assert list(found.arms) == ["earlier", "another"] and found.transfer == "likelihood"
    assert found.experiment == "personas-lambda"


def test_any_arm_can_be_compared_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signs turn when sides are changed, and nothing is written; an unknown arm is refused by name."""
    copy = tmp_path / "personas-plus"
    shutil.copytree(ROOT / "results/personas-plus", copy)
    shutil.rmtree(copy / "tables")
    monkeypatch.setattr("sys.argv", ["seeds", str(copy), "--against", "parametric"])
    command.main()
    told = capsys.readouterr().out
    assert "+0.230 [+0.147, +0.336]" in told and "+0.230  0.002" in told and not (copy / "tables").exists()
    monkeypatch.setattr("sys.argv", ["seeds", str(ROOT / "results/personas-controls"), "--against", "spring"])
    command.main()
    assert "Transfer against spring, paired by user" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["seeds", str(copy), "--against", "sprung"])
    with pytest.raises(SystemExit, match="--against sprung: no such arm; there are spring, open-gate"):
        command.main()


def test_pooling_again_leaves_nothing_of_seeds_that_are_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor does it need the suite to be there still."""
    copy = tmp_path / "personas-replay"
    shutil.copytree(ROOT / "results/personas-replay", copy)
    (copy / "plots/notes.txt").write_text("one's own")
    monkeypatch.setattr("tasks.suites.suite_names", lambda: ["main"])
    for seed in (1, 2):
        shutil.rmtree(copy / str(seed))
    pl.read_parquet(copy / "0/transfer.parquet").clear().write_parquet(copy / "0/transfer.parquet")
    metrics = json.loads((copy / "0/metrics.json").read_text())
    del metrics["settings"]["transfer"]
    (copy / "0/metrics.json").write_text(json.dumps(metrics | {"transfer": {}}))
    monkeypatch.setattr("sys.argv", ["seeds", str(copy)])
    command.main()
    gone = {
        "transfer.md",
        "transfer-tests.md",
        "transfer-matrix.md",
        "seeds.md",
        "transfer.svg",
        "measures.svg",
    }
    left = {path.name for part in ("tables", "plots") for path in (copy / part).iterdir()}
    assert {"arms.md", "paired.svg", "notes.txt"} <= left and not gone & left


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted((ROOT / "results").glob("*/")), ids=lambda path: path.name)
def test_published_runs_can_be_pooled(folder: Path) -> None:
    """Every user of every arm of the suite they were made with; the tables are theirs."""
    params = params_of(folder)
    assert params.experiment == folder.name
    runs = read_kept(params, folder)
    for metrics, tables in runs.values():
        users = tables["users"]
        assert users.height == metrics["users"] * len(params.arms) * len(metrics["periods"])
        assert users["user_id"].str.contains(r"^[0-9a-f]{12}$").all()
    found = pool(params, runs)
    assert found["seeds"] == list(runs) and set(found["arms"]) == set(params.arms)
    made = {
        f"{table.name}.md": as_markdown(table) for table in tables_and_published(params, found) if table.shown
    }
    assert made == {path.name: path.read_text() for path in (folder / "tables").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["personas-replay", "personas-plus"])
def test_published_runs_are_drawn_as_they_lie_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command that results/README.md gives."""
    folder, copy = ROOT / "results" / name, tmp_path / name
    shutil.copytree(folder, copy)
    for part in ("tables", "plots"):
        shutil.rmtree(copy / part)
    monkeypatch.setattr("sys.argv", ["seeds", str(copy)])
    command.main()
    for part in ("tables", "plots"):
        written = {path.name: path.read_text() for path in (copy / part).iterdir()}
        assert written == {path.name: path.read_text() for path in (folder / part).iterdir()}


def test_prompts_of_other_tasks_part_no_runs() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.ingest.task == "review"
    other = params.prompts["commit"].model_copy(update={"system": "You are someone else."})
    assert settings(params.model_copy(update={"prompts": params.prompts | {"commit": other}})) == settings(
        params
    )
    odd = settings(params.model_copy(update={"prompts": params.prompts | {"review": other}}))
    assert keeping.differences(odd, settings(params)) == "prompts"


def test_blocks_of_sources_that_came_later_part_no_runs() -> None:
    """Runs that were kept before them are pooled with new ones."""
    params = load_params(ROOT / "params.yaml")
    without = params.ingest.model_copy(update=dict.fromkeys(params.ingest.unused))
    assert params.ingest.unused >= {"longlamp", "lamp", "amazon"} and without.longlamp is None
    assert settings(params.model_copy(update={"ingest": without})) == settings(params)
    used = [params.ingest.model_copy(update={"source": "longlamp", "longlamp": block}) for block in
            (params.ingest.longlamp, params.ingest.longlamp.model_copy(update={"max_users": 7}))]  # fmt: skip
    first, second = (settings(params.model_copy(update={"ingest": ingest})) for ingest in used)
    assert keeping.differences(first, second) == "ingest"
