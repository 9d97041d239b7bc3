"""CoPe and CAD: the one decode loop against a loop without a cache, and distributions by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.decoding import Setup, decode, merged, next_distribution, queries, random_bank, run
from kit.params import TREE

from spring.engine.queries import Query
from spring.rivals.cad import Cad
from spring.rivals.cope import Cope
from spring.settings.arm import Rule
from spring.settings.params import ParameterError, parse

COPE = Cope(by="cope", alpha=0.5, plausible=0.3)  # so strong that it shows on a tiny model
CAD = Cad(by="cad", alpha=1.5)
REFERENCE = (9, 8, 7, 300)


@pytest.fixture(scope="module")
def setup(make_model: Callable[..., Any]) -> Setup:
    model = make_model()
    bank = random_bank(model)
    adapted = {slot: merged(make_model(), bank, slot) for slot in range(2)}
    return model, bank, {-1: make_model(), **adapted}


def asked(*, lmbda: float = 1.0) -> list[Query]:
    """Two adapters, open and closed gates; every query with an adapter, so that cope has what to contrast."""
    return [
        replace(query, slot=i % 2, lmbda=lmbda, reference=REFERENCE)
        for i, query in enumerate(queries(count=10))
    ]


# --- the reference: both distributions in full at every token, in float64 ---------------------------------


def two(query: Query, rule: Rule, plain: dict[int, Any], tokens: list[int]) -> tuple[Any, Any]:
    """p of the first and the second path; the second is null where the gate is closed."""
    if isinstance(rule, Cope):
        prompt = query.context_prompt if query.context_prompt and query.lmbda else query.prompt
        return tuple(next_distribution(plain[slot], [*prompt, *tokens]) for slot in (query.slot, -1))
    if not query.context_prompt:
        return next_distribution(plain[query.slot], [*query.prompt, *tokens]), None
    prompts = query.context_prompt, query.prompt
    return tuple(next_distribution(plain[query.slot], [*prompt, *tokens]) for prompt in prompts)


def one(p: np.ndarray, q: np.ndarray | None, rule: Rule, *, choosing: bool) -> np.ndarray:
    """p [V] of the next token under a rule."""
    if q is None:
        return p
    if isinstance(rule, Cad):
        odds = p ** (1 + rule.alpha) / q**rule.alpha
        return odds / odds.sum()
    kept = p >= rule.plausible * p.max()
    score = np.where(kept, p / q**rule.alpha, 0.0)
    inside = score / score.sum() * p[kept].sum()
    return inside if choosing else np.where(kept, inside, p)


def expected(query: Query, rule: Rule, plain: dict[int, Any], *, penalty: float, most: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < most:
        with np.errstate(divide="ignore"):
            score = np.log(one(*two(query, rule, plain, tokens), rule, choosing=True))
        score[list(set(tokens))] *= penalty
        tokens.append(int(score.argmax()))
    return tokens


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("rule", [COPE, CAD], ids=["cope", "cad"])
def test_equals_a_loop_without_a_cache(rule: Rule, penalty: float, setup: Setup) -> None:
    """Tokens, rows read, and log p of references; whatever is admitted when."""
    plain, settings = setup[2], decode(penalty=penalty, most=8, rule=rule)
    for room in (10_000, 90):
        found = run(setup, asked(), settings, room=room, budget=4096 if room > 90 else 50)
        for query, answer in zip(asked(), found, strict=True):
            assert answer.tokens == expected(query, rule, plain, penalty=penalty, most=8)
            both = isinstance(rule, Cope) or query.context_prompt is not None
            assert answer.row_steps == (16 if both else 8)
            for i, token in enumerate(REFERENCE):
                p = one(*two(query, rule, plain, list(REFERENCE[:i])), rule, choosing=False)
                assert answer.reference[i] == pytest.approx(math.log(p[token]), abs=5e-5)
    mixed = run(setup, asked(), decode(penalty=penalty, most=8))
    assert any(a.tokens != b.tokens for a, b in zip(found, mixed, strict=True)), "or this is empty"


def test_cope_without_context_reads_the_bare_prompt(setup: Setup) -> None:
    """lambda 0 hides the context from both of its paths."""
    settings = decode(most=4, rule=COPE)
    hidden = run(setup, asked(lmbda=0.0), settings)
    bare = run(setup, [replace(query, context_prompt=None) for query in asked()], settings)
    shown = run(setup, asked(), settings)
    assert [a.tokens for a in hidden] == [a.tokens for a in bare] != [a.tokens for a in shown]


@pytest.mark.parametrize(
    "rule", [Cope(by="cope", alpha=0, plausible=0.1), Cad(by="cad", alpha=0)], ids=["cope", "cad"]
)
@pytest.mark.parametrize("penalty", [1.0, 1.05])
def test_alpha_0_is_the_plain_path(rule: Rule, penalty: float, setup: Setup) -> None:
    """The adapter alone, or the path with context alone: tokens and likelihood, under the same penalty."""
    found = run(setup, asked(), decode(rule=rule, penalty=penalty))
    plain = run(setup, asked(), decode(penalty=penalty))
    assert [a.tokens for a in found] == [a.tokens for a in plain]
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(a.reference, b.reference, atol=2e-5)


def test_by_hand() -> None:
    """p_user = (0.5, 0.4, 0.1), p_base = (0.8, 0.1, 0.1), plausible 0.5: the last token is out.

    alpha 1: scores 0.5 / 0.8 = 0.625 and 0.4 / 0.1 = 4, so 5/37 and 32/37 of the kept 0.9; 0.1 stays.
    CAD at alpha 1: p^2 / q = 0.3125, 1.6, 0.1, divided by their sum 2.0125.
    """
    p, q = torch.tensor([[[0.5, 0.4, 0.1]], [[0.8, 0.1, 0.1]]]).log()
    cope = Cope(by="cope", alpha=1, plausible=0.5)
    inside = torch.tensor([[5 / 37, 32 / 37]])
    torch.testing.assert_close(cope.choose(p, q).exp(), torch.cat([inside * 0.9, torch.zeros(1, 1)], 1))
    torch.testing.assert_close(cope.judge(p, q).exp(), torch.cat([inside * 0.9, torch.tensor([[0.1]])], 1))
    cad = Cad(by="cad", alpha=1).choose(p, q).exp()
    torch.testing.assert_close(cad, torch.tensor([[0.3125, 1.6, 0.1]]) / 2.0125)


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=12),
    st.floats(0, 1),
    st.floats(1e-3, 1),
)
def test_what_judges_a_reference_is_a_distribution_with_copes_choice_on_top(
    pairs: list[tuple[float, float]], alpha: float, plausible: float
) -> None:
    p, q = torch.tensor(pairs, dtype=torch.float64).log_softmax(0).T
    rule = Cope(by="cope", alpha=alpha, plausible=plausible)
    judged, chosen = (by(p[None], q[None])[0] for by in (rule.judge, rule.choose))
    assert judged.isfinite().all() and judged.exp().sum().item() == pytest.approx(1)
    assert judged[chosen.argmax()] >= judged.max() - 1e-9


# --- refusals ---------------------------------------------------------------------------------------------

WITH_COPE = {"rule": {"by": "cope", "alpha": 0.1, "plausible": 0.1}}
WITH_CAD = {"rule": {"by": "cad", "alpha": 0.5}}


@pytest.mark.parametrize(
    ("arm", "named"),
    [
        ({"train": None, "memory": None, "decode": WITH_COPE}, "cope contrasts an adapter"),
        ({"decode": WITH_COPE}, "take decode.lmbda 1"),
        ({"memory": None, "decode": WITH_CAD}, "cad amplifies retrieved context"),
        ({"decode": WITH_CAD}, "decode.lmbda is 0.5 and must be 1"),
        ({"decode": {"lmbda": 1, **WITH_CAD}, "retrieve": {"gate": "soft"}}, "take retrieve.gate strict"),
        ({"decode": {"lmbda": 1, **WITH_COPE}, "retrieve": {"weight": "score"}}, "retrieve.weight gate"),
        ({"memory": None, "decode": {"confidence": "entropy", **WITH_COPE}}, "decode.confidence is for the"),
        ({"memory": None, "decode": {"rule": {"by": "dola"}}}, "'cope', 'cad'"),
        ({"memory": None, "decode": {"rule": {"by": "cope", "alpha": 2, "plausible": 0.1}}}, "alpha is 2"),
    ],
)
def test_senseless_combinations_are_refused(arm: dict[str, Any], named: str) -> None:
    tree = copy.deepcopy(TREE)
    tree["arms"]["rival"] = arm
    with pytest.raises(ParameterError, match="nothing was run") as error:
        parse(tree)
    assert named in str(error.value)


def test_any_training_and_retrieval_combine_with_a_rule() -> None:
    tree = copy.deepcopy(TREE)
    tree["arms"] |= {
        "cope": {"memory": None, "decode": WITH_COPE},
        "cope-context": {"decode": {"lmbda": 1.0, **WITH_COPE}},
        "cad": {"train": None, "memory": {"scope": "history"}, "decode": {"lmbda": 1.0, **WITH_CAD}},
        "cad-adapted": {"decode": {"lmbda": 1.0, **WITH_CAD}},
    }
    arms = parse(tree).arms
    assert arms["cope"].recipe == arms["cad-adapted"].recipe == arms["spring"].recipe
    assert "rule" not in arms["spring"].decode.model_dump()
