"""Where a page's numbers come from: code, settings, machine, versions, seconds, and the command."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spring.settings.params import Params
from spring.store.keys import fingerprint
from tasks.files import DATA
from tasks.machine import read_machine

PACKAGES = ("torch", "transformers", "peft", "polars", "numpy", "dvc", "spring-personalization")
UNKNOWN = "not recorded"
OWN = (".", ":!dvc.lock", ":!data", ":!results")  # what a run itself writes is no change of code


@dataclass(frozen=True)
class Provenance:
    """`machine`: processor, cores, device and dtype, empty where not recorded; `rows`: name -> value."""

    machine: dict[str, Any]
    rows: dict[str, str]
    command: str


def of_run(params: Params, metrics: dict[str, Any]) -> Provenance:
    """Of the run in data/, as the stage report finds it."""
    machine = read_machine(DATA / f"generate/{max(params.periods)}")
    commit = git("rev-parse", "HEAD")
    changed = bool(git("status", "--porcelain", "--untracked-files=no", "--", *OWN))
    options = f"-S suite={params.suite} -S seed={params.seed}"
    rows = {
        "Page made": f"{now():%Y-%m-%d %H:%M} UTC",
        "Commit": (
            f"{commit}{', with changes that are not committed' if changed else ''}" if commit else UNKNOWN
        ),
        **described(params, metrics, machine),
        "Versions": ", ".join([f"Python {platform.python_version()}", *versions()]),
    }
    return Provenance(machine, rows, f"{f'git checkout {commit} && ' if commit else ''}dvc exp run {options}")


def of_kept(params: Params, metrics: dict[str, Any], folder: Path) -> Provenance:
    """Of kept runs of one or more seeds: what they hold of it, and when and where Git got them."""
    machine = read_machine(folder / str(metrics["seeds"][0]))
    kept = git(
        "log", "-1", "--format=%cs, commit %H", "--", *(f"{folder}/{seed}" for seed in metrics["seeds"])
    )
    name = params.experiment.removesuffix(f"-{params.suite}")
    named = f" NAME={name}" if Path("experiments", name).exists() else ""
    rows = {
        "Page made": f"{now():%Y-%m-%d %H:%M} UTC",
        "Runs kept": kept or UNKNOWN,
        **described(params, metrics, machine),
    }
    seeds = " ".join(map(str, metrics["seeds"]))
    return Provenance(machine, rows, f'make ablate SUITE={params.suite}{named} SEEDS="{seeds}"')


def described(params: Params, metrics: dict[str, Any], machine: dict[str, Any]) -> dict[str, str]:
    """What is said of any run alike."""
    seeds = metrics.get("seeds") or [metrics["seed"]]
    plural, numbers = "s" if len(seeds) > 1 else "", ", ".join(map(str, seeds))
    settings = params.model_dump(mode="json", exclude={"report", "tracking"})
    device = f"{machine['device']}, {machine['dtype']}" if machine else UNKNOWN
    road = f", {machine['road']} batches" if "road" in machine else ""
    return {
        "Experiment": f"{metrics['experiment']}, suite {params.suite}, seed{plural} {numbers}",
        "Settings": f"fingerprint {fingerprint(settings)}; all of them stand above",
        "Model": f"{params.model.id}{f', revision {params.model.revision}' if params.model.revision else ''}",
        "Machine": f"{machine['processor']}, {machine['cores']} cores" if machine else UNKNOWN,
        "Device and number format": device + road,
        "Computing": f"{duration(total_seconds(params, metrics))}{' a seed' if plural else ''}: training, "
        "scoring and writing of all arms, adapters that arms share counted once; reading data, transfer and "
        "metrics not counted",
    }


def total_seconds(params: Params, metrics: dict[str, Any]) -> float:
    """Seconds of all arms together: adapters that arms share are trained once, answers written arm by arm."""
    trained: dict[str, float] = {}
    for name, arm in params.arms.items():
        found = metrics["arms"][name]
        key = arm.recipe or name
        trained[key] = max(trained.get(key, 0.0), found["seconds_train"] + found["seconds_score"])
    return sum(trained.values()) + sum(metrics["arms"][name]["seconds_generate"] for name in params.arms)


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def now() -> datetime:
    """The time, or that of SOURCE_DATE_EPOCH (reproducible-builds.org), for pages that shall be equal."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(fixed), UTC) if fixed else datetime.now(UTC)


def versions() -> list[str]:
    """The packages that numbers depend on."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def git(*arguments: str) -> str:
    """What Git says; nothing where there is no Git, or no repository."""
    try:
        said = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""
