"""What a folder may not do: run code of its own, be unpickled, or compute with weights that are not in it."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from spring.engine.embedding import Embedder
from spring.engine.folders import check_folder, locate, read_config, read_tokenizer
from spring.engine.model import prepare
from spring.engine.weights import ModelError

ROOT = Path(__file__).parents[2]
CODE = """
from pathlib import Path
Path({marker!r}).write_text("code of the folder was run")
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = {kind!r}
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def saved(tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any) -> Path:
    """A tiny model and its tokenizer as `save_pretrained` leaves them."""
    make_model().save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def add(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


@pytest.mark.parametrize("kind", ["llama", "a-kind-of-its-own"])
@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_code_in_a_folder_is_never_run_nor_asked_about(
    kind: str, where: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a model, an encoder and a tokenizer; also where transformers has a class of that name."""
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail(f"asked on the terminal: {asked}"))
    marker = tmp_path / "marker"
    (saved / "own.py").write_text(CODE.format(marker=str(marker), kind=kind))
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel", "AutoModel": "own.OwnModel"}
    own = own if where == "config.json" else {"AutoTokenizer": ["own.OwnTokenizer", None]}
    add(saved / where, auto_map=own)
    if where == "config.json":
        add(saved / where, model_type=kind)
    with pytest.raises(
        ModelError, match=rf"model\.id: .*{where} names code of its own \(auto_map\), .* never"
    ):
        prepare(str(saved), revision=None, folder=tmp_path / "model")
    with pytest.raises(ModelError, match=rf"model\.embedding: .*{where} names code of its own"):
        Embedder(str(saved), device="cpu")
    for read in (read_config, read_tokenizer):  # the floor beneath the check
        with suppress(ModelError):
            read(saved)
    assert not marker.exists()


def test_pickled_weights_are_refused_with_the_remedy(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").unlink()
    torch.save({}, saved / "pytorch_model.bin")
    told = r"has no safetensors, only pytorch_model\.bin; .*`save_pretrained` it into a new folder"
    with pytest.raises(ModelError, match=rf"model\.id: .*{told}"):
        prepare(str(saved), revision=None, folder=tmp_path / "model")
    with pytest.raises(ModelError, match=rf"model\.embedding: .*{told}"):
        Embedder(str(saved), device="cpu")


def test_an_adapter_whose_base_lies_elsewhere(saved: Path) -> None:
    """transformers would put it on a base that no digest stands for."""
    (saved / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(ModelError, match=r"holds an adapter, .*merge_and_unload"):
        check_folder(saved, key="model.id")


def test_half_a_download(saved: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    shutil.move(saved / "model.safetensors", saved / "model-1.safetensors")
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names model-2\.safetensors, which is missing"):
        check_folder(saved, key="model.id")
    (saved / "model-2.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1")
    with pytest.raises(ModelError, match=r"model-2\.safetensors is a pointer of Git LFS; run `git lfs pull`"):
        check_folder(saved, key="model.id")
    (saved / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not readable as JSON"):
        check_folder(saved, key="model.id")
    (saved / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        check_folder(saved, key="model.id")


def test_weights_that_would_be_random(saved: Path, tmp_path: Path) -> None:
    """A layer more in the configuration than in the weights: transformers makes it up, with a warning."""
    from spring.engine.model import load

    add(saved / "config.json", num_hidden_layers=3, layer_types=None)
    prepare(str(saved), revision=None, folder=tmp_path / "model")
    with pytest.raises(
        ModelError, match=r"lacks 9 weights of a LlamaForCausalLM \(model\.layers\.2\..* random"
    ):
        load(tmp_path / "model", device="cpu")


def test_the_hub_is_asked_for_no_code_and_no_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def fetch(name: str, **how: Any) -> str:
        asked.append((name, how))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert locate("some/model", key="model.id", revision="abc", packaged="x") == tmp_path
    [(name, how)] = asked
    assert name == "some/model" and how["revision"] == "abc"
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in how["allow_patterns"])


@pytest.mark.parametrize("package", ["spring", "tasks", "bench"])
def test_every_call_says_that_no_code_is_run(package: str) -> None:
    """Each from_pretrained and from_config of the project; weights as safetensors alone."""
    calls = 0
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            adapters = "Peft" in ast.unparse(node.func.value)  # no code, and safetensors if there are any
            if node.func.attr in ("from_pretrained", "from_config") and not adapters:
                calls += 1
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert said.get("trust_remote_code") == "False", f"{file}:{node.lineno}"
                of = ast.unparse(node.func.value)
                if node.func.attr == "from_pretrained" and "Config" not in of and "Tokenizer" not in of:
                    assert said.get("use_safetensors") == "True", f"{file}:{node.lineno}"
    assert calls >= {"spring": 5, "tasks": 0, "bench": 1}[package]
