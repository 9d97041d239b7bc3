"""Stage `transfer`: scores[i, j], every learned state i on the test queries of every period j.

    data/transfer/likelihoods.parquet   arm, user_id, interaction_id, adapter (own, or swapped: another
                                        user's), learned (i), tested (j), logp, ref_tokens, contexts
    data/transfer/texts.parquet         arm, user_id, interaction_id, learned (null: base model), tested, text

`transfer: likelihood` takes that of the reference under what the arm answers with (the mixture included):
nothing is generated, so the whole matrix costs what reading its queries costs. `transfer: generation` has
every state answer too, and the base model with each arm's decoding. Cells are kept: one more period computes
its own row and column and no older cell. With `transfer: null` both tables are empty.

Besides, each period's own state is read once more with another user's adapter in place of the user's, all
else being equal (`adapter: swapped`): what a user's adapter gives beyond a stranger's is personal.

What a state may see of a query is settled by the query's time. For j >= i all that the state has seen is
earlier. For j < i the state has learned on, and that is the question: its adapter is taken as it is, but its
memory and the profile that ranks it are cut at period j and the past of its gate at the query's time, so that
nothing later than a query is retrieved for it, steers it or sets its threshold. A buffer thus shows what it
*still* holds, never what came after. A profile in words is taken as it is, like the adapter: it is what the
state has learned, in one piece. (Arms that are marked as transductive or as trained on all users keep what
sets them apart.)
"""

from __future__ import annotations

from typing import Any

import polars as pl

from spring.settings.arm import Arm
from tasks.cells.decoding import GenerateJob, Request, generate
from tasks.cells.likelihood import Ask, Likelihood, likelihoods, of_answer
from tasks.cells.workbench import Adapter
from tasks.files import DATA, read_parquet, read_tests, write_parquet
from tasks.generate import adapter_for
from tasks.stage import run
from tasks.steps.experiment import Adapters, Experiment
from tasks.steps.gate import Requests, read_gates
from tasks.steps.memory import Library
from tasks.steps.partners import swap
from tasks.steps.profiles import Profiles
from tasks.steps.rows import Rows, by_user
from tasks.steps.steers import Steers
from tasks.steps.vectors import read_profile_vectors

LIKELIHOODS: dict[str, Any] = {
    "arm": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "adapter": pl.Enum(["own", "swapped"]),
    "learned": pl.Int32,
    "tested": pl.Int32,
    "logp": pl.Float64,  # of the reference, nats
    "ref_tokens": pl.Int32,
    "contexts": pl.List(pl.String),
}
TEXTS: dict[str, Any] = {
    **{name: LIKELIHOODS[name] for name in ("arm", "user_id", "interaction_id", "learned", "tested")},
    "text": pl.String,
}
Asked = list[tuple[dict[str, Any], Ask]]  # what each cell is called, and the ask
OWN, SWAPPED = {"adapter": "own"}, {"adapter": "swapped"}
Tests = dict[int, dict[str, Rows]]  # period -> user -> test rows


def main() -> None:
    """The states after all periods and the test queries of all periods -> data/transfer/."""
    bench = Experiment()
    rows: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    if bench.params.transfer is not None:
        tests = {period: by_user(read_tests(period)) for period in bench.params.periods}
        states = [ask_state(bench, learned, tests) for learned in tests]
        asked = [case for own, _ in states for case in own]
        swapped = [case for _, others in states for case in others]
        if bench.params.transfer == "generation":
            found, texts = answer(bench, asked, ask_base(bench, tests))
            found += likelihoods(bench, [ask for _, ask in swapped], "transfer, swapped")
        else:
            found = likelihoods(bench, [ask for _, ask in asked + swapped], "transfer")
        for (cell, ask), of_requests in zip(asked + swapped, found, strict=True):
            for request, likelihood in zip(ask.requests, of_requests, strict=True):
                rows.append(
                    cell
                    | {
                        "interaction_id": request.row["interaction_id"],
                        "logp": likelihood.logp,
                        "ref_tokens": likelihood.tokens,
                        "contexts": [row["interaction_id"] for row in request.context],
                    }
                )
    write_parquet(pl.DataFrame(rows, schema=LIKELIHOODS), DATA / "transfer/likelihoods.parquet")
    write_parquet(pl.DataFrame(texts, schema=TEXTS), DATA / "transfer/texts.parquet")


