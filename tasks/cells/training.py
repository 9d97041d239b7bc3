"""Cells of adapters: one user's lesson under one recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spring.engine.turns import Turn
from spring.method.scorers import Select
from spring.rivals.sar import SarDraw
from spring.settings.train import Train
from spring.store import cell_key, code_digest
from tasks.cells.banks import Founding, Layered
from tasks.cells.sampling import write_uses
from tasks.cells.scoring import CODE
from tasks.cells.workbench import Adapter, Done, Row, Workbench, fill, plain

if TYPE_CHECKING:
    from spring.engine.lessons import Learned, Lesson

SLOTS = 16  # adapters trained at the same time; they become visible together

NO_SELECTION = Select(scorer="random", alpha=0, share=1, normalise="token")
EXPERTS = (  # what adapters over shared experts are made with
    "spring/rivals/proper/banks",
    "spring/rivals/proper/files",
    "spring/rivals/proper/levels",
    "tasks/cells/banks",
)
HOW = {"lora", "lr", "weight_decay", "warmup_ratio", "epochs", "batch_size", "grad_clip"} | {
    "replay_share",
    "replay_draw",
    "rule",
    "experts",
}
CARRIED = "carried.safetensors"  # beside the adapter: what `train.rule` needs in the next period


@dataclass(frozen=True)
class TrainJob:
    """One user's train rows, rows replayed from the buffer, and the adapter learning starts from."""

    recipe: Train
    rows: Sequence[Row]
    replay: Sequence[Row]
    start: Adapter | None  # null: a fresh adapter
    seed: int
    turns: Sequence[Turn] = ()  # of recipes that learn online: all that their settings decide
    draw: SarDraw | None = None  # of what is replayed; null: uniformly
    over: Layered | Founding | None = None  # what lies frozen beneath


def train(bench: Workbench, jobs: Sequence[TrainJob], what: str) -> list[str]:
    """Keys of the cells of all jobs, in order; only missing cells are computed.

    A cell is an adapter's folder with `curve.json` beside the weights, and what a method carries on.
    """
    return fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: (_how(job.recipe), job.over),
        at_once=SLOTS,
        amount=partial(_tokens, bench),
        what=what,
        unit="tok",
    )


def _how(recipe: Train) -> Train:
    """The recipe without what only decides *which* rows are learned: equal ones can train together."""
    return recipe.model_copy(
        update={"start": "base", "data": "current", "select": NO_SELECTION, "online": None}
    )


def _key(bench: Workbench, job: TrainJob) -> str:
    learning = ("lessons", "loss", "optimizer", "rules", "training", "turns")
    modules = [*CODE, *(f"spring/engine/{name}" for name in learning), "tasks/cells/training"]
    parts: dict[str, Any] = {"draw": asdict(job.draw)} if job.draw else {}
    if job.turns:
        parts["turns"] = [asdict(turn) for turn in job.turns]
    if job.recipe.rule is not None:
        modules.append(type(job.recipe.rule).__module__.replace(".", "/"))
    if job.over is not None:
        modules += EXPERTS
    if job.recipe.replay_draw == "sar":
        modules += ["spring/rivals/sar", "tasks/cells/sampling"]
    return cell_key(
        kind="train",
        code=code_digest(*modules),
        **bench.identity,
        prompts=bench.asked([*job.rows, *job.replay]),
        recipe=job.recipe.model_dump(mode="json", include=HOW),
        start=job.start.key if job.start else None,
        seed=job.seed,
        rows=[plain(row) for row in job.rows],
        replay=[plain(row) for row in job.replay],
        **parts,
        **_beneath(job),
    )


def _beneath(job: TrainJob) -> dict[str, Any]:
    """What a layered adapter depends on besides; a lesson of many knows who wrote what."""
    if job.over is None:
        return {}
    names = [row["user_id"] for row in job.rows] if isinstance(job.over, Founding) else []
    return {"over": job.over.key, "writers": names}


