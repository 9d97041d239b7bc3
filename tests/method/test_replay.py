"""Replay consolidation (Eq. 3, 4): numbers derived by hand, invariants of every policy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spring.method.policies import POLICIES, Policy, consolidate
from spring.method.replay import Candidates, Indices, clusters
from spring.settings.arm import Memory
from spring.settings.params import parse
from tasks.steps.buffers import overflown, tell_what_decided_nothing

# Two tight groups far apart: rows 0, 2, 4 near the origin, rows 1, 3, 5 at (10, 10).
GROUPS = [[0.0, 0.0], [10.0, 10.0], [0.1, 0.0], [10.1, 10.0], [0.0, 0.1], [10.0, 10.1]]
MEMORY = {"scope": "buffer", "policy": "random", "capacity": 2, "first_period": 1}
SCORES = [9.0, 4.0, 1.0, 6.0, 2.0, 5.0]  # means 4 and 5: the second group is the harder one


def candidates(**changes: Any) -> Candidates:
    n = len(changes.get("scores", SCORES))
    rows = {
        "scores": SCORES,
        "losses": np.zeros(n),
        "novelties": np.zeros(n),
        "times": np.arange(n),
        "previous_rank": np.full(n, -1),
        "seen": 0,
        **changes,
    }
    return Candidates(**rows)


def keep(policy: str, capacity: int, **changes: Any) -> list[int]:
    seed = changes.pop("seed", 0)
    return consolidate(candidates(**changes), policy=policy, capacity=capacity, seed=seed).tolist()


def test_global_highest_by_hand() -> None:
    assert keep("global-highest", 3) == [0, 3, 5]
    assert keep("global-highest", 99) == [0, 3, 5, 1, 4, 2]


@pytest.mark.parametrize(("policy", "column"), [("loss", "losses"), ("novelty", "novelties")])
def test_the_controls_look_at_their_own_column(policy: str, column: str) -> None:
    assert keep(policy, 2, **{column: [0, 3, 1, 2, -5, 0]}) == [1, 3]


@pytest.mark.parametrize("policy", ["global-highest", "loss", "novelty"])
def test_of_equals_the_earlier_is_kept_whatever_its_row(policy: str) -> None:
    assert keep(policy, 2, scores=[1.0] * 4, times=[30, 10, 40, 20]) == [1, 3]


def test_recent_by_hand() -> None:
    """Equal times keep the order of writing, so the later row is the more recent one."""
    times = np.array(["2024-01-03", "2024-01-05", "2024-01-01", "2024-01-05"], dtype="datetime64[us]")
    assert keep("recent", 3, scores=[0.0] * 4, times=times) == [3, 1, 0]


def test_random_is_a_uniform_seeded_draw() -> None:
    assert keep("random", 3, seed=5) == keep("random", 3, seed=5)
    counts = Counter(row for seed in range(600) for row in keep("random", 2, seed=seed))
    # each row is kept 200 times on average, standard deviation 11.5: six of them are 70
    assert all(130 < counts[row] < 270 for row in range(6)), counts


# --- clusters ---------------------------------------------------------------------------------------------


def test_cluster_wise_by_hand() -> None:
    """The harder group whole (6, 5, 4), then the other from its highest (9)."""
    assert keep("cluster-wise", 4, embeddings=GROUPS) == [3, 5, 1, 0]


def test_cluster_round_by_hand() -> None:
    """Turns: 6 and 9, then 5 and 2, then 4 and 1; the harder group goes first in each."""
    assert keep("cluster-round", 6, embeddings=GROUPS) == [3, 0, 5, 4, 1, 2]


def test_the_best_silhouette_finds_the_number_of_groups() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2, 3], 8)
    points = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[truth] + rng.normal(0, 0.1, (32, 2))
    labels = clusters(points, seed=0)
    assert len(set(zip(truth, labels, strict=True))) == len(set(labels)) == 4


def test_seeds_of_users_are_longer_than_those_of_scikit_learn() -> None:
    """Users' seeds have 48 bits (tasks/cells/workbench.py), scikit-learn takes 32."""
    points = np.array([[0.0], [0.1], [5.0], [5.1]])
    assert clusters(points, seed=(1 << 48) - 1).tolist() == clusters(points, seed=(1 << 32) - 1).tolist()


