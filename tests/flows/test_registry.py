"""Versions of a live project: published by updates, taken back by the command `spring`, each a commit."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.live import LiveProject, after
from kit.pipeline import ROOT
from kit.warm import Warm

from bench.live import environment
from spring.live.aliases import Aliases, Lesson, Served
from tasks.serving.registry import read_aliases, write_aliases

pytestmark = pytest.mark.slow
FIRST = [  # ann learns in 0 and 1, bob in 0 and 2, cem in 1 and 2, dee in 2
    "live ann@1, previous ann@0, newest ann@1",
    "live bob@2, previous bob@0, newest bob@2",
    "live cem@2, previous cem@1, newest cem@2",
    "live dee@2, previous none, newest dee@2",
]


@pytest.fixture(scope="module")
def begun(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, warm_python: Warm
) -> LiveProject:
    """Three weeks, an update each; nobody changes it."""
    folder = tmp_path_factory.mktemp("registry") / "project"
    made = LiveProject(folder, tiny_model_folder, warm_python.folder / "python")
    for week in range(3):
        made.drop(week)
        assert "published: " in made.update(after(week + 1))
    return made


@pytest.fixture
def live(begun: LiveProject, tmp_path: Path) -> LiveProject:
    """A copy for one test, with a remote."""
    made = LiveProject.__new__(LiveProject)
    made.folder, made.python = tmp_path / "project", begun.python
    shutil.copytree(begun.folder, made.folder, symlinks=True)
    made.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    return made


def spring(project: LiveProject, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, however it ends."""
    command = [project.python, "-m", "flows.console", *words]
    return subprocess.run(command, cwd=project.folder, env=environment(), capture_output=True, text=True)


