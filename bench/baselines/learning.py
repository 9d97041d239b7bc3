"""PEFT user by user in padded batches: on all threads, or in two processes of one thread side by side.

The model is wrapped once and given each user's adapter in place; the optimizer is fused, logits exist at
responses alone. A process is this module as a script: it prepares the same lessons, says "ready", and for
every line of numbers learns these lessons and says "done". Preparing is not timed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench import plain
from bench.baselines import Baseline
from spring.engine.lessons import Lesson, plan_batches
from spring.engine.optimizer import schedule
from spring.engine.settings import Learning
from spring.engine.texts import Text

if TYPE_CHECKING:
    from bench.sides import Bench

SIDES = 2  # processes side by side


def learn(model: Any, lessons: Sequence[Lesson], config: Learning) -> list[dict[str, Tensor]]:
    """The adapters under PEFT's names; `model` is of transformers."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    assert lessons[0].start is not None
    wrapped = plain.with_adapters(model, config.lora, {"default": lessons[0].start})
    inner, found = wrapped.get_base_model(), []
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    wrapped.train()
    for lesson in lessons:
        assert lesson.start is not None
        set_peft_model_state_dict(wrapped, dict(lesson.start))
        plan = plan_batches(lesson, config)
        optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        factor = partial(schedule, steps=len(plan), warmup_ratio=config.warmup_ratio)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        for batch in plan:
            loss(inner, batch).backward()
            if config.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(weights, config.grad_clip)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        state = get_peft_model_state_dict(wrapped)
        found.append({name: value.detach().float().cpu().clone() for name, value in state.items()})
    wrapped.unload()
    model.eval()
    return found


def loss(model: Any, batch: Sequence[Text]) -> Tensor:
    """Mean negative log-likelihood of the responses of right-padded rows."""
    longest = max(len(text) for text in batch) - 1
    known = [(text.prompt + text.response)[:-1] for text in batch]
    ids = torch.tensor([list(row) + [0] * (longest - len(row)) for row in known], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in known], device=model.device)
    hidden = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    picked = torch.cat([h[len(t.prompt) - 1 : len(t) - 1] for h, t in zip(hidden, batch, strict=True)])
    targets = torch.tensor([token for text in batch for token in text.response], device=model.device)
    return torch.nn.functional.cross_entropy(model.get_output_embeddings()(picked).float(), targets)


# --- the baselines ----------------------------------------------------------------------------------------


def training(bench: Bench, source: str, lessons: Sequence[Lesson]) -> list[Baseline]:
    """On all threads, and on a processor in processes side by side."""

    @contextmanager
    def here() -> Iterator[Callable[[], Any]]:
        yield lambda: learn(bench.plain, lessons, bench.recipe)

    threads = torch.get_num_threads()
    found = [Baseline(f"PEFT user by user, {threads} threads" if threads > 1 else "PEFT user by user", here)]
    if bench.base.device.type == "cpu":
        device, dtype = bench.asked
        beside = partial(side_by_side, lessons, bench.recipe, device=device, dtype=dtype, source=source)
        found.append(Baseline(f"PEFT user by user, {SIDES} processes of 1 thread", beside))
    return found


@contextmanager
def side_by_side(
    lessons: Sequence[Lesson], config: Learning, *, device: str, dtype: str, source: str
) -> Iterator[Callable[[], None]]:
    """Processes that have loaded all, and the work: each learns its share."""
    command = [sys.executable, "-m", "bench.baselines.learning", "--device", device, "--dtype", dtype, source]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(SIDES)
        ]
        for worker in workers:
            stack.callback(end, worker)
        for worker in workers:
            hear(worker, "ready")

        def work() -> None:
            for worker, numbers in zip(workers, shares(lessons, config), strict=True):
                assert worker.stdin is not None
                print(*numbers, file=worker.stdin, flush=True)
            for worker in workers:
                hear(worker, "done")

        yield work


def shares(lessons: Sequence[Lesson], config: Learning) -> list[list[int]]:
    """Numbers of lessons by process, about as many tokens for each: the largest first, to who has least."""
    sizes = [sum(len(text) for batch in plan_batches(one, config) for text in batch) for one in lessons]
    found, loads = [list[int]() for _ in range(SIDES)], [0] * SIDES
    for number in sorted(range(len(lessons)), key=lambda number: -sizes[number]):
        least = loads.index(min(loads))
        found[least].append(number)
        loads[least] += sizes[number]
    return found


def hear(worker: subprocess.Popen[str], word: str) -> None:
    """Waits until a process says a word."""
    assert worker.stdout is not None
    said = worker.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"a process that trains beside this one ended: it said {said!r}, not {word!r}")


def end(worker: subprocess.Popen[str]) -> None:
    """Ends a process, whatever it does."""
    worker.kill()
    worker.wait()


def main() -> None:
    """One of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True, choices=("auto", "float32", "bfloat16"))
    parser.add_argument("source")
    options = parser.parse_args()
    from bench.sides import Bench

    torch.set_num_threads(1)
    bench = Bench(options.device, options.dtype)
    lessons = bench.lessons(options.source)
    print("ready", flush=True)
    for line in sys.stdin:
        learn(bench.plain, [lessons[int(number)] for number in line.split()], bench.recipe)
        print("done", flush=True)


if __name__ == "__main__":
    main()
