"""Every causal model of transformers against PEFT alone: `python -m bench.census [TYPE ...]`.

Each is a random twin (spring/engine/twins.py) in a process of its own with a time limit, two at a time, so
that one that crashes or hangs is a row of the result like any other. Written to bench/results/census.json and
into docs/models.md; with types, theirs are printed and take the place of the older rows there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bench.architectures import Architecture, architectures
from bench.examination import NO_DECODER, examine
from bench.machine import RESULTS, describe, write_result

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- census -->\n", "<!-- end -->"
AT_ONCE = 2
LIMIT = 90.0  # seconds for one architecture
JOBS = ("scoring", "training", "answers", "saving")
MEMORY = 8 << 30  # bytes


@dataclass
class _Run:
    """A process that examines one architecture."""

    one: Architecture
    process: Any
    ends: float


def _work(one: Architecture, answer: Connection, every: bool) -> None:
    """In the child: says nothing but its row."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    answer.send_bytes(json.dumps(examine(one, every=every)).encode())


def census(
    chosen: Sequence[Architecture], *, limit: float = LIMIT, every: bool = False
) -> Iterator[dict[str, Any]]:
    """A row for each architecture, in the order in which they end."""
    context = multiprocessing.get_context("fork")
    waiting = list(chosen)[::-1]
    running: dict[Connection, _Run] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            one = waiting.pop()
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(one, there, every), daemon=True)
            process.start()
            there.close()
            running[here] = _Run(one, process, time.monotonic() + limit)
        first = min(run.ends for run in running.values())
        ready = wait(list(running), timeout=max(0.0, first - time.monotonic()))
        late = [pipe for pipe, run in running.items() if run.ends <= time.monotonic() and pipe not in ready]
        for pipe in [*ready, *late]:
            assert isinstance(pipe, Connection)
            yield _end(pipe, running.pop(pipe), late=pipe in late)


def _end(pipe: Connection, run: _Run, *, late: bool) -> dict[str, Any]:
    """The row of a process that has answered, has died, or is too late."""
    row: dict[str, Any] = {"name": run.one.name, "type": run.one.kind}
    try:
        if late:
            run.process.kill()
            row["failed"] = "it did not end in time"
        else:
            row = json.loads(pipe.recv_bytes())
    except EOFError:
        run.process.join()
        row["failed"] = f"the process ended with {run.process.exitcode}"
    run.process.join()
    pipe.close()
    return row


# --- what came of it --------------------------------------------------------------------------------------


def outcome(row: dict[str, Any]) -> str:
    """`right`, `wrong`, `refused` or `failed`."""
    if "failed" in row:
        return "failed"
    if "refused" in row:
        return "refused"
    return "right" if row["right"] else "wrong"


def number(value: float | None) -> str:
    """A difference with one digit, as far as it is one."""
    return "-" if value is None else "0" if value == 0 else f"{value:.0e}"


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    end = outcome(row)
    if end in ("refused", "failed"):
        return [row["name"], end, *[""] * 5, row[end].replace("|", "/")]
    scored, learned, said, saved = (row[job] for job in JOBS)
    answers = f"{said['answers'] - said['wrong']} of {said['answers']}" if "answers" in said else "-"
    notes = [f"{job}: {row[job]['error']}" for job in JOBS if "error" in row[job]]
    notes += [f"never called: {', '.join(row['unused'])}"] if row["unused"] else []
    return [
        *(row["name"], f"{end}, {row['road']}", number(scored.get("nats")), number(learned.get("weights"))),
        *(answers, number(said.get("nats")), number(saved.get("nats"))),
        "; ".join(notes).replace("|", "/"),
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of what is a decoder, and the names of what is none."""
    none = [row["name"] for row in rows if row.get("refused") == NO_DECODER]
    lines = [
        "| Model | Outcome, road | Scoring, nats | Training | Answers | References | Saved | Reason |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows if row["name"] not in none]
    return "\n".join(lines) + f"\n\nNo decoder-only language models: {', '.join(none)}."


def merged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows in the place of older ones of the last census."""
    known = json.loads((RESULTS / "census.json").read_text(encoding="utf-8"))["rows"]
    fresh = {row["name"]: row for row in rows}
    return [fresh.get(row["name"], row) for row in known]


def main() -> None:
    """Examines, prints and, if it was everything, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument(
        "--every-layer", action="store_true", help="adapters on all linear layers; printed only"
    )
    options = parser.parse_args()
    chosen = architectures(options.types)
    rows = []
    with tqdm(total=len(chosen), unit="model") as bar:
        for row in census(chosen, every=options.every_layer):
            rows.append(row)
            bar.set_postfix_str(f"{row['name']}: {outcome(row)}")
            bar.update()
    order = [one.name for one in chosen]
    rows.sort(key=lambda row: order.index(row["name"]))
    print(dict(Counter(map(outcome, rows))))
    if options.types or options.every_layer:
        print(table(rows))
    if not options.every_layer:
        write(merged(rows) if options.types else rows)


def write(rows: Sequence[dict[str, Any]]) -> None:
    """The JSON, and sums and table in docs/models.md."""
    counts, about = Counter(map(outcome, rows)), describe(torch.device("cpu"), torch.float32)
    write_result("census", about, outcomes=dict(counts), rows=rows)
    none = sum(row.get("refused") == NO_DECODER for row in rows)
    roads = Counter(
        "padded" if row["road"].startswith("padded") else "packed" for row in rows if "road" in row
    )
    said = (
        f"{datetime.now(UTC):%Y-%m-%d}, transformers {about['transformers']}, PEFT {about['peft']}, torch "
        f"{about['torch']}: of {len(rows)} architectures and special forms {counts['right']} right "
        f"({roads['packed']} packed, {roads['padded']} padded), {counts['wrong']} wrong, "
        f"{counts['refused'] - none} refused, {counts['failed']} that PEFT or transformers would not run, "
        f"{none} no decoder-only language models.\n\n"
    )
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{said}{table(rows)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
