"""Parameters are refused by name, value and constraint, before any work."""

from __future__ import annotations

import copy

import pytest
from kit.params import TREE, changed

from spring.settings.params import ParameterError, merge, parse
from tasks.tree import read_tree


def test_the_committed_parameters_are_valid_and_spring_is_the_default_arm():
    params = parse(TREE)
    assert params.arms["spring"] == params.arms["spring-parametric"].model_copy(
        update={"decode": params.arms["spring"].decode, "memory": params.arms["spring"].memory}
    )
    assert params.arms["spring"].train.select.share == 0.3
    assert params.arms["base"].train is None


SHARED = {"scope": "population", "data": "current"}
EXPERTS = {"name": "proper", "level": "group", "scope": "population", "count": 2, "constraint": 0.1}
EXPERTS |= {"user_embedding": 3, "population_epochs": 1, "group_epochs": 1}
FROZEN = {"data": "current", "start": "base", "experts": EXPERTS}
ADAPTIVE = {"threshold": 0.01, "patience": 3}
PROFILE = {"rho": 0.1, "feedback": None, "weight": 0.5}
RANKED = {"by": "dense", "gate": None, "profile": PROFILE}
WHOLE = {**TREE["arm"]["train"], "data": "current"}  # a block train in which nothing is left out
LATE = {"train": {"replay_share": 0.5}, "memory": {"first_period": 4}}
INF, ALONE, UNREAD = float("inf"), {"memory": None}, {"lmbda": 0}


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("arm.decode.lmbda", 2, "decode.lmbda is 2"),
        ("arm.retrieve.sigma", "q1", r"  arm.retrieve.sigma is 'q1': must be 'q2' or 'q3', or: "),
        ("arm.train.replay_share", True, "  arm.train.replay_share is True: "),
        ("arm.train.experts", {"name": "proper"}, "  arm.train.experts.level is missing"),
        ("arms.spring", LATE, "arms.spring.train.replay_share is 0.5, but nothing would ever be replayed"),
        ("arm.train.select.share", 0, "train.select.share is 0"),
        ("arm.train.select.scorer", "magic", "train.select.scorer is 'magic'"),
        ("arm.memory.capacity", 0, "memory.capacity is 0"),
        ("arm.train.lora.target_modules", [], "target_modules"),
        ("arms.spring", {"decode": {"lambda": 0.5}}, "arms.spring.decode.lambda"),
        ("split.test_share", 1, "split.test_share is 1"),
        ("split.by", "calendar", "split.every is null; split.by calendar needs the length of a period"),
        ("split.every", "1mo", "split.every is 1mo: only split.by calendar reads it; set it to null, or"),
        ("split.every", "1m", "split.every is '1m': must be a whole number and one of d, w, mo, q, y"),
        ("split.time_zone", "Mars", "split.time_zone is 'Mars': must be a time zone's IANA name"),
        ("split.min_train", 3, "split.min_train is 3: only split.by calendar reads it; set it to 1, or"),
        ("split.start", "2024-02-30", "split.start is '2024-02-30'"),
        ("ingest.source", "kaggle", "ingest.source is 'kaggle'"),
        ("evaluate.against", "nobody", "evaluate.against is 'nobody'"),
        ("periods", {"0": "base", "2": 0}, "must be a chain"),
        ("periods", {"1": 0, "0": "base"}, "must be a chain of at least two periods, in order"),
        ("split", 0.1, "split is 0.1"),
        ("arms.spring", False, "arms.spring is False"),
        ("unknown", 1, "unknown: no such key; allowed are arms, evaluate"),
        (
            "arm.decode",
            {**TREE["arm"]["decode"], "lambda": 0.5},
            "decode.lambda: no such key; did you mean lmbda?",
        ),
        ("arms.spring", {"lmbda": 0.5}, "arms.spring.lmbda: no such key; it belongs in decode"),
        ("arm.memory.budget", 5, "memory.budget: no such key; allowed are capacity, first_period, policy"),
        (
            "arm.retrieve.gate",
            False,
            "retrieve.gate is False: must be 'strict', 'soft' or 'learned', or null",
        ),
        ("transfer", False, "transfer is False: must be 'likelihood' or 'generation', or null"),
        ("arm.train.rule", False, "must be a block of keys, or null"),
        ("arm.decode", {"lmbda": 0.5}, "arm.decode.max_new_tokens is missing"),
        ("ingest.min_chars", 30000, "ingest.min_chars is 30000, more than max_chars, 20000"),
        (
            "arm.train.replay_share",
            0.3,
            "is 1.2 of 4 items a batch; it must be a whole number of them: 0.25 or 0.5",
        ),
        ("arm.decode.adaptive", {"threshold": 1, "patience": 3}, "less than or equal to 0.7"),
        ("arms.spring", {"train": {"replay_share": 0.5}, "memory": None}, "needs memory.scope: buffer"),
        ("arm.train.scope", "everyone", "scope is 'everyone': must be 'user', 'population'"),
        ("arms.spring", {"adapter": "swapped", "train": None}, "swapped needs an adapter per user"),
        ("arms.spring", {"adapter": "swapped", "train": SHARED}, "swapped needs an adapter"),
        ("arm.train.shared_lr", 0.01, "train.shared_lr 0.01 is of what all users share"),
        ("arm.train.shared_lr", 0, "train.shared_lr is 0"),
        ("arms.spring", {"train": {"scope": "population"}}, "train.data drift would lose: take current"),
        ("arms.spring", {"train": {"scope": "population", "start": "population"}}, "take previous or base"),
        ("arms.spring", {"retrieve": {"sigma_from": "transductive", "sigma": 1.0}}, "sigma: q2 or q3"),
        ("arms.spring", {"retrieve": {"sigma_from": "transductive", "gate": "learned"}}, "strict or soft"),
        ("arms.spring", {"retrieve": {"pairs": 0}}, "retrieve.pairs is 0"),
        # what would fail late
        (
            "arms.spring",
            {"memory": {"first_period": 5}},
            "spring.memory.first_period is 5; it must be at most 4",
        ),
        (
            "arms.spring",
            {"decode": {"max_new_tokens": 768}},
            "decode.max_new_tokens is 768; an answer must be",
        ),
        ("arm.train.lr", INF, "arm.train.lr is inf: must be a finite number"),
        ("arm.train.weight_decay", INF, "train.weight_decay is inf"),
        ("arm.train.grad_clip", INF, "train.grad_clip is inf"),
        ("model.memory_gb", INF, "model.memory_gb is inf"),
        ("evaluate.detect", INF, "evaluate.detect is inf"),
        ("tracking.tags", ["a", "b", "a"], "a stands twice; name every tag once"),
        ("tracking.tags", [" a"], "tracking.tags.0 is ' a'"),
        ("tracking.tags", ["a,b"], "tracking.tags.0 is 'a,b'"),
        ("tracking.entity", "a/b", "tracking.entity is 'a/b'"),
        ("tracking.project", "a:b", "tracking.project is 'a:b'"),
        ("tracking.mode", "dryrun", "tracking.mode is 'dryrun'"),
        ("tracking.adapters", "copy", "tracking.adapters is 'copy'"),
        ("tracking.tags", ["ok", ""], "tracking.tags.1 is '': must have at least 1 character"),
        ("tracking.tags", ["x" * 65], "must have at most 64 characters"),
        # what would pass for something else
        ("arms.spring", {"decode": {"lmbda": True}}, "arms.spring.decode.lmbda is True: must be a number"),
        ("arm.train.replay_share", False, "arm.train.replay_share is False: must be a number"),
        ("seed", True, "seed is True: must be a number"),
        # what would do nothing
        ("arms.spring", {"train": FROZEN}, "train.start previous (is base)"),
        (
            "arms.x",
            {"train": {"data": "current", "select": {"share": 0.1}}},
            "x.train.select.share is 0.1: only",
        ),
        (
            "arms.x",
            {"train": {"data": "cumulative", "select": {"scorer": "loss"}}},
            "select.scorer is 'loss'",
        ),
        (
            "arms.x",
            {"train": {"data": "current", "select": {"alpha": 0}}, **ALONE},
            "select.alpha is 0: only",
        ),
        ("arms.x", ALONE | {"decode": {"lmbda": 1.0}}, "arms.x.decode.lmbda is 1.0: it weighs the path with"),
        ("arms.x", ALONE | {"decode": {"confidence": "entropy"}}, "confidence is 'entropy': memory is null"),
        ("arms.x", ALONE | {"decode": {"adaptive": ADAPTIVE}}, "'patience': 3}: memory is null, so that"),
        ("arms.x", {"decode": UNREAD | {"confidence": "entropy"}}, "is 'entropy': decode.lmbda is 0, so"),
        ("arms.x", {"decode": UNREAD | {"adaptive": ADAPTIVE}}, "decode.adaptive is {'threshold': 0.01"),
        (
            "arms.x",
            {"decode": UNREAD, "retrieve": {"gate": "learned"}},
            "x.retrieve.gate is 'learned': decode",
        ),
        ("arms.x", ALONE | {"retrieve": {"gate": "learned"}}, "retrieve.gate is 'learned': memory is null"),
        ("arms.x", {"decode": UNREAD, "retrieve": RANKED}, "x.retrieve.profile is {'rho': 0.1"),
        ("arms.x", {"decode": {"lmbda": 1.0, "confidence": "entropy"}}, "lmbda is 1: only one path"),
        ("arms.x", {"memory": {"scope": "history", "capacity": 5}}, "capacity is 5: only a buffer has one"),
        ("arms.x", {"memory": {"scope": "period", "policy": "recent"}}, "policy is 'recent': only a buffer"),
        ("arms.x", {"retrieve": {"gate": None, "sigma": 0.5}}, "sigma is 0.5: only gate strict or soft"),
        (
            "arms.x",
            {"retrieve": {"pairs": 3}},
            "pairs is 3: only gate learned reads it, and retrieve.gate is",
        ),
    ],
)
def test_bad_values_are_named(path, value, named):
    with pytest.raises(ParameterError, match="nothing was run") as error:
        parse(changed(path, value))
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("arm.train.select.alpha", INF),  # quality alone
        ("arm.retrieve.sigma", INF),  # a gate that stays closed
        ("arm.decode.confidence", "entropy"),  # `base` has no memory, and inherits it
        ("arm.decode.adaptive", ADAPTIVE),
        ("arm.decode.lmbda", 1.0),
        ("arm.train.select.share", 0.1),  # `oppu-each` learns everything, and inherits it
        ("arm.retrieve.gate", "learned"),
        ("arm.train", WHOLE),
        ("arms.x", ALONE | {"decode": {"lmbda": 0.5}}),  # what `arm` says anyway
        ("arms.x", ALONE | {"decode": {"confidence": None}, "retrieve": {"gate": None}}),
        ("arms.x", {"train": {"data": "current", "select": {"alpha": 0}}}),  # the buffer is scored with it
        ("arms.x", {"train": FROZEN | {"start": "previous"}}),
        ("arms.x", {"memory": {"first_period": 4}}),
        ("arms.x", {"memory": {"scope": "history", "first_period": 9}}),  # of a buffer
        ("arms.x", {"decode": {"max_new_tokens": 767}}),
        # at lambda 1 two paths are read where what passes the gate weighs less than 1
        ("arms.x", {"retrieve": {"gate": "soft"}, "decode": {"lmbda": 1.0, "confidence": "entropy"}}),
        ("arms.x", {"retrieve": {"weight": "score"}, "decode": {"lmbda": 1.0, "adaptive": ADAPTIVE}}),
        ("arms.x", {"train": {"replay_share": 0.5}, "memory": {"first_period": 3}}),
        ("arm.train.lr", "1e-4"),  # YAML reads it as text
        ("tracking.log_text", True),
    ],
)
def test_sensible_values_pass(path, value):
    parse(changed(path, value))


