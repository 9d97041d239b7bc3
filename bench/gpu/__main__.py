"""`python -m bench.gpu`: checks, times and writes everything; `--tiny`: with small models, on any machine."""

from __future__ import annotations

import argparse
import gc
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from bench import work
from bench.gpu import beside, checks, inside, jobs, report
from bench.gpu.models import KINDS, PAPER, ROADS, TARGETS, TINY, Kind, adapters, make
from bench.gpu.pace import Pace
from bench.gpu.sides import Sides
from bench.gpu.timing import Job, timed
from bench.machine import RESULTS, limits
from spring.engine.budget import TooLargeError
from spring.engine.device import pick_device, pick_dtype
from spring.engine.roads import road_of
from spring.engine.settings import Lora
from spring.engine.weights import one_line
from tasks.files import write_json

Make = Callable[[jobs.Bench, int], Job]
TYPES = (torch.float32, torch.bfloat16)
SLOW = 2.0  # a job may take so many times its share of the time
ALIKE = 4  # random adapters; further users have them again
DROPOUT = 0.05
LOADS = (("load", 4.0), ("inside", 6.0), ("load all", 4.0))  # parts and about how long they take


class Run:
    """Everything, part by part, in the time there is."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = pick_device("auto")
        self.tiny = options.tiny or self.device.type == "cpu"
        self.sizes, self.roads = TINY if self.tiny else PAPER, options.roads
        self.dtype = pick_dtype("auto", self.device)
        self.result: dict[str, Any] = {"about": report.about(self.device, self.dtype), "tiny": self.tiny}
        self.result["about"]["timed_road"] = self.roads[0]
        self.result |= {"checks": [], "jobs": [], "inside": {}, "left_out": [], "failed": []}
        # by a job's name, seconds of the engine for each user and of PEFT
        self.took: dict[str, tuple[float, float]] = {}
        self.pace = Pace(60 * options.minutes, self._parts())

    def _parts(self) -> dict[str, float]:
        """What there is to do, and about how long each takes next to the others."""
        parts = {"limits": 1.0, "beside the model": 3.0}
        parts |= {f"{kind.name}: {road} checks": 3.0 for kind in KINDS for road in self.roads}
        for kind in KINDS:
            parts |= {f"{kind.name}: {name}": weight for name, weight in LOADS}
            parts |= {f"{kind.name}: {name}": weight for name, _, _, weight in self._jobs()}
        return parts

    def _jobs(self) -> list[tuple[str, Make, int, float]]:
        """Name, job, users and weight; with adapters on queries and values first, then on all layers."""
        most = max(self.sizes.users)
        found: list[tuple[str, Make, int, float]] = []
        for name, job, weight in (
            ("score", jobs.scoring, 2.0),
            ("train", jobs.training, 3.0),
            ("generate", jobs.answering, 7.0),
        ):
            found += [(f"{name}, {users}", job, users, weight) for users in self.sizes.users]
        found.append((f"score long, {most}", jobs.scoring_long, most, 3.0))
        if self.roads[0] != "padded":
            for name, job, weight in (("score", jobs.scoring, 2.0), ("generate", jobs.answering, 5.0)):
                found.append((f"{name} padded, {most}", partial(jobs.padded, job), most, weight))
        found.append((f"train all, {most}", jobs.training, most, 6.0))
        return found

    # --- one part -----------------------------------------------------------------------------------------

    def part(self, name: str, do: Callable[[float], None]) -> None:
        """Does a part if there is time; what it fails with is told, and the others go on."""
        allowed = self.pace.begin(name)
        try:
            if self.pace.left <= 0:
                self._leave(name, "no time")
            else:
                do(allowed)
        except (torch.OutOfMemoryError, TooLargeError):
            self._leave(name, "out of memory")
        except Exception as error:  # whatever a card may fail with is what is looked for here
            traceback.print_exc()
            said = f"{type(error).__name__}: {one_line(error)}"
            self.result["failed"].append({"part": name, "error": said})
        self.pace.end(name)

    def _leave(self, name: str, why: str) -> None:
        self.result["left_out"].append({"part": name, "why": why})

    def told(self, *found: checks.Check) -> None:
        """Notes comparisons."""
        for one in found:
            error = one.error if isfinite(one.error) else None  # JSON knows no NaN
            self.result["checks"].append({**asdict(one), "error": error, "holds": one.holds})

    # --- all parts ----------------------------------------------------------------------------------------

    def all(self) -> None:
        """Every part in order."""
        self.part("limits", self._limits)
        self.part("beside the model", self._beside)
        for kind in KINDS:
            for road in self.roads:
                self.part(f"{kind.name}: {road} checks", partial(self._check, kind, road))
        for kind in KINDS:
            self._measure(kind)
        self.pace.close()
        self.result["seconds"] = self.pace.taken

    def _limits(self, _: float) -> None:
        self.machine = limits(self.device, self.dtype)
        self.result["about"]["limits"] = vars(self.machine)

    def _beside(self, _: float) -> None:
        self.told(beside.retrieval(), *beside.dropout(self.device), beside.encoder(self.device))
        self.result["inside"]["vocabulary"] = inside.vocabulary(self.device) or {}

    def _check(self, kind: Kind, road: str, _: float) -> None:
        for dtype in TYPES:
            case = checks.case(kind, self.device, dtype, road=road)
            for check in checks.CHECKS:
                self.told(*check(case))

    def _measure(self, kind: Kind) -> None:
        """All that is timed of one model, which is let go after it."""
        held: list[jobs.Bench] = []

        def load(_: float) -> None:
            changes, road = kind.small if self.tiny else kind.full, self.roads[0]
            model = make(kind.type, changes, self.device, self.dtype, road=road)
            self._hold(kind, held, model, TARGETS, "q, v")

        self.part(f"{kind.name}: load", load)
        self._jobs_of(kind, held)
        held.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _hold(
        self, kind: Kind, held: list[jobs.Bench], model: Any, targets: Sequence[str], layers: str
    ) -> None:
        """Puts adapters on a model and keeps both, if both sides agree."""
        lora = Lora(r=8, alpha=16, dropout=DROPOUT, target_modules=tuple(targets))
        shape = work.shape_of(model, lora)
        some, users = adapters(model, lora, ALIKE), max(self.sizes.users)
        states = [some[i % ALIKE] for i in range(users)]
        gigabytes = 0.5 * inside.free_gb(self.device)
        sides = Sides(model, lora, states, memory_gb=gigabytes, plain=jobs.PLAIN)
        bench = jobs.Bench(kind.name, layers, sides, self.sizes, shape, self.machine)
        agreed = list(jobs.agreement(bench))
        self.told(*agreed)
        if all(one.holds for one in agreed):
            held.append(bench)

    def _widen(self, kind: Kind, held: list[jobs.Bench], bench: jobs.Bench, _: float) -> None:
        """The same model with adapters on all layers."""
        held.clear()
        bench.sides.close()
        model = bench.sides.model
        self._hold(kind, held, model, sorted(road_of(model).layers), "all linear")

    def _jobs_of(self, kind: Kind, held: list[jobs.Bench]) -> None:
        """Times every job of a model: those with adapters on all layers last, and before what is inside."""
        for name, make_job, users, _ in self._jobs():
            if name.startswith("train all"):
                self._held(f"{kind.name}: inside", held, self._inside)
                self._held(f"{kind.name}: load all", held, partial(self._widen, kind, held))
            self._held(f"{kind.name}: {name}", held, partial(self._time, make_job, users))

    def _held(self, name: str, held: list[jobs.Bench], do: Callable[[jobs.Bench, float], None]) -> None:
        """A part that needs a model on which both sides agree."""
        if held:
            self.part(name, lambda allowed: do(held[0], allowed))
        elif name in self.pace.parts:
            self._leave(name, "no model, or its sides do not agree")
            self.pace.end(name)

    def _time(self, make_job: Make, users: int, bench: jobs.Bench, allowed: float) -> None:
        """Times a job, unless it would take much more than its share."""
        job = make_job(bench, users)
        ours, theirs = self.took.get(job.name, (0.0, 0.0))
        expected = 2 * (users * ours + theirs)  # once to warm up
        if expected > SLOW * allowed:
            self._leave(f"{bench.kind}: {job.name}, {users}", f"would take {expected:.0f} s")
            return
        bench.sides.seat(users)
        found = timed(job, self.device, 0.0 if self.tiny else allowed)
        self.took[job.name] = found["seconds"] / users, found["peft_seconds"]
        self.result["jobs"].append({"model": bench.kind, **found})

    def _inside(self, bench: jobs.Bench, _: float) -> None:
        users = max(self.sizes.users)
        found = self.result["inside"].setdefault(bench.kind, {})
        bench.sides.seat(users)
        found["decoding"] = inside.decoding(bench, users)
        found["attention"] = inside.attention(bench)
        bench.sides.seat(min(inside.LEARNERS, users))
        found["training"] = inside.training(bench, min(inside.LEARNERS, users))
        found["memory"] = inside.kept(bench)
        bench.sides.load()
        found["graph"] = inside.graph(bench)


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small models; so it is where no GPU is seen")
    parser.add_argument("--minutes", type=float, default=7.5, help="what all may take")
    parser.add_argument(
        "--roads", nargs="+", default=list(ROADS), choices=ROADS, help="to check; the first is timed"
    )
    parser.add_argument("--out", type=Path, help="default: bench/results/gpu.json, or gpu-tiny.json")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Does everything, prints and writes it; 1 if anything is wrong or was not checked."""
    from transformers.utils import logging

    options = parsed(words)
    logging.disable_progress_bar()  # of reading weights
    run = Run(options)
    if run.device.type == "cpu":
        print("torch sees no GPU: small models on the processor, whose speed says nothing.", flush=True)
    run.all()
    out = options.out or RESULTS / ("gpu-tiny.json" if run.tiny else "gpu.json")
    write_json(run.result, out)
    print(report.markdown(run.result), *report.verdict(run.result), f"Written to {out}.", sep="\n\n")
    return 0 if report.passed(run.result) else 1


if __name__ == "__main__":
    sys.exit(main())