def _tokens(bench: Workbench, job: TrainJob) -> int:
    """Tokens that the engine reads for a job, in all epochs."""
    from spring.engine.lessons import plan

    lesson, rule = _lesson(bench, job, weights=False), job.recipe.rule
    again = sum(map(len, lesson.texts)) if rule is not None and rule.observes else 0
    return sum(len(text) for batch in plan(lesson, job.recipe) for text in batch.texts) + again


def _lesson(bench: Workbench, job: TrainJob, *, weights: bool = True) -> Lesson:
    """What the engine is told; without `weights` the adapter it starts from is not read."""
    from safetensors.torch import load_file

    from spring.engine.lessons import Lesson
    from spring.engine.lora import load_adapter

    users = job.over.users if isinstance(job.over, Founding) else ()

    def texts(rows: Sequence[Row]) -> list[Any]:
        read = [bench.prompter.text(row["task"], row["query"], row["response"]) for row in rows]
        if users:
            read = [
                replace(text, user=users.index(row["user_id"])) for text, row in zip(read, rows, strict=True)
            ]
        return read

    start, carried = None, {}
    if job.start and weights:
        start = load_adapter(job.start.folder)
        if job.recipe.rule is not None and job.recipe.rule.carries:
            carried = load_file(job.start.folder / CARRIED)
    return Lesson(texts(job.rows), start, job.seed, texts(job.replay), job.turns, job.draw, carried)


def _compute(
    bench: Workbench, shared: tuple[Train, Layered | Founding | None], jobs: dict[str, TrainJob], done: Done
) -> None:
    from safetensors.torch import save_file

    from spring.engine.budget import needs_checkpoints, training_tokens
    from spring.engine.lora import save_adapter
    from spring.engine.training import train as train_many

    how, over = shared
    base, memory_gb = bench.base, bench.params.model.memory_gb
    lessons = {key: _lesson(bench, job) for key, job in jobs.items()}
    longest = max(len(text) for lesson in lessons.values() for text in (*lesson.texts, *lesson.replay))
    checkpoint = needs_checkpoints(base.model, memory_gb, longest=longest)
    budget = training_tokens(base.model, memory_gb, checkpoint=checkpoint)
    began = perf_counter()
    with bench.bank(over or how.lora, len(lessons)) as bank:
        assert bank is not None
        learned = train_many(
            base.model, bank, list(lessons.values()), how, budget=budget, checkpoint=checkpoint, progress=done
        )
    seconds = perf_counter() - began
    check_finite(jobs.values(), learned)
    tokens = sum(one.tokens for one in learned)
    with bench.store.batch() as batch:
        for (key, lesson), one in zip(lessons.items(), learned, strict=True):
            folder = batch.cell(key)
            if over is not None:
                over.save(one.state, folder, base_model=bench.params.model.id)
            else:
                save_adapter(one.state, how.lora, folder, base_model=bench.params.model.id)
            if one.carried:
                save_file(one.carried, folder / CARRIED)
            if how.replay_draw == "sar":
                write_uses(folder, jobs[key].rows, jobs[key].replay, lesson, how)
            curve = {
                "loss": one.loss,
                "lr": one.lr,
                "grad_norm": one.grad_norm,
                "penalty": one.penalty,
                "items": len(lesson.texts),
                "tokens": one.tokens,
                "seconds": seconds * one.tokens / tokens,
            }
            (folder / "curve.json").write_text(json.dumps(curve))


def check_finite(jobs: Iterable[TrainJob], learned: Sequence[Learned]) -> None:
    """Raises `ValueError` if the loss of a lesson, or its gradient, has become infinite or no number."""
    for job, one in zip(jobs, learned, strict=True):
        for step, (loss, norm) in enumerate(zip(one.loss, one.grad_norm, strict=True), 1):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                users = sorted({row["user_id"] for row in job.rows})
                raise ValueError(
                    f"training of {', '.join(users[:3])} diverged at step {step} of {len(one.loss)} (loss "
                    f"{loss}, gradient norm {norm}) with train.lr {job.recipe.lr}: lower arm.train.lr, or "
                    f"set arm.train.grad_clip; nothing of this batch was kept"
                )
