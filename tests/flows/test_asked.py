"""What a flow run is asked for: the parameters of every seed, or one line that says what cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import asked, prepare
from flows.asked import AskedError, asked_for

ROOT = Path(__file__).parents[2]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, whose last commit has the repository's."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    committed = (ROOT / "params.yaml").read_text(encoding="utf-8")
    monkeypatch.setattr(asked, "committed", lambda: committed)
    return tmp_path


def test_nothing_asked_is_the_file_as_it_stands(project: Path) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(TREE | {"seed": 7}), encoding="utf-8")
    assert asked_for(None, None, None, None) == {7: TREE | {"seed": 7}}


def test_every_seed_has_its_parameters() -> None:
    trees = asked_for(None, "lambda", [2, 0], ["arm.decode.lmbda=0.7", "~periods.4"])
    assert list(trees) == [2, 0]
    for seed, tree in trees.items():
        assert (tree["seed"], tree["suite"], tree["arm"]["decode"]["lmbda"]) == (seed, "lambda", 0.7)
        assert list(tree["periods"]) == ["0", "1", "2", "3"]
    assert trees[2] | {"seed": 0} == trees[0]


def test_a_name_starts_from_the_last_commit_and_leaves_the_file(project: Path) -> None:
    text = yaml.safe_dump(TREE | {"experiment": "edited"})
    (project / "params.yaml").write_text(text, encoding="utf-8")
    (tree,) = asked_for("acl", None, None, ["seed=3"]).values()
    assert (tree["experiment"], tree["seed"]) == ("acl", 3)
    assert (project / "params.yaml").read_text(encoding="utf-8") == text


def test_execution_is_laid_over_that_of_the_file_key_by_key(project: Path) -> None:
    """What is not named stays; a run that says nothing has what the file says."""
    stands = {"engine": "ray", "address": "auto", "workers": 2, "users_per_task": None}
    (project / "params.yaml").write_text(yaml.safe_dump(TREE | {"execution": stands}), encoding="utf-8")
    (tree,) = asked_for(None, None, None, None, {"address": None, "workers": 4}).values()
    assert tree["execution"] == stands | {"address": None, "workers": 4}
    (tree,) = asked_for(None, None, None, None).values()
    assert tree["execution"] == stands


NOTHING: dict[str, Any] = {"name": None, "suite": None, "seeds": None, "overrides": None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "nothing"}, r"name is 'nothing': must be one of acl, .*paper"),
        ({"suite": "lamda"}, r"suite is 'lamda': must be one of .*lambda"),
        ({"suite": "tune"}, r"split\.hold_out is 'test'.*'validation'"),
        ({"seeds": []}, r"seeds is \[\]: must be at least one"),
        ({"seeds": [1, 1]}, r"seeds is \[1, 1\]: .*each once"),
        ({"seeds": [0, -1]}, r"seeds has -1: must be whole numbers from 0 on"),
        (
            {"overrides": ["arm.decode.lmda=1"]},
            r"arm\.decode\.lmda; did you mean arm\.decode\.lmbda\?",
        ),
        ({"overrides": ["arm.decode.lmbda=2"]}, r"arm\.decode\.lmbda is 2"),
        ({"overrides": ["arm.decode.lmbda=[1"]}, r"overrides has 'arm\.decode\.lmbda=\[1', must be as in"),
        ({"overrides": ["suite=lambda"], "suite": "gate"}, r"'suite=lambda', and the run has a parameter"),
        ({"overrides": ["seed=1"], "seeds": [0]}, r"'seed=1', and the run has a parameter"),
        ({"execution": {"engine": "rey"}}, r"execution\.engine is 'rey'"),
        ({"execution": {"address": "head"}}, r"execution\.address is 'head': .*must be host:port"),
        ({"execution": {"worker": 2}}, r"execution\.worker\b"),
        (
            {"execution": {"engine": "ray"}, "overrides": ["execution.engine=local"]},
            r"'execution\.engine=local', and the run has a parameter",
        ),
    ],
)
def test_what_cannot_be_used_is_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(AskedError, match=f"(?s){said}") as caught:
        asked_for(**NOTHING | given)
    assert len(str(caught.value).splitlines()) <= 5


def test_a_deployment_that_cannot_compute_is_refused_before_the_server_is_told(project: Path) -> None:
    def deployed(**execution: str) -> None:
        one = {"name": "nightly", "parameters": {"execution": execution}}
        tree = {"deployments": [one, {"name": "live"}]}
        (project / "prefect.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    deployed(engine="local")
    prepare.check_execution()
    deployed(engine="rey")
    with pytest.raises(SystemExit, match=r"(?s)^error: prefect\.yaml, deployment nightly: .*engine is 'rey'"):
        prepare.check_execution()


def test_a_file_that_cannot_be_read_is_told(project: Path) -> None:
    (project / "params.yaml").write_text("seed: [", encoding="utf-8")
    with pytest.raises(AskedError, match=r"params\.yaml is not valid YAML"):
        asked_for(None, None, None, None)