def test_a_block_train_in_full_says_how_it_would_select():
    """Where the suite's arms train nothing, an arm that does must fill in every key."""
    tree = changed("arm.train", None)
    tree["arms"] = {"base": {}, "current": {"train": WHOLE | {"select": {**WHOLE["select"], "share": 0.1}}}}
    assert parse(tree).arms["current"].train.data == "current"


def test_periods_need_what_max_interactions_leaves_of_a_user():
    """Five periods need ten of every user; what is left out by the limit no other setting brings back."""
    parse(changed("ingest.max_interactions", 10))
    with pytest.raises(
        ParameterError, match=r"ingest\.max_interactions is 9; 5 periods need 10 of every user"
    ):
        parse(changed("ingest.max_interactions", 9))


def test_a_file_in_another_encoding_is_refused_by_name(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes("experiment: é".encode("latin-1"))
    with pytest.raises(ParameterError, match=r"params\.yaml is not valid YAML in UTF-8"):
        read_tree(path)


def test_a_date_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("title: 2026-02-30\n")
    with pytest.raises(ParameterError, match=r"params\.yaml is not valid YAML .*\n  day"):
        read_tree(path)


def test_a_missing_key_is_named():
    tree = copy.deepcopy(TREE)
    del tree["model"]["dtype"]
    with pytest.raises(ParameterError, match=r"model\.dtype"):
        parse(tree)


def test_merge_replaces_leaves_and_keeps_the_rest():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": None}) == {
        "a": {"b": 9, "c": 2},
        "d": None,
    }


