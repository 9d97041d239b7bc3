"""Peak memory of every arm, each alone: `python -m bench.memory [--suite compare]`.

In an experiment all arms share the batches of a stage, so that none has a peak of its own. Here the last
commit's experiment is run once per arm, with that arm alone and two periods, in a folder and a cell store of
its own; the peak is the largest of the processes of a stage. What the model and the libraries take is in it:
the stage `score_base`, which all arms share, stands beside it. Written to bench/results/memory.json.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from bench.machine import about, write_result
from bench.stages import run
from tasks.params import PARAMS, load_params
from tasks.suites import MAIN, lay, read_suite
from tasks.tree import read_tree

SHARED = ("ingest", "model", "split", "score_base")
STAGES = ("adapt", "consolidate", "generate")


def alone(tree: dict[str, Any], arm: str) -> dict[str, Any]:
    """Parameters of two periods of one arm."""
    return tree | {
        "suite": MAIN,
        "periods": {"0": "base", "1": 0},
        "arms": {arm: tree["arms"][arm]},
        "evaluate": tree["evaluate"] | {"against": arm},
        "transfer": None,
    }


def measure(clone: Path, arms: list[str], tree: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Arm -> stage -> peak memory, MB; what is shared under the name `score_base`."""
    peaks: dict[str, dict[str, float]] = {}
    for arm in tqdm(arms, unit="arm"):
        (clone / PARAMS).write_text(yaml.safe_dump(alone(tree, arm), sort_keys=False), encoding="utf-8")
        if not peaks:
            shared = {stage: run(stage, clone)["peak_mb"] for stage in SHARED}
            peaks["score_base"] = {"all": shared["score_base"]}
        shutil.rmtree(clone / ".cells", ignore_errors=True)  # or arms with equal adapters would train nothing
        found = dict.fromkeys(STAGES, 0.0)
        for period in (0, 1):
            for stage in STAGES:
                found[stage] = max(found[stage], run(f"{stage}@{period}", clone)["peak_mb"])
        peaks[arm] = found | {"all": max(found.values())}
    return peaks


def table(peaks: dict[str, dict[str, float]]) -> str:
    """A Markdown table."""
    lines = [f"| arm | {' | '.join(STAGES)} | peak MB |", f"|---|{'---:|' * (len(STAGES) + 1)}"]
    for arm, found in peaks.items():
        cells = [f"{found[stage]:.0f}" if stage in found else "–" for stage in STAGES]
        lines.append(f"| `{arm}` | {' | '.join(cells)} | {found['all']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures every arm, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default=MAIN, help="whose arms to measure")
    suite = parser.parse_args().suite
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder)
        subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
        params = load_params(clone / PARAMS)
        laid = lay(read_tree(clone / PARAMS) | {"suite": suite}, read_suite(suite))
        peaks = measure(clone, list(laid["arms"]), laid)
    print(table(peaks))
    write_result("memory", about(params.model), suite=suite, peak_mb=peaks)


if __name__ == "__main__":
    main()