@pytest.mark.parametrize("policy", ["cluster-wise", "cluster-round"])
@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_equal_and_few_embeddings_are_one_cluster_or_split_cleanly(policy: str, n: int) -> None:
    """With one cluster both policies are global-highest."""
    scores = np.random.default_rng(n).random(n)
    kept = keep(policy, 2, scores=scores, embeddings=np.ones((n, 4)))
    assert kept == keep("global-highest", 2, scores=scores)


def test_clusters_take_a_seed_of_any_size() -> None:
    """Seeds of users are fingerprints of 48 bits, k-means takes 32."""
    points = np.array([[0.0, 1.0]] * 3 + [[1.0, 0.0]] * 3)
    assert len(set(clusters(points, seed=2**48 - 1))) == 2


def test_two_distinct_embeddings_make_two_clusters() -> None:
    assert len(set(clusters(np.array([[0.0, 1.0]] * 5 + [[1.0, 0.0]] * 4), seed=0))) == 2


# --- reservoir --------------------------------------------------------------------------------------------


def stream(lengths: list[int], *, capacity: int, seed: int) -> list[int]:
    """Items 0, 1, 2, ... offered in batches of these lengths, the buffer carried over; the kept items."""
    buffer: list[int] = []
    seen = 0
    for length in lengths:
        new = list(range(seen, seen + length))
        items = new + buffer[::-1]  # neither rows nor times give the slots away
        ranks = [-1] * length + list(range(len(buffer)))[::-1]
        chosen = keep(
            "reservoir",
            capacity,
            seed=seed,
            scores=[0.0] * len(items),
            times=items,
            previous_rank=ranks,
            seen=seen,
        )
        buffer, seen = [items[row] for row in chosen], seen + length
    return buffer


@settings(deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(1, 6), st.integers(0, 99))
def test_reservoir_by_period_is_reservoir_in_one_pass(lengths: list[int], capacity: int, seed: int) -> None:
    once = stream([sum(lengths)], capacity=capacity, seed=seed)
    assert stream(lengths, capacity=capacity, seed=seed) == once
    assert len(once) == min(capacity, sum(lengths))


@pytest.mark.parametrize(("lengths", "capacity"), [([1, 1, 1], 1), ([3, 3, 3, 3], 3)])
def test_reservoir_keeps_old_and_new_alike(lengths: list[int], capacity: int) -> None:
    """Each of n items is kept with probability capacity / n: 200 users of 600 or 800, deviation 12.2 at most.

    With a draw from one number too many, the first of three would be kept by half of the users, 300.
    """
    users = 200 * sum(lengths) // capacity
    counts = Counter(item for seed in range(users) for item in stream(lengths, capacity=capacity, seed=seed))
    assert all(200 - 74 < counts[item] < 200 + 74 for item in range(sum(lengths))), counts


def test_reservoir_refuses_a_buffer_larger_than_what_was_seen() -> None:
    with pytest.raises(AssertionError):
        keep("reservoir", 4, scores=[0.0] * 3, previous_rank=[0, 1, -1], seen=1)


# --- invariants -------------------------------------------------------------------------------------------


@st.composite
def any_candidates(draw: st.DrawFn) -> Candidates:
    n = draw(st.integers(0, 12))
    column = st.lists(st.integers(-2, 2).map(float), min_size=n, max_size=n)
    corners = st.lists(
        st.sampled_from([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.7, 0.7]]), min_size=n, max_size=n
    )
    return candidates(
        scores=draw(column),
        losses=draw(column),
        novelties=draw(column),
        times=draw(column),
        embeddings=np.array(draw(corners)).reshape(n, 2),
    )


@settings(max_examples=15, deadline=None)
@given(any_candidates(), st.integers(1, 14), st.integers(0, 3))
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_size_subset_no_duplicates_and_the_same_again(
    policy: str, offered: Candidates, capacity: int, seed: int
) -> None:
    kept = consolidate(offered, policy=policy, capacity=capacity, seed=seed)
    assert len(kept) == min(capacity, len(offered))
    assert len(set(kept.tolist())) == len(kept)
    assert set(kept.tolist()) <= set(range(len(offered)))
    assert kept.tolist() == consolidate(offered, policy=policy, capacity=capacity, seed=seed).tolist()


