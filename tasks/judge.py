"""Asks of the adapters that an update has learned whether they may be published (tasks/steps/verdicts.py).

Part of an update of a live project (docs/live.md), and no stage of an experiment: it decides which adapters
are handed over, and nothing is learned from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tasks.files import write_parquet
from tasks.stage import run, watch
from tasks.steps.candidates import Asked
from tasks.steps.experiment import Experiment
from tasks.steps.verdicts import judge_all, verdicts_file


def main() -> None:
    """Which adapters, and the versions in service -> verdicts/PERIOD.parquet in the live folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("asked", type=Path, help="JSON, the fields of `Asked`")
    asked = Asked(**json.loads(parser.parse_args().asked.read_text(encoding="utf-8")))
    ended = watch()
    bench = Experiment()
    params = bench.params
    assert params.live is not None and params.live.gate is not None, "the update has seen to it"
    found = judge_all(bench, asked, params.live.gate)
    write_parquet(found, verdicts_file(Path(params.ingest.inbox.kept), asked.period))
    ended.set()


if __name__ == "__main__":
    run(main)
