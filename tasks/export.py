"""Writes adapters as folders that PEFT, vLLM and others load.

    python -m tasks.export FOLDER [--arm spring] [--period 4] [--user ID ...] [--layout vllm]

A folder per user, `USER@PERIOD`: its id made readable and safe as a name, with a fingerprint behind it.
`users.json` beside them says whose is which. Without --arm the first one that learns; without --period the
last. `spring export` writes those that are live (docs/live.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from spring.live.aliases import Version
from spring.settings.params import Params
from tasks.cells.training import CARRIED, CURVE, USES
from tasks.files import DATA, write_json, write_text
from tasks.params import load_params
from tasks.steps.index import INDEX, read_held, read_index, user_folder

BESIDE = {CURVE, USES, CARRIED}  # what only this project reads
CONFIG = "adapter_config.json"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as --max-lora-rank


class ExportError(Exception):
    """What was asked for is not there, or cannot be loaded elsewhere; the message says what is."""


def main() -> None:
    """Writes the folders, and says how many."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arm")
    parser.add_argument("--period", type=int)
    parser.add_argument("--user", nargs="+", metavar="ID", help="all, without it")
    parser.add_argument("--layout", choices=("peft", "vllm"), default="peft")
    asked = parser.parse_args()
    try:
        params = load_params()
        period = max(params.periods) if asked.period is None else asked.period
        rows = find(params, asked.arm, period, asked.user)
        lines = export(rows, asked.folder, asked.layout)
    except (ExportError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(*lines, sep="\n")


def find(params: Params, arm: str | None, period: int, users: Iterable[str] | None) -> pl.DataFrame:
    """The rows of the index (`INDEX`) that are meant; raises `ExportError`."""
    learning = [name for name, one in params.arms.items() if one.recipe is not None]
    name = arm or next(iter(learning), None)
    if name not in learning:
        raise ExportError(f"no arm {name} of this experiment learns; those that do: {', '.join(learning)}")
    if period not in params.periods:
        raise ExportError(f"there is no period {period}; there are {', '.join(map(str, params.periods))}")
    rows = read_index(period).filter(pl.col("recipe") == params.arms[name].recipe)
    if users is None:
        return rows
    unknown = sorted(set(users) - set(rows["user_id"].drop_nulls()))
    if unknown:
        raise ExportError(f"{', '.join(unknown)} has no adapter of {name} after period {period}")
    return rows.filter(pl.col("user_id").is_in(list(users)))


def find_live(recipe: str | None, versions: Sequence[Version]) -> pl.DataFrame:
    """The rows of the index of these versions, which are there."""
    parts = [pl.DataFrame(schema=INDEX)]
    for period in sorted({version.period for version in versions}):
        users = [version.user for version in versions if version.period == period]
        rows = read_index(period).filter(pl.col("recipe") == recipe, pl.col("user_id").is_in(users))
        assert rows.height == len(users), (period, users)
        parts.append(rows)
    return pl.concat(parts)


def export(rows: pl.DataFrame, to: Path, layout: str, base: str | None = None) -> list[str]:
    """Writes the adapters of `rows` below `to`; what to say of it. `base`: another name of the base model."""
    assert rows.schema == INDEX, rows.schema
    name, revision = (base, None) if base else true_base()
    names, rank = read_names(to), 0
    for user, period, file, cell in rows.select("user_id", "period", "file", "cell").iter_rows():
        files = read_held(DATA / f"adapt/{period}" / file, cell)
        config = json.loads(files[CONFIG])
        if layout == "vllm" and (why := unfit(config)):
            raise ExportError(f"vLLM cannot load the adapter of {user}: {why}")
        rank = max(rank, config.get("r", 0))
        described = config | {"base_model_name_or_path": name, "revision": revision}
        folder = f"{user_folder(user)}@{period}"
        names[folder] = user
        (to / folder).mkdir(parents=True, exist_ok=True)
        for part, content in files.items():
            if part not in BESIDE | {CONFIG}:
                (to / folder / part).write_bytes(content)
        write_text(as_text(described), to / folder / CONFIG)  # last: by it others know that a folder is one
    write_json(names, to / "users.json")
    said = [f"{rows.height} adapters are in {to}"]
    if layout == "vllm" and rank:
        said += serving(name, to, rank)
    return said


def serving(base: str, to: Path, rank: int) -> list[str]:
    """How vLLM's resolver finds them: a request names a folder as its model."""
    most = next(one for one in RANKS if one >= rank)
    return [
        f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=true VLLM_PLUGINS=lora_filesystem_resolver "
        f"VLLM_LORA_RESOLVER_CACHE_DIR={to.resolve()} vllm serve {base} --enable-lora --max-lora-rank {most}"
    ]


def unfit(config: dict[str, Any]) -> str:
    """Why vLLM would not take an adapter, as far as its public code says; empty where it does.

    vllm/plugins/lora_resolvers/filesystem_resolver.py, vllm/lora/peft_helper.py.
    """
    if config.get("peft_type") != "LORA":
        return "its format is this project's own, and no LoRA of PEFT's"
    if config.get("target_parameters"):
        return "some of it lies on single weights (target_parameters)"
    if config["r"] > max(RANKS):
        return f"its rank is {config['r']}, and at most {max(RANKS)} is served"
    return ""


def as_text(described: dict[str, Any]) -> str:
    """The content of an `adapter_config.json`."""
    return json.dumps(described, indent=2) + "\n"


def read_names(to: Path) -> dict[str, str | None]:
    """Whose the folders are that were written before: versions do not change, and they stay."""
    file = to / "users.json"
    found: dict[str, str | None] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def true_base() -> tuple[str, str | None]:
    """What others load the base model by, here and now: a hub id and its revision, or an absolute path."""
    from spring.engine.model import read_place

    folder = DATA / "model"
    source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    place = read_place(folder)
    on_hub = f"models--{source['id'].replace('/', '--')}" in place.parts  # in the hub's own cache
    return (source["id"], source["revision"]) if on_hub else (str(place.resolve()), None)


if __name__ == "__main__":
    main()