def test_arms_that_train_alike_share_adapters_and_only_those():
    """spring and spring-parametric differ in decoding alone; oppu-each learns other data."""
    arms = parse(TREE).arms
    assert arms["spring"].recipe == arms["spring-parametric"].recipe
    assert arms["spring"].recipe != arms["oppu-each"].recipe
    assert arms["base"].recipe is None


def test_replay_in_training_makes_the_memory_part_of_the_recipe():
    arms = parse(changed("arms.replayed", {"train": {"replay_share": 0.5}})).arms
    other = parse(changed("arms.replayed", {"train": {"replay_share": 0.5}, "memory": {"capacity": 9}})).arms
    assert arms["replayed"].recipe != other["replayed"].recipe


def test_keys_added_later_leave_fingerprints_as_they_were():
    """They stand in neither recipe nor cell key until they are used: adapters from before them stay valid."""
    spring = parse(TREE).arms["spring"]
    assert "scope" not in spring.train.model_dump() and "confidence" not in spring.decode.model_dump()
    used = parse(changed("arms.spring", {"train": SHARED})).arms["spring"]
    assert used.train.model_dump()["scope"] == "population"


def test_arms_that_share_are_other_recipes_and_swapping_is_none():
    """`swapped` answers with adapters that are there; population and its start train their own."""
    tree = changed("arms.swapped", {"adapter": "swapped"})
    tree["arms"]["population"] = {"train": SHARED}
    tree["arms"]["on-top"] = {"train": {"start": "population"}}
    arms = parse(tree).arms
    assert arms["swapped"].recipe == arms["spring"].recipe
    assert len({arms[name].recipe for name in ("spring", "population", "on-top")}) == 3


