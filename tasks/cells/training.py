"""Cells of adapters: one user's lesson under one recipe."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spring.engine.settings import Learning
from spring.engine.turns import Turn
from spring.store.keys import cell_key, fingerprint
from tasks.cells.fill import Meter, fill
from tasks.cells.workbench import Adapter, Over, Row, Workbench, plain

if TYPE_CHECKING:
    from spring.engine.lessons import CountedDraw, Learned, Lesson

SLOTS = 16  # adapters trained at the same time; they become visible together
CARRIED = "carried.safetensors"  # beside the adapter: what `train.rule` needs in the next period
CURVE = "curve.json"  # beside the adapter: how it was learned
USES = "uses.json"  # beside the adapter, where a draw counts: times trained on, by `use_name`


@dataclass(frozen=True)
class TrainJob:
    """One user's train rows, rows replayed from the buffer, and the adapter learning starts from."""

    how: Learning
    rows: Sequence[Row]
    replay: Sequence[Row]
    start: Adapter | None  # null: a fresh adapter
    seed: int
    turns: Sequence[Turn] = ()  # of recipes that learn online: all that their settings decide
    draw: CountedDraw | None = None  # of what is replayed, counting uses; null: uniformly
    over: Over | None = None  # what lies frozen beneath


def train(bench: Workbench, jobs: Sequence[TrainJob], what: str) -> list[str]:
    """Keys of the cells of all jobs, in order; only missing cells are computed.

    A cell is an adapter's files with `CURVE` beside the weights, and what a method carries on.
    """
    return fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: (job.how, job.over),
        at_once=SLOTS,
        amount=partial(_tokens, bench),
        what=what,
        unit="tok",
    )


def _key(bench: Workbench, job: TrainJob) -> str:
    users = job.over.users if job.over else ()  # a lesson of many knows who wrote what
    rows, replay = ([plain(row) for row in some] for some in (job.rows, job.replay))
    return cell_key(
        __name__,
        kind="train",
        **bench.identity,
        prompts=bench.asked(task for task, *_ in (*rows, *replay)),
        how=job.how,
        start=job.start.key if job.start else None,
        seed=job.seed,
        rows=rows,
        replay=replay,
        turns=job.turns,
        draw=job.draw,
        over=job.over,
        writers=[row["user_id"] for row in job.rows] if users else [],
    )


def _tokens(bench: Workbench, job: TrainJob) -> int:
    """Tokens that the engine reads for a job, in all epochs."""
    from spring.engine.lessons import plan

    lesson, rule = _lesson(bench, job, weights=False), job.how.rule
    again = sum(map(len, lesson.texts)) if rule is not None and rule.observes else 0
    return sum(len(text) for batch in plan(lesson, job.how) for text in batch.texts) + again


def _lesson(bench: Workbench, job: TrainJob, *, weights: bool = True) -> Lesson:
    """What the engine is told; without `weights` the adapter it starts from is not read."""
    from safetensors.torch import load

    from spring.engine.lessons import Lesson
    from spring.engine.peft import read_adapter

    users = job.over.users if job.over else ()

    def texts(rows: Sequence[Row]) -> list[Any]:
        read = [bench.prompter.text(row["task"], row["query"], row["response"]) for row in rows]
        if users:
            read = [
                replace(text, user=users.index(row["user_id"])) for text, row in zip(read, rows, strict=True)
            ]
        return read

    start, carried = None, {}
    if job.start and weights:
        before = job.start.read()
        start = read_adapter(before)
        if job.how.rule is not None and job.how.rule.carries:
            carried = load(before[CARRIED])
    return Lesson(texts(job.rows), start, job.seed, texts(job.replay), job.turns, job.draw, carried)


def _compute(
    bench: Workbench, shared: tuple[Learning, Over | None], jobs: dict[str, TrainJob], done: Meter
) -> None:
    from safetensors.torch import save

    from spring.engine.keeping import passes_for
    from spring.engine.peft import adapter_files
    from spring.engine.training import train as train_many

    how, over = shared
    base, memory_gb = bench.base, bench.settings.memory_gb
    lessons = {key: _lesson(bench, job) for key, job in jobs.items()}
    began = perf_counter()
    with bench.bank(over or how.lora, len(lessons)) as bank:
        assert bank is not None
        passes = passes_for(base.model, bank, list(lessons.values()), memory_gb)
        learned = train_many(
            base.model,
            bank,
            list(lessons.values()),
            how,
            budget=passes.tokens,
            checkpoint=passes.checkpoint,
            progress=done,
            stepped=done.losses,
        )
    seconds = perf_counter() - began
    check_finite(jobs.values(), learned)
    tokens = sum(one.tokens for one in learned)
    with bench.store.batch() as batch:
        for (key, lesson), one in zip(lessons.items(), learned, strict=True):
            about = {"base_model": base.name, "revision": base.revision, "model": base.model}
            files = (
                adapter_files(one.state, how.lora, **about)
                if over is None
                else over.files(one.state, base_model=base.name)
            )
            if one.carried:
                files[CARRIED] = save(one.carried)
            if jobs[key].draw is not None:
                files[USES] = _uses(jobs[key], lesson)
            curve = {
                "loss": one.loss,
                "lr": one.lr,
                "grad_norm": one.grad_norm,
                "penalty": one.penalty,
                "items": len(lesson.texts),
                "tokens": one.tokens,
                "seconds": seconds * one.tokens / tokens,
            }
            batch[key] = {**files, CURVE: json.dumps(curve).encode()}


def _uses(job: TrainJob, lesson: Lesson) -> bytes:
    """Uses of this lesson's rows and buffer, with those before; what left the buffer never comes back."""
    from spring.engine.lessons import plan_batches

    assert job.draw is not None
    seen = Counter(id(text) for batch in plan_batches(lesson, job.how) for text in batch)
    uses = Counter({use_name(row): known for row, known in zip(job.replay, job.draw.uses, strict=True)})
    for row, text in zip([*job.rows, *job.replay], [*lesson.texts, *lesson.replay], strict=True):
        uses[use_name(row)] += seen[id(text)]
    return json.dumps(uses).encode()


def use_name(row: Row) -> str:
    """What an interaction is called in `USES`: no user text."""
    return fingerprint(plain(row))


def check_finite(jobs: Iterable[TrainJob], learned: Sequence[Learned]) -> None:
    """Raises `ValueError` if the loss of a lesson, or its gradient, has become infinite or no number."""
    for job, one in zip(jobs, learned, strict=True):
        for step, (loss, norm) in enumerate(zip(one.loss, one.grad_norm, strict=True), 1):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                users = sorted({row["user_id"] for row in job.rows})
                raise ValueError(
                    f"training of {', '.join(users[:3])} diverged at step {step} of {len(one.loss)} (loss "
                    f"{loss}, gradient norm {norm}) with train.lr {job.how.lr}: lower arm.train.lr, or "
                    f"set arm.train.grad_clip; nothing of this batch was kept"
                )
