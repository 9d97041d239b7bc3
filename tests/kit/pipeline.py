"""The whole experiment on a tiny model, in this process: what tests run, change and compare."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import load, save_file
from safetensors.torch import load_file

from spring.store.cells import CellStore
from tasks import adapt, consolidate, evaluate, generate, ingest, model, report, score_base, split, transfer
from tasks.cells.pairs import VECTORS
from tasks.cells.training import CURVE
from tasks.params import load_params
from tasks.reporting import page, summary
from tasks.steps.index import read_held, user_folder
from tasks.steps.steering import SITES

ROOT = Path(__file__).parents[2]
WORDS = ["the", "a", "good", "bad", "fine", "old", "new", "red", "blue", "cup", "lamp", "chair", "works"]
WORDS += ["broke", "shines", "cheap", "dear", "again", "never"]

STAGES = """
import sys
from importlib import import_module

def run(stage, *arguments):
    sys.argv = [stage, *arguments]
    import_module(f"tasks.{stage}").main()

for stage in ("ingest", "split", "model", "score_base"):
    run(stage)
for period in "012":
    for stage in ("adapt", "consolidate", "generate"):
        run(stage, "--period", period)
for stage in ("transfer", "evaluate"):
    run(stage)
"""  # a program that runs three periods in the current folder, up to the numbers


def write_table(path: Path, *, users: int, items: int, edited: str | None = None) -> None:
    """Users who write short texts; `edited` names a user whose every response gets a word more."""
    rows = []
    for u in range(users):
        for n in range(items):
            words = [WORDS[(u * 7 + n * 3 + k * (u + 2)) % len(WORDS)] for k in range(4 + (n + u) % 5)]
            if edited == f"user {u}":
                words.append("again")
            rows.append(
                {
                    "who": f"user {u}",
                    "when": (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=n)).isoformat(),
                    "subject": f"{WORDS[n % len(WORDS)]} {WORDS[u % len(WORDS)]} {n}",
                    "body": " ".join(words),
                }
            )
    pl.DataFrame(rows).write_csv(path)


def stagger(table: Path) -> None:
    """Each user starts four days after the one before: their periods of six days overlap."""
    rows = pl.read_csv(table, try_parse_dates=True)
    later = pl.col("who").str.strip_prefix("user ").cast(pl.Int64) * 4
    rows.with_columns((pl.col("when") + pl.duration(days=later)).dt.to_string("iso:strict")).write_csv(table)


def write_params(folder: Path, model_folder: Path, *, periods: int = 3, **changes: object) -> None:
    """params.yaml of the project with a table, a tiny model and small adapters."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["periods"] = {str(t): t - 1 if t else "base" for t in range(periods)}
    tree["transfer"] = "likelihood"
    tree["ingest"] |= {"source": "table", "min_interactions": 4, "min_chars": 1}
    tree["ingest"]["table"] |= {
        "path": "table.csv",
        "task": "commit",
        "user_id": "who",
        "interaction_id": None,
        "response": "body",
        "timestamp": "when",
        "year": None,
        "month": None,
        "query": {"SUBJECT": "subject"},
    }
    tree["model"] |= {"id": str(model_folder), "dtype": "float32", "device": "cpu"}
    tree["arm"]["train"]["lora"] |= {"r": 2}
    tree["arm"]["decode"]["max_new_tokens"] = 6
    tree["arms"]["spring"] = {"retrieve": {"sigma": "q2"}}
    tree["evaluate"]["resamples"] = 50
    tree["tracking"]["mode"] = "disabled"
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = tree
        for key in parents:
            at = at[key]
        at[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))


def run(stage: object, monkeypatch: pytest.MonkeyPatch, period: int | None = None) -> None:
    """A stage's main() in this process."""
    monkeypatch.setattr(sys, "argv", ["stage", *(["--period", str(period)] if period is not None else [])])
    stage.main()  # type: ignore[attr-defined]


def learn_all(monkeypatch: pytest.MonkeyPatch, *, periods: int = 3) -> None:
    """All stages that learn or answer."""
    for stage in (ingest, split, model, score_base):
        run(stage, monkeypatch)
    for t in range(periods):
        for stage in (adapt, consolidate, generate):
            run(stage, monkeypatch, t)


def run_all(monkeypatch: pytest.MonkeyPatch, *, periods: int = 3) -> None:
    """All stages; the report without drawings as files and the library, which take longest."""
    learn_all(monkeypatch, periods=periods)
    for stage in (transfer, evaluate):
        run(stage, monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "sheet", lambda *_, **__: "<svg></svg>")
        patch.setattr(page, "library", lambda: "")
        run(report, monkeypatch)