def test_learned_gates_are_shared_by_state_search_and_mixture():
    learned = {"retrieve": {"gate": "learned"}}
    tree = changed("arms.learned", learned)
    tree["arms"]["shorter"] = learned | {"decode": {"max_new_tokens": 9, "repetition_penalty": 1.5}}
    tree["arms"]["lighter"] = learned | {"decode": {"lmbda": 0.1}}
    tree["arms"]["surer"] = learned | {"decode": {"confidence": "entropy"}}
    tree["arms"]["wider"] = {"retrieve": {"gate": "learned", "top_k": 4}}
    tree["arms"]["untrained"] = learned | {"train": None}
    arms = parse(tree).arms
    assert arms["spring"].gate_id is None
    assert arms["learned"].gate_id == arms["shorter"].gate_id
    others = ("learned", "lighter", "surer", "wider", "untrained")
    assert len({arms[name].gate_id for name in others}) == len(others)


def test_what_every_arm_starts_from_is_told_once_and_where_it_stands(monkeypatch):
    """Not once for every arm that has it from there; an arm's own value under the arm's name."""
    monkeypatch.setattr("spring.settings.complaints.MOST", 100)
    tree = copy.deepcopy(TREE)
    tree["arm"]["memory"]["policy"] = "magic"
    tree["arm"]["train"]["foo"] = 1
    tree["arm"]["decode"]["by"] = {"by": "cad", "alpha": -1}
    tree["arms"]["spring"] = {"decode": {"lmbda": 3}, "memory": {"policy": "mine"}}
    with pytest.raises(ParameterError) as error:
        parse(tree)
    lines = str(error.value).splitlines()[1:]
    keys = [line.split()[0].rstrip(":") for line in lines]
    assert len(keys) == len(set(keys)) and "arms.spring.memory.policy" in keys
    assert {"arm.memory.policy", "arm.train.foo", "arms.spring.decode.lmbda"} < set(keys)
    assert not [key for key in keys if key.startswith("arms.") and not key.startswith("arms.spring")]


