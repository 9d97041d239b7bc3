"""A stage as it is, but for the engine's work: `python -m bench.hollow tasks.adapt --period 0`.

Cells are filled with made-up adapters, likelihoods and answers of the right form; keys, claims, the store and
tables are the stages' own. So that what users cost besides the model can be measured for very many of them
(`bench.storage --hollow`). Equal keys give equal cells.
"""

from __future__ import annotations

import json
import runpy
import sys
from typing import Any

import numpy as np

from tasks.cells import decoding, scoring, training
from tasks.cells.decoding import GenerateJob
from tasks.cells.fill import Meter
from tasks.cells.scoring import ScoreJob
from tasks.cells.training import CURVE, TrainJob
from tasks.cells.workbench import Workbench

SECONDS = 0.01  # that a cell is said to have taken
STEPS = 4


def chance(key: str) -> np.random.Generator:
    """The chance of one cell."""
    return np.random.default_rng(int(key[:16], 16))


def score(bench: Workbench, _: object, jobs: dict[str, ScoreJob], done: Meter) -> None:
    """Likelihoods: so many nats a word."""
    with bench.store.batch() as batch:
        for key, job in jobs.items():
            tokens = [len(row["response"].split()) + 1 for row in job.rows]
            logp = -np.array(tokens) * chance(key).uniform(2, 3, len(tokens))
            cell = {"logp": logp.tolist(), "tokens": tokens, "seconds": SECONDS}
            batch[key] = {"scores.json": json.dumps(cell).encode()}
            done(len(tokens))


def train(bench: Workbench, shared: tuple[Any, object], jobs: dict[str, TrainJob], done: Meter) -> None:
    """Adapters of the asked form, all numbers by chance, and a curve of few steps."""
    import torch

    from spring.engine.peft import adapter_files

    how, base = shared[0], bench.base
    with bench.bank(how.lora, 1) as bank:
        assert bank is not None
        state = bank.state(0)
    about = {"base_model": base.name, "revision": base.revision, "model": base.model}
    with bench.store.batch() as batch:
        for key, job in jobs.items():
            random = chance(key)
            made = {
                name: torch.from_numpy(random.normal(size=value.shape).astype(np.float32))
                for name, value in state.items()
            }
            tokens = sum(len(row["response"].split()) for row in job.rows)
            curve: dict[str, Any] = {
                **{name: [0.5] * STEPS for name in ("loss", "lr", "grad_norm", "penalty")},
                "items": len(job.rows),
                "tokens": tokens,
                "seconds": SECONDS,
            }
            batch[key] = {**adapter_files(made, how.lora, **about), CURVE: json.dumps(curve).encode()}
            done(tokens)


def generate(bench: Workbench, _: object, jobs: dict[str, GenerateJob], done: Meter) -> None:
    """Answers: some four words of the reference, each arm's own."""
    with bench.store.batch() as batch:
        for key, job in jobs.items():
            answers, random = [], chance(key)
            for request in job.requests:
                words = request.row["response"].split()
                first = int(random.integers(max(1, len(words) - 3)))
                answers.append(
                    {
                        "text": " ".join(words[first : first + 4]),
                        "tokens": 4,
                        "logp": float(-len(words) * chance(key).uniform(2, 3)),
                        "ref_tokens": len(words) + 1,
                        "row_steps": 8,
                        "seconds": SECONDS,
                        "ref_seconds": SECONDS,
                    }
                )
            batch[key] = {"generations.json": json.dumps(answers).encode()}
            done(len(answers))


def main() -> None:
    """Runs the module that is named as `python -m` would."""
    for module, compute in ((scoring, score), (training, train), (decoding, generate)):
        module._compute = compute  # type: ignore[attr-defined]
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