def answer(
    bench: Experiment, asked: Asked, alone: Asked
) -> tuple[list[list[Likelihood]], list[dict[str, Any]]]:
    """The references' likelihoods of `asked`, read on the way; what is generated for all, a row a query.

    The diagonal is what `generate` left in its cells.
    """
    every = asked + alone
    jobs = [
        GenerateJob(cell["arm"], cell["user_id"], ask.requests, ask.decode, ask.adapter, ask.profile)
        for cell, ask in every
    ]
    found = generate(bench, jobs, "transfer, generation")
    texts = [
        {name: cell[name] for name in TEXTS if name in cell}
        | {"interaction_id": request.row["interaction_id"], "text": result["text"]}
        for (cell, ask), results in zip(every, found, strict=True)
        for request, result in zip(ask.requests, results, strict=True)
    ]
    read = [[of_answer(one) for one in results] for results in found]
    return read[: len(asked)], texts


def ask_base(bench: Experiment, tests: Tests) -> Asked:
    """The base model alone on every period, decoded as each arm does: what has learned nothing."""
    asked: Asked = []
    for name, arm in bench.params.arms.items():
        for tested, users in tests.items():
            for user, rows in users.items():
                cell = {"arm": name, "user_id": user, "learned": None, "tested": tested}
                alone = [Request(row, (), 0.0, candidates=0, sigma=None) for row in rows]
                asked.append((cell, Ask(alone, None, arm.decode.single.decoding)))
    return asked


def ask_state(bench: Experiment, learned: int, tests: Tests) -> tuple[Asked, Asked]:
    """Every arm's queries to the state after period `learned`; those of that period also swapped."""
    folder = DATA / f"consolidate/{learned}"
    history = read_parquet(folder / "history.parquet")
    buffers = read_parquet(folder / "buffers.parquet")
    gates = read_gates(bench.params.arms, learned)
    adapters, profiles = bench.adapters(learned), Profiles.after(learned)
    steers = Steers(bench, learned)
    libraries = {
        known: Library(
            bench, history.filter(pl.col("period") <= known), buffers, learned, read_profile_vectors(known)
        )
        for known in range(learned + 1)
    }
    there = set(history["user_id"])  # a state says nothing of users who come later
    asked: Asked = []
    swapped: Asked = []
    for name, arm in bench.params.arms.items():
        for tested, users in tests.items():
            stranger = strangers(bench, arm, adapters) if tested == learned else {}
            library = libraries[min(tested, learned)]
            for user, rows in users.items():
                if user not in there:
                    continue
                cell = {"arm": name, "user_id": user, "learned": learned, "tested": tested}
                gated = Requests(rows, [gates[name].request(row, library, user) for row in rows])
                requests = steers.steer(arm, user, gated)
                adapter = adapter_for(bench, arm, adapters, user)
                profile = profiles.of(arm, user, queries=rows if tested >= learned else ())
                asked.append((cell | OWN, Ask(requests, adapter, arm.decode.decoding, profile)))
                if user in stranger:
                    theirs = Ask(requests, stranger[user], arm.decode.decoding, profile)
                    swapped.append((cell | SWAPPED, theirs))
    return asked, swapped


def strangers(bench: Experiment, arm: Arm, adapters: Adapters) -> dict[str, Adapter]:
    """User -> another user's adapter, for arms in which each answers with one of their own."""
    users = adapters.owners(arm.recipe)
    if arm.adapter == "swapped" or len(users) < 2:
        return {}
    found = {}
    for user, other in swap(users, seed=bench.params.seed).items():
        own, theirs = adapters.of(arm.recipe, user), adapters.of(arm.recipe, other)
        if own is not None and theirs is not None and own.key != theirs.key:
            found[user] = theirs
    return found


if __name__ == "__main__":
    run(main)