@settings(max_examples=15, deadline=None)
@given(any_candidates(), st.integers(1, 13))
@pytest.mark.parametrize("policy", sorted(name for name, policy in POLICIES.items() if not policy.one_stream))
def test_a_larger_buffer_only_appends(policy: str, offered: Candidates, capacity: int) -> None:
    small = consolidate(offered, policy=policy, capacity=capacity, seed=0).tolist()
    assert consolidate(offered, policy=policy, capacity=capacity + 1, seed=0).tolist()[: len(small)] == small


@settings(deadline=None)
@given(any_candidates(), st.integers(1, 13))
def test_global_highest_leaves_out_nothing_higher(offered: Candidates, capacity: int) -> None:
    kept = consolidate(offered, policy="global-highest", capacity=capacity, seed=0).tolist()
    left = set(range(len(offered))) - set(kept)
    assert all(offered.scores[i] >= offered.scores[j] for i in kept for j in left)


@pytest.mark.parametrize("column", ["scores", "losses", "novelties"])
def test_a_number_that_is_not_finite_is_named(column: str) -> None:
    with pytest.raises(ValueError, match=rf"{column} of candidate 4"):
        keep("recent", 2, **{column: [0.0, 0.0, 0.0, 0.0, float("nan"), 0.0]})


# --- the registry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_policy_reads_no_more_than_it_says(name: str) -> None:
    """What needs a model or embeddings that it does not say it reads is left out or made equal here."""
    reads = POLICIES[name].reads
    whole = {"losses": [3.0, 1.0, 2.0, 6.0, 5.0, 4.0], "novelties": [1.0, 5.0, 2.0, 6.0, 3.0, 4.0]}
    whole |= {"embeddings": GROUPS}
    missing: dict[str, Any] = {} if "embeddings" in reads else {"embeddings": None}
    if "base" not in reads:
        missing |= {"scores": [0.0] * 6, "novelties": [0.0] * 6}
    if "adapter" not in reads:
        missing |= {"scores": [0.0] * 6, "novelties": [0.0] * 6, "losses": [0.0] * 6}
    assert keep(name, 4, **whole | missing) == keep(name, 4, **whole)


def test_unknown_policies_are_refused_as_a_literal_would() -> None:
    with pytest.raises(ValidationError) as found:
        Memory.model_validate(MEMORY | {"policy": "oldest"})
    (error,) = found.value.errors()
    assert (error["type"], error["loc"], error["input"]) == ("literal_error", ("policy",), "oldest")
    assert error["msg"] == (
        "Input should be 'global-highest', 'cluster-wise', 'cluster-round', 'random', 'loss', 'novelty', "
        "'recent' or 'reservoir'"
    )


def test_a_new_policy_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings take its name, and it decides what is kept: the two earliest of six."""

    def oldest(candidates: Candidates, capacity: int, seed: int) -> Indices:
        return np.argsort(np.asarray(candidates.times), kind="stable").astype(np.int64)

    monkeypatch.setitem(POLICIES, "oldest", Policy(oldest))
    memory = Memory.model_validate(MEMORY | {"policy": "oldest"})
    assert memory.model_dump() == MEMORY | {"policy": "oldest"}
    assert keep(memory.policy, 2, times=[3, 1, 4, 2, 5, 6]) == [1, 3]


def test_policies_that_had_nothing_to_decide_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Two whose buffers hold all that was offered, one that had to let an item go, one that searches all."""
    arms: dict[str, Any] = {
        "a": {"memory": {"policy": "random"}},
        "b": {"memory": {"policy": "loss"}},
        "c": {"memory": {"policy": "recent"}},
        "d": {"memory": {"scope": "history"}},
    }
    tree = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    made = parse(tree | {"arms": tree["arms"] | arms}).arms
    memories = {name: made[name] for name in arms}
    rows = [(name, "u", 3 if name == "c" else 2) for name in "aabbcc"]
    buffers = pl.DataFrame(rows, schema=["memory", "user_id", "seen"], orient="row")
    tell_what_decided_nothing(memories, overflown(buffers))
    assert "the buffers of loss, random, so that" in capsys.readouterr().err
    tell_what_decided_nothing({name: memories[name] for name in "acd"}, overflown(buffers))
    assert capsys.readouterr().err == ""
