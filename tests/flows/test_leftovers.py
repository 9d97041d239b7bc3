"""What a search of the folder finds of a person, and what of DVC's objects goes: real files, Git and DVC."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from kit.pipeline import ROOT

from flows.live.forgetting.leftovers import clean
from flows.live.forgetting.objects import Objects, stale_stages
from flows.live.forgetting.person import theirs
from flows.live.forgetting.search import Search, cells_of
from flows.live.versions import Versions
from spring.live.traces import Traces
from spring.store.cells import CellStore
from spring.store.keys import cell_key

TEXT = "what nobody but bob has ever written about his red lamp"
THEIRS = Traces.of("bob", [], ["bob-0-1"], [TEXT], ["bobby", "ann", "ann likes it"])
KEYS = [cell_key("spring.code", number=i) for i in range(4)]
VERSIONS = Versions("main", Path("live"))
LATER = """
  later:
    cmd: python -m tasks.later
    outs: [data/later/first: {cache: false}, data/later/second]
"""


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def commit(*names: str) -> None:
    call("git", "add", "--force", *names)
    call("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "x")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    call("git", "init", "--quiet", "--initial-branch", "main")
    put("code.py", "# bob and ann are names of examples")
    put("dvc.yaml", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    commit("code.py")


def put(name: str, content: str | bytes | pl.DataFrame) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pl.DataFrame):
        content.write_parquet(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_what_is_ours_goes_and_the_rest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    users = pl.DataFrame({"user_id": ["ann", "bob"], "text": ["x", TEXT]})
    for name in (
        "live/pages/00001.html",
        ".prefect/reports/live/00001.html",
        ".dvc/tmp/log",
        "wandb/offline-run-1/a",
    ):
        put(name, f"<td>bob</td> {TEXT}")
    put("wandb/offline-run-1/b", "of the same run")
    put("data/seeds/main/0/users.parquet", users)
    put("data/seeds/main/1/users.parquet", users.head(1))
    put("data/generate/9/generations.parquet", users)
    put("data/ingest-quarantine.parquet", users)
    put("live/verdicts/00001.parquet", users)
    put("data/table.parquet", users)  # somebody's own, as what follows
    put("out/users.json", json.dumps({"bob-1": "bob"}))
    put("notes.txt.gz", gzip.compress(b"as bob said"))
    put("about-bob.txt", "")
    put(".prefect/prefect.db", b"SQLite\0 bob ")
    put("wandb/run-2/files", "what was sent")
    for name in ("live/pages/00002.html", "data/report/report.html", "mine.txt"):
        put(name, "<td>bobby</td> annual kebobs")
    put("live/ledger.jsonl", '{"file": "bob.csv"}\n')
    commit("live/ledger.jsonl")
    put("live/ledger.jsonl", '{"file": "a.csv"}\n')
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")

    left = clean(Search(THEIRS, frozenset()), VERSIONS)
    assert sorted(left.removed) == [
        ".dvc/tmp/log",
        ".prefect/reports/live/00001.html",
        "data/generate/9/generations.parquet",
        "data/ingest-quarantine.parquet",
        "data/seeds/main",
        "live/pages/00001.html",
        "wandb/offline-run-1",
    ]
    assert sorted(left.files) == [
        ".prefect/prefect.db (prefect server database reset empties it)",
        "about-bob.txt",
        "data/table.parquet",
        "notes.txt.gz",
        "out/users.json",
    ]
    git, wandb, prefect = left.beyond
    assert git.startswith("Git: blob ") and wandb.startswith("W&B: 1 runs were sent")
    expected = (
        "Prefect: logs and artifacts of the server http://127.0.0.1:1/api may name users (ConnectError: "
    )
    assert prefect.startswith(expected)
    assert pl.read_parquet("live/verdicts/00001.parquet")["user_id"].to_list() == ["ann"]
    assert Path("live/pages/00002.html").exists() and not Path("wandb/offline-run-1").exists()


def test_what_git_has_stays_and_is_named() -> None:
    put("data/metrics.json", json.dumps({"text": TEXT}))
    commit("data/metrics.json")
    left = clean(Search(THEIRS, frozenset()), VERSIONS)
    assert (left.removed, left.files) == ([], ["data/metrics.json"]) and Path("data/metrics.json").exists()


def test_tables_are_opened() -> None:
    """What is packed in one shows in no byte of the file."""
    users = [f"{'a' if n % 2 else 'user'}-{n * n}" for n in range(2000)]
    file = put("table.parquet", pl.DataFrame({"user_id": [*users[:1000], "bob", *users[1000:]]}))
    assert b"bob" not in file.read_bytes() and Search(THEIRS, frozenset()).holds(file)


def test_whose_a_row_is() -> None:
    """By the user as any spelling names them; of one that nobody could read by what it holds."""
    is_theirs = theirs(THEIRS)
    row = {"user_id": "bob", "reason": None, "value": None}
    assert is_theirs(row) and is_theirs(row | {"user_id": " bob\u200b"})
    assert not is_theirs(row | {"user_id": "bobby"}) and not is_theirs(row | {"user_id": None})
    broken = {"user_id": None, "reason": "malformed record"}
    assert is_theirs(broken | {"value": f"ann,{TEXT}"}) and is_theirs(broken | {"value": "bob,x"})
    assert not is_theirs(broken | {"value": "bobby,x"}) and not is_theirs(broken | {"value": None})
    assert not is_theirs(broken | {"user_id": "ann", "value": TEXT})  # ann's, whatever it says


def test_what_any_stage_makes_is_ours() -> None:
    """Of one that comes later, too; the base model's files are nobody's, and its vocabulary has names."""
    put("dvc.yaml", Path("dvc.yaml").read_text(encoding="utf-8").replace("\nplots:", f"{LATER}plots:"))
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].keys() - {"model"}
    assert len(stages) > 9 and "later" in stages
    for name in (*stages, "model"):
        put(f"data/{name}/0/a.txt", TEXT)
    left = clean(Search(THEIRS, frozenset()), VERSIONS)
    assert set(left.removed) == {f"data/{name}/0/a.txt" for name in stages}
    assert left.files == [] and Path("data/model/0/a.txt").exists()


def test_objects_of_git_that_no_branch_leads_to() -> None:
    told = subprocess.run(["git", "hash-object", "-w", "--stdin"], input=TEXT.encode(), capture_output=True)
    left = clean(Search(THEIRS, frozenset()), VERSIONS)
    assert left.beyond == [f"Git: blob {told.stdout.decode()[:10]}, commit none: git gc --prune=now"]


def segment(*keys: str, note: str = "") -> Path:
    store = CellStore(Path("store-of-cells"))
    with store.batch() as batch:
        for key in keys:
            batch[key] = {"weights.safetensors": key.encode(), "note.json": note.encode()}
    [name] = set(store.link(keys, Path("linked")).values())
    return Path("linked") / name


def test_segments_are_known_by_the_cells_that_tables_name() -> None:
    both, other = segment(KEYS[0], KEYS[1]), segment(KEYS[2])
    rows = {"user_id": ["bob", "ann", None], "cell": [KEYS[0], KEYS[1], KEYS[2]]}
    table = put("index.parquet", pl.DataFrame({**rows, "chosen": [["bob-0-1"], ["a"], ["a", "bob-0-1"]]}))
    cells = cells_of(THEIRS, iter([table, put("x.parquet", pl.DataFrame({"a": [1]})), put("y", b"PAR1")]))
    assert cells == {KEYS[0], KEYS[2]}  # one that all share learned from theirs
    assert Search(THEIRS, frozenset(cells)).holds(both) and Search(THEIRS, frozenset(cells)).holds(other)
    assert not Search(THEIRS, frozenset({KEYS[0]})).holds(other)
    assert Search(THEIRS, frozenset()).holds(segment(KEYS[3], note='{"who": "bob"}'))  # weights aside


@pytest.mark.slow
def test_versions_that_held_them_go_and_no_others(tmp_path: Path) -> None:
    dvc = (sys.executable, "-m", "dvc")
    Path("dvc.yaml").unlink()  # whose parameters are not here
    call(*dvc, "init", "--quiet")
    call(*dvc, "remote", "add", "--local", "--default", "store", str(tmp_path / "remote"))
    for texts in (["bob", "dee"], ["ann"], ["ann", "bob"], ["ann", "cem"]):
        put("live/parts/0", "the same in all versions")
        put("live/parts/1", ",".join(texts))
        put("live/parts/2", f"beside {texts[-1]}")
        call(*dvc, "add", "--quiet", "live/parts")
        if texts[0] == "bob":  # a version of another branch alone
            call("git", "checkout", "--quiet", "-b", "side")
        commit("live/parts.dvc")
        if texts[0] == "bob":
            call("git", "checkout", "--quiet", "main")
    call(*dvc, "push", "--quiet", "--all-commits")
    for store in (".dvc/cache", "remote"):  # objects that no version names
        put(f"{store}/files/md5/aa/{'0' * 30}", f"{TEXT}, {store}")
    objects = Objects(Search(THEIRS, frozenset()))
    stores = [Path(".dvc/cache"), Path("remote")]

    def names() -> list[set[str]]:
        return [{file.read_text() for file in store.glob("files/md5/??/*")} for store in stores]

    before = names()
    assert len(before[0] & before[1]) == 4 * 3 + 1 and len(before[0] ^ before[1]) == 2
    lists = [name for name in objects.doomed() if name.endswith(".dir")]
    stages = {"a": {"outs": [{"path": "live/parts", "md5": lists[0]}]}, "b": {"outs": [{"path": "code"}]}}
    assert stale_stages(stages, objects) == ["a"]
    assert objects.remove(objects.doomed()) == (14, "")
    for there, found in zip(before, names(), strict=True):
        gone = there - found
        assert {"ann,bob", "beside bob", "bob,dee", "beside dee"} < gone and len(gone) == 4 + 2 + 1
        assert "the same in all versions" in found
    for version, last in (("HEAD", "cem"), ("HEAD~2", "ann")):
        call("git", "checkout", "--quiet", version)
        call(*dvc, "checkout", "--quiet", "--force")
        assert Path("live/parts/2").read_text() == f"beside {last}"
        call("git", "checkout", "--quiet", "main")
    assert objects.doomed() == set()

    # whose client is not installed
    call(*dvc, "remote", "modify", "--local", "store", "url", "s3://nowhere/at/all")
    lost = Objects(Search(THEIRS, frozenset()))
    assert "s3" in lost.unreached and lost.remove([]) == (0, lost.unreached)