def said(project: LiveProject, *words: str) -> list[str]:
    """The lines of a command that ends well."""
    done = spring(project, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_updates_publish_and_commands_take_back(live: LiveProject) -> None:
    assert said(live, "list") == FIRST
    lines = said(live, "status")
    assert lines[0] == "closed: periods 0 to 2" and "Update 3: " in lines[1]
    assert lines[2:] == [
        "arm: spring, users: 4, versions: 7",
        "users live at period 1: 1",
        "users live at period 2: 3",
        "users not at their newest version: 0",
    ]
    shown = said(live, "show", "cem")
    assert [line.split("  ")[::2] for line in shown] == [["cem@1", "previous"], ["cem@2", "live"]]
    was, head = (live.folder / "live/aliases.json").read_bytes(), live.git("rev-parse", "HEAD").strip()

    lines = said(live, "rollback", "bob", "cem")
    assert lines[0] == "rolled back: bob@0, cem@1"
    assert lines[1].endswith("Served: 2 users rolled back") and lines[2].startswith("pushed to store")
    assert said(live, "list")[1:3] == [
        "live bob@0, previous none, newest bob@2",
        "live cem@1, previous none, newest cem@2",
    ]
    commit = live.git("show", "--format=%an: %B", "--name-only", "HEAD")  # no names of users
    assert list(filter(None, commit.splitlines())) == [
        "SPRInG update: Served: 2 users rolled back",
        "Served: aliases",
        "live/aliases.json.dvc",
    ]
    assert live.git("status", "--porcelain") == ""
    assert live.update(after(3)) == "Nothing is new and no period is due."  # what was taken back stays so

    assert said(live, "rollback", "--all", "--to", "0")[-1] == "2 came later and stay as they are: cem, dee"
    assert said(live, "publish", "ann@2", "bob@2", "cem@2")[0] == "published: ann@1, bob@2, cem@2"
    assert said(live, "list") == FIRST and said(live, "publish", "ann@1")[0].startswith("Nothing to change")
    assert (live.folder / "live/aliases.json").read_bytes() == was
    live.git("checkout", "--quiet", f"{head}~1")  # after the second week
    live.dvc("checkout", "--quiet", "--force", "--allow-missing")
    then = read_aliases(live.folder / "live").users
    periods = {user: one.live and one.live.period for user, one in then.items()}
    assert periods == {"ann": 1, "bob": 0, "cem": 1}
    assert spring(live, "rollback", "ann").stderr.startswith("error: updates belong to the branch live")


def test_what_cannot_be_is_one_line_and_changes_nothing(live: LiveProject) -> None:
    head, was = live.git("rev-parse", "HEAD"), (live.folder / "live/aliases.json").read_bytes()
    for words, expected in (
        ("rollback anna", "nobody is called anna; did you mean ann?"),
        ("rollback ann dee", "dee: nothing was served before dee@2; nothing is rolled back"),
        ("rollback ann --to 5", "period 5 is not closed; closed so far: periods 0 to 2"),
        ("rollback --all", "say USER ..., or --all --to PERIOD"),
        ("publish ann", "ann names no version; they are called USER@PERIOD, as in ann@3"),
        ("publish cem@0", "there is no cem@0; the first version of cem is cem@1"),
        ("publish ann@1 ann@0", "only one version of a user can be live: name each user once"),
        ("show bert", "nobody is called bert"),
        ("export out --user bert", "nobody is called bert"),
        (
            "export out --arm other --period 1",
            "no arm other of this experiment learns; those that do: spring",
        ),
        ("ask bert hello", "nobody is called bert"),
        ("ask ann TITLE=x SUBJECT=y", "'TITLE=x' is no field of the prompt commit; they are SUBJECT=\"...\""),
    ):
        done = spring(live, *words.split())
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {expected}\n"), done
    with (live.folder / "live/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = spring(live, "rollback", "ann")
    assert done.stderr == "Another update is at work; nothing was done.\n"
    assert live.git("rev-parse", "HEAD") == head and not (live.folder / "out").exists()
    assert (live.folder / "live/aliases.json").read_bytes() == was


def test_live_versions_answer_and_are_exported(live: LiveProject) -> None:
    """After a way back the adapter and the memories are those of then."""
    said(live, "rollback", "bob")
    lines = said(live, "export", "out", "--layout", "vllm")
    assert lines[0] == "4 adapters are in out"
    names = json.loads((live.folder / "out/users.json").read_text())
    versions = sorted(f"{user}{name[-2:]}" for name, user in names.items())
    assert versions == ["ann@1", "bob@0", "cem@2", "dee@2"]
    answer, now, *_ = said(live, "ask", "bob", "a zebra crossing", "--show")
    assert now.startswith("-- bob@0, lambda ")
    assert said(live, "ask", "bob", "SUBJECT=a zebra crossing") == [answer]
    kept = [path for path in live.folder.rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if b"zebra" in path.read_bytes()]


def test_a_change_that_was_stopped_is_finished(live: LiveProject) -> None:
    """The file is replaced, no commit names it: the next change commits it, and no step is done twice."""
    kept = live.folder / "live"
    write_aliases(read_aliases(kept).roll_back(["bob"]), kept)
    assert said(live, "status")[-1].startswith("what is served is not committed yet")
    done = spring(live, "rollback", "bob")
    assert "a change was stopped after it was done, and is committed now" in done.stderr
    assert live.git("status", "--porcelain") == "" and said(live, "list")[1].startswith("live bob@0")
    known = read_aliases(kept)
    coming = Lesson(3, "of an update that was stopped")
    write_aliases(Aliases({**known.users, "ann": Served((coming,), coming)}), kept)
    done = spring(live, "rollback", "cem")
    assert "an update was stopped before its version was made: spring update ends it" in done.stderr
    write_aliases(known.roll_back(["cem"]), kept)
    assert "Update 4: adapters published" in live.update(after(3))
    assert said(live, "list")[2].startswith("live cem@1")


@pytest.mark.long
def test_killed_at_random_moments_it_is_the_old_state_or_the_new(live: LiveProject) -> None:
    chance, folder = random.Random(5), live.folder
    kept, before = folder / "live", read_aliases(folder / "live")
    new = before.roll_back_all(1)
    command = [sys.executable, "-m", "flows.console", "rollback", "--all", "--to", "1"]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    whole, seen = time.perf_counter() - began, set[bool]()
    for _ in range(3):
        said(live, "publish", "bob@2", "cem@2")
        assert read_aliases(kept) == before
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(chance.uniform(0.3, 1) * whole)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found: Aliases = read_aliases(kept)
        assert found in (before, new)
        seen.add(found == new)
        said(live, "rollback", "--all", "--to", "1")
        assert read_aliases(kept) == new and live.git("status", "--porcelain") == ""
        assert "what is served is not committed yet" not in "".join(said(live, "status"))
    assert seen


def test_the_command_starts_light() -> None:
    """Neither torch nor what trains: nothing of them is imported to say what is live."""
    program = "import sys; from flows.live import registry; import flows.console; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"flows", "polars"} <= names
    assert not names & {"torch", "transformers", "peft", "prefect", "wandb", "sklearn", "numba", "matplotlib"}