def test_a_file_from_before_a_key_was_added_is_read_as_it_was_meant():
    """With the value that leaves everything as it was; its arms are the same, down to their recipes."""
    tree = copy.deepcopy(TREE)
    for block, key in (
        ("decode", "rule"),
        ("train", "online"),
        ("train", "replay_draw"),
        ("retrieve", "profile"),
    ):
        del tree["arm"][block][key]
    del tree["arm"]["steer"]
    before, now = parse(tree).arms["spring"], parse(TREE).arms["spring"]
    assert before == now and before.recipe == now.recipe
    del tree["arm"]["decode"]["lmbda"]
    with pytest.raises(ParameterError, match=r"arm\.decode\.lmbda is missing"):
        parse(tree)


def test_periods_of_the_calendar_are_new_keys_that_say_nothing_until_they_are_used():
    """Fingerprints of results from before them stay; equal counts need texts of every user, dates do not."""
    plain = parse(TREE)
    assert set(plain.split.model_dump()) == {"test_share", "hold_out"}
    old = copy.deepcopy(TREE)
    old["split"] = {"test_share": 0.1, "hold_out": "test"}
    del old["ingest"]["table"]["arrived"]
    assert parse(old) == plain and parse(old).model_dump() == plain.model_dump()
    dated = changed("split", {**TREE["split"], "by": "calendar", "every": "1mo", "start": "2024-01-31"})
    dated["ingest"]["max_interactions"] = 3
    assert str(parse(dated).split.start) == "2024-01-31"


def test_the_arm_that_is_served_must_learn():
    tree = changed("split", {**TREE["split"], "by": "calendar", "every": "1mo", "start": "2024-01-01"})
    tree["ingest"] |= {"source": "inbox", "min_interactions": 1, "max_users": None, "max_interactions": None}
    tree["ingest"]["inbox"] = {"folder": "inbox", "kept": "live", "until": None}
    for arm in (None, "spring-parametric"):
        assert parse({**tree, "live": {"branch": "live", "arm": arm}}).live.arm == arm
    for arm in ("base", "nobody"):
        with pytest.raises(ParameterError, match=f"live.arm is '{arm}', not one of the arms that learn"):
            parse({**tree, "live": {"branch": "live", "arm": arm}})
