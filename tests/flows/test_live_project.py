"""Updates of a live project: real Git, real DVC, a tiny model, weeks as periods."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from kit.live import HOUR, LiveProject, after
from kit.warm import Warm

from bench.live import BATCHES, START, call, rest, told, version_bytes, write_batch
from bench.updates import strike
from flows.live.project import live_params
from flows.live.versions import LiveError

State = dict[str, str]


@pytest.fixture(scope="module")
def python(warm_python: Warm) -> Path:
    return warm_python.folder / "python"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, python: Path) -> LiveProject:
    """A live project whose first week has been updated, with a remote."""
    folder = tmp_path_factory.mktemp("live") / "project"
    made = LiveProject(folder, tiny_model_folder, python)
    made.dvc("remote", "add", "--local", "--default", "store", str(folder.parent / "store"))
    return made


@pytest.fixture(scope="module")
def versions(live: LiveProject) -> dict[str, State]:
    """Commit -> what lay there after it: three weeks, of which the schedule slept over the second."""
    (live.folder / "notes.txt").write_text("somebody's own", encoding="utf-8")
    live.git("add", "notes.txt")
    made: dict[str, State] = {}
    live.drop(0)
    said = [live.update(after(1))]
    made[live.git("rev-parse", "HEAD").strip()] = version_bytes(live.folder)
    live.drop(1)
    live.drop(2)
    said.append(live.update(after(3)))
    made[live.git("rev-parse", "HEAD").strip()] = version_bytes(live.folder)
    assert "closed: period 0" in said[0] and "closed: periods 1 to 2" in said[1]
    assert all("pushed to store" in one for one in said)
    return made


@pytest.mark.slow
def test_updates_are_versions(live: LiveProject, versions: dict[str, State]) -> None:
    subjects = live.git("log", "--format=%s", "-2").splitlines()
    assert subjects == [
        "Update 2: 2 files with 15 new rows, periods 1 to 2 closed",  # 3 + 4 and 2 + 3 + 3
        "Update 1: 1 file with 9 new rows, period 0 closed",  # 4 + 5
    ]
    names = live.git("show", "--format=%an", "--name-only", "HEAD").split("\n")
    assert names[0] == "SPRInG update"
    assert set(filter(None, names[1:])) == {
        "data/ingest.json", "dvc.lock", "live/aliases.json.dvc", "live/ledger.jsonl", "live/parts.dvc",
        "params.yaml",
    }  # fmt: skip
    assert live.git("status", "--porcelain").splitlines() == ["A  notes.txt"]
    tree = yaml.safe_load((live.folder / "params.yaml").read_text(encoding="utf-8"))
    assert tree["periods"] == {"0": "base", "1": 0, "2": 1}
    assert tree["ingest"]["inbox"]["until"] == "2024-01-22T00:00:00+00:00"
    # no user, no text is in what Git holds
    texts = live.git("show", "HEAD:live/ledger.jsonl", "HEAD:params.yaml", "HEAD:dvc.lock")
    assert not re.search(r"\b(ann|bob|cem|dee)\b", texts)
    page = (live.folder / "live/pages/00002.html").read_text(encoding="utf-8")
    for word in (
        "week-1.jsonl",
        "Period 1",
        "Period 2",
        "<td>cem</td>",
        "adapt@2",
        "period 1 (2024-01-08 to 2024-01-14), period 2 (2024-01-15 to 2024-01-21) closed",
    ):
        assert word in page
    assert "://" not in page and "<script" not in page


@pytest.mark.slow
def test_nothing_to_do_is_no_version(live: LiveProject, versions: dict[str, State]) -> None:
    """Again, an hour back, and with what is refused: no commit, no page, no stage."""
    head, pages = live.git("rev-parse", "HEAD"), set((live.folder / "live/pages").iterdir())
    strange = live.folder / "inbox/strange.csv"
    assert live.update(after(3)) == live.update(after(3) - HOUR) == "Nothing is new and no period is due."
    assert live.update(after(2) - 2 * HOUR) == "Nothing is new and no period is due."  # a week back
    rest(strange, "name,words\nann,good\n")
    said = live.update(after(3)).splitlines()
    strange.unlink()
    assert said[0].startswith("refused: strange.csv: inbox/strange.csv does not have these columns")
    assert said[1:] == ["Nothing is new and no period is due."]
    assert live.git("rev-parse", "HEAD") == head and version_bytes(live.folder) == versions[head.strip()]
    assert set((live.folder / "live/pages").iterdir()) == pages


@pytest.mark.slow
def test_any_version_can_be_had_again(live: LiveProject, versions: dict[str, State], tmp_path: Path) -> None:
    """In place, and in a clone that has nothing but Git and the remote."""
    first, last = versions
    for commit in (first, last):
        live.git("checkout", "--quiet", commit)
        live.dvc("checkout", "--quiet", "--force", "--allow-missing")
        assert version_bytes(live.folder) == versions[commit]
        refused = live.run(after(3))
        assert refused.returncode == 1 and "git switch live" in refused.stderr
    live.git("switch", "--quiet", "live")
    call(["git", "clone", "--quiet", str(live.folder), str(tmp_path / "clone")], tmp_path)
    shutil.copyfile(live.folder / ".dvc/config.local", tmp_path / "clone/.dvc/config.local")
    for commit in (first, last):
        call(["git", "checkout", "--quiet", commit], tmp_path / "clone")
        call([live.python, "-m", "dvc", "pull", "--quiet", "--force", "--allow-missing"], tmp_path / "clone")
        assert version_bytes(tmp_path / "clone") == versions[commit]


@pytest.mark.slow
def test_one_update_at_a_time(live: LiveProject, versions: dict[str, State]) -> None:
    with (live.folder / "live/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = live.run(after(3))
    assert done.returncode == 1 and done.stderr == "Another update is at work; nothing was done.\n"
    assert live.update(after(3)) == "Nothing is new and no period is due."


@pytest.mark.slow
def test_locks_that_a_killed_update_left(live: LiveProject, versions: dict[str, State]) -> None:
    """Those of the branch are old; that of the index is known by the file that it is a second name of."""
    git, own = live.folder / ".git", live.folder / "live/.index"
    shutil.copyfile(git / "index", own)
    os.link(own, git / "index.lock")
    for name in ("HEAD.lock", "refs/heads/live.lock"):
        rest(git / name, "")
    assert live.update(after(3)) == "Nothing is new and no period is due."
    assert not list(git.rglob("*.lock")) and not own.exists()
    assert live.git("status", "--porcelain").splitlines() == ["A  notes.txt"]
    (git / "index.lock").touch()  # somebody's own: it stays
    assert live.update(after(3)) == "Nothing is new and no period is due."
    (git / "index.lock").unlink()


@pytest.mark.slow
def test_files_that_a_killed_dvc_left(live: LiveProject, versions: dict[str, State]) -> None:
    """Cut while they were written: those of the last version again, and nothing else is done."""
    head, names = live.git("rev-parse", "HEAD"), ("dvc.lock", "live/parts.dvc", "live/aliases.json.dvc")
    for name in names:
        text = (live.folder / name).read_text(encoding="utf-8")
        rest(live.folder / name, text[: len(text) // 2])
    said = live.update(after(3)).splitlines()
    assert [line.split(" was half-written")[0] for line in said[:-1]] == [*names]
    assert said[-1] == "Nothing is new and no period is due."
    assert live.git("rev-parse", "HEAD") == head and version_bytes(live.folder) == versions[head.strip()]


@pytest.mark.slow
def test_what_is_not_committed_stops_it(live: LiveProject, versions: dict[str, State]) -> None:
    for name, was, becomes, said in (
        ("suites/main.yaml", "question:", "# more\nquestion:", "not committed: suites/main.yaml"),
        ("params.yaml", "seed: 0", "seed: 1", "params.yaml has another seed than the last commit"),
        ("params.yaml", "every: 1w", "every: 1d", "params.yaml has another split.every than the last commit"),
        (
            "params.yaml",
            "until: '2024-01-22",
            "until: '2024-01-23",
            "no period of 1w from 2024-01-01 on (UTC)",
        ),
        ("params.yaml", "source: inbox", "source: git", "ingest.source is 'git'; a live project takes"),
    ):
        file = live.folder / name
        before = file.read_text(encoding="utf-8")
        assert before.count(was) == 1
        file.write_text(before.replace(was, becomes), encoding="utf-8")
        done = live.run(after(3))
        file.write_text(before, encoding="utf-8")
        assert done.returncode == 1 and done.stdout.count("\n") == 1 and said in done.stderr, done.stderr
    assert live.update(after(3)) == "Nothing is new and no period is due."


@pytest.mark.slow
def test_news_of_an_open_period_are_a_version_without_a_stage(
    tmp_path: Path, tiny_model_folder: Path, python: Path
) -> None:
    made = LiveProject(tmp_path / "project", tiny_model_folder, python)
    assert "no text was taken yet" in made.update(after(1))
    assert made.git("log", "-1", "--format=%s").startswith("Live: ")
    write_batch(made.folder / "inbox/later.jsonl", 1, BATCHES[0])  # of the second week
    said = made.run(after(2))
    assert said.returncode == 1 and "set split.start to that day" in said.stderr
    made.drop(0)
    said_well = made.update(START + timedelta(days=6))
    assert "Update 1: 2 files with 18 new rows" in said_well and "ingest" not in said_well
    assert len(told(made.folder)) == 2 and not (made.folder / "data/split").exists()
    ledger = (made.folder / "live/ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["file"] for line in ledger] == ["later.jsonl", "week-0.jsonl"]


def test_a_project_that_is_not_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(Path(__file__).parents[2] / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LiveError, match="this project is not live: nothing is updated or committed here"):
        live_params()


@pytest.mark.long
def test_killed_at_random_moments(tmp_path: Path, python: Path) -> None:
    """A short version of `python -m bench.faults --kinds update`."""
    found = strike(tmp_path / "update", tries=1, seed=1, python=str(python))
    assert found["wrong"] == 0 and found["most_attempts"] == 1 and found["tries"] == 1