@contextmanager
def experiment(
    folder: Path,
    model_folder: Path,
    *,
    prepare: Callable[[Path], object] = lambda _: None,
    **changes: object,
) -> Iterator[pytest.MonkeyPatch]:
    """Three users through three periods (`changes`: of params.yaml), in `folder`, the current one inside.

    `prepare` may change the table of interactions before it is read.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SPRING_CELLS", raising=False)
        write_table(folder / "table.csv", users=3, items=18)
        prepare(folder / "table.csv")
        write_params(folder, model_folder, **changes)
        run_all(patch)
        yield patch


def learn_anew(
    folder: Path,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    edited: str,
    prepare: Callable[[Path], object] = lambda _: None,
) -> None:
    """The experiment of `project` in an empty `folder`, but for one user's texts; without a cell of before.

    With its cells, users whose keys are as they were would be looked up: a leak behind a key would not show.
    """
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_table(folder / "table.csv", users=3, items=18, edited=edited)
    prepare(folder / "table.csv")
    shutil.copyfile(project / "params.yaml", folder / "params.yaml")
    learn_all(monkeypatch)


def changed_state(before: Path, after: Path, *, periods: int = 3) -> set[str]:
    """Files of learned state that differ between two projects, by names under data/.

    Adapters, what lies beside them, and steering vectors; numbers are alike up to the order of float32 sums.
    """
    changed = set()
    for t in range(periods):
        old, new = (state_files(folder, t) for folder in (before, after))
        assert old.keys() == new.keys()
        changed |= {name for name in old if not _alike(old[name], new[name])}
    return changed


def state_files(project: Path, period: int) -> dict[str, Path]:
    """What was learned in a period, by names as `lay_out` gives them."""
    root = lay_out(project, period)
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def lay_out(project: Path, period: int) -> Path:
    """A folder with what was learned in a period, file by file.

    adapt/PERIOD/adapters/RECIPE/USER/ and consolidate/PERIOD/steers/STEER/USER.safetensors.
    """
    root = project / "laid-out"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    data = project / f"data/adapt/{period}"
    for row in pl.read_parquet(data / "index.parquet").iter_rows(named=True):
        if row["user_id"] is None or not row["file"].startswith("../"):  # users' are not handed on
            place = root / f"adapt/{period}/adapters" / row["recipe"] / user_folder(row["user_id"])
            place.mkdir(parents=True)
            for name, content in read_held(data / row["file"], row["cell"]).items():
                if name != CURVE:
                    (place / name).write_bytes(content)
    data = project / f"data/consolidate/{period}"
    if (data / "steers.parquet").exists():
        steers = pl.read_parquet(data / "steers.parquet")
        for (steer, user), rows in steers.group_by("steer", "user_id", maintain_order=True):
            held = [
                load(read_held(data / file, key)[VECTORS])
                for file, key in rows.select("file", "cell").iter_rows()
            ]
            place = (
                root / f"consolidate/{period}/steers" / str(steer) / f"{user_folder(str(user))}.safetensors"
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            save_file({site: np.stack([one[site] for one in held]) for site in SITES}, place)
    return root


def _alike(one: Path, other: Path) -> bool:
    """Tensors: up to a thousandth of the largest number, where other texts move it by tenths."""
    if one.suffix != ".safetensors":
        return one.read_bytes() == other.read_bytes()
    old, new = load_file(one), load_file(other)
    assert old.keys() == new.keys()
    return all(bool((old[n] - new[n]).abs().max() <= 1e-3 * old[n].abs().max()) for n in old)


def index(project: Path, period: int, arm: str) -> pl.DataFrame:
    """The adapters of an arm after a period; no rows for an arm without any."""
    recipe = load_params(project / "params.yaml").arms[arm].recipe or "no adapter"
    return pl.read_parquet(project / f"data/adapt/{period}/index.parquet").filter(pl.col("recipe") == recipe)


def cells(folder: Path, holding: str = "*") -> set[str]:
    """Keys of the cells, or of those that hold a file of this name."""
    store = CellStore(folder / ".cells")
    return {key for key in store if holding == "*" or holding in store.read(key)}


def adapter_bytes(folder: Path, period: int) -> dict[str, bytes]:
    root = lay_out(folder, period) / "adapt" / str(period)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.safetensors"))}
