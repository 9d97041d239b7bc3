"""A question to a version is answered as the stage `generate` did; folders of adapters load elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from spring.live.aliases import Lesson, Version
from tasks.export import CONFIG, ExportError, export, find, find_live, true_base
from tasks.params import load_params
from tasks.serving.asking import AskError, ask, query_of, task_of
from tasks.serving.registry import read_lessons, served_arm
from tasks.steps.index import read_index, user_folder


def files(folder: Path) -> dict[str, int]:
    """All files of a project, and when they were written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("done")
def test_a_question_is_answered_as_generate_did_and_nothing_is_kept(project: Path) -> None:
    params, before = load_params(), files(project)
    name = "spring"
    assert served_arm(params)[0] == "oppu-each", "the first that learns, unless live.arm names one"
    heard = 0
    for period in (1, 2):
        tests = pl.read_parquet(f"data/split/{period}.parquet").filter(part="test")
        answers = pl.read_parquet(f"data/generate/{period}/generations.parquet").filter(arm=name)
        row = tests.row(period - 1, named=True)
        expected = answers.row(by_predicate=pl.col("interaction_id") == row["interaction_id"], named=True)
        version = Version(row["user_id"], period)
        found = ask(params, name, version, row["query"], task="commit", when=row["timestamp"])
        assert (found.text, found.tokens) == (expected["text"], expected["tokens"])
        assert (found.lmbda, found.sigma) == (expected["lmbda"], expected["sigma"])
        assert len(found.memories) == expected["candidates"] > 0
        contexts = [one.interaction_id for one in found.memories if one.weight > 0]
        assert contexts == expected["contexts"]
        heard += len(contexts)
        assert [one.score for one in found.memories] == sorted(
            (one.score for one in found.memories), reverse=True
        )
    assert heard > 0 and files(project) == before


@pytest.mark.usefixtures("done")
def test_what_is_asked_must_be_what_the_prompt_asks_for(project: Path) -> None:
    params = load_params()
    assert task_of(params, Version("user 0", 1), None) == "commit"
    with pytest.raises(AskError, match="no prompt is called poem; there are "):
        task_of(params, Version("user 0", 1), "poem")
    one, two = params.prompts["commit"], params.prompts["commit"].model_copy(update={"user": "{A} of {B}"})
    asked = '{"SUBJECT": "a=b é"}'
    assert query_of(["SUBJECT=a=b é"], one, "commit") == query_of(["a=b é"], one, "commit") == asked
    assert query_of(["B=2", "A=1"], two, "x") == '{"A": "1", "B": "2"}'
    for words, prompt, said in (
        (["A=1"], two, 'the prompt x asks for B; a question is A="..." B="..."'),
        (["A=1", "B= "], two, "the prompt x asks for B"),
        (["A=1", "A=2"], two, "the field A is given twice"),
        (["A=1", "C=2"], two, "'C=2' is no field of the prompt x"),
        (["plain"], two, "'plain' is no field"),
        (["SUBJECT="], one, "asks for SUBJECT"),
        (["TITLE=x"], one, "'TITLE=x' is no field of the prompt x; they are SUBJECT="),
    ):
        with pytest.raises(AskError) as error:
            query_of(words, prompt, "x")
        assert said in str(error.value)


@pytest.mark.usefixtures("done")
def test_lessons_are_the_places_where_something_was_learned(project: Path) -> None:
    """Counted periods: every user learns in each; the cells are those of the index."""
    _, arm = served_arm(load_params())
    found = read_lessons(arm.recipe, 3)
    rows = [read_index(t).filter(recipe=arm.recipe, user_id="user 1").row(0, named=True) for t in range(3)]
    assert found["user 1"] == tuple(Lesson(t, row["cell"][:16]) for t, row in enumerate(rows))
    assert sorted(found) == ["user 0", "user 1", "user 2"]


def resolve(cache: Path, *, base_model: str, name: str) -> Path | None:
    """The folder that vLLM's filesystem resolver finds, by the rules of its public code.

    The folder of the name below its cache, and not elsewhere; a config of PEFT's type LORA; the served model.
    """
    folder = (cache / name).resolve()
    if Path(name).is_absolute() or cache.resolve() not in folder.parents:
        return None
    if not (folder / CONFIG).exists():
        return None
    config = json.loads((folder / CONFIG).read_text())
    fits = config["peft_type"] == "LORA" and config["base_model_name_or_path"] == base_model
    return folder if fits else None


@pytest.mark.usefixtures("done")
def test_folders_are_what_peft_and_vllms_resolver_load(project: Path, tiny_model_folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    params = load_params()
    name, arm = "spring", params.arms["spring"]
    versions = [Version("user 0", 0), Version("user 1", 2)]
    said = export(find_live(arm.recipe, versions), Path("out"), "vllm")
    base = str(tiny_model_folder.resolve())
    assert true_base() == (base, None)
    assert said[0] == "2 adapters are in out"
    # a rank of 2 is served as 8, the next that vLLM takes
    assert f"vllm serve {base} --enable-lora --max-lora-rank 8" in said[1]
    names = json.loads(Path("out/users.json").read_text())
    assert names == {f"{user_folder('user 0')}@0": "user 0", f"{user_folder('user 1')}@2": "user 1"}
    tensors = []
    for folder in names:
        assert resolve(Path("out"), base_model=base, name=folder) == (project / "out" / folder).resolve()
        assert resolve(Path("out"), base_model="another", name=folder) is None
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), Path("out") / folder)
        state = {key: value for key, value in model.state_dict().items() if "lora_" in key}
        stored = load_file(Path("out") / folder / "adapter_model.safetensors")
        assert len(state) == len(stored) > 0
        for key, value in stored.items():
            loaded = state[key.replace(".weight", ".default.weight")]
            assert torch.equal(loaded, value.to(loaded.dtype))
        tensors.append(stored)
    assert any(not torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    export(find(params, name, 2, ["user 1"]), Path("elsewhere"), "peft", base="some/model")
    config = json.loads((Path("elsewhere") / f"{user_folder('user 1')}@2" / CONFIG).read_text())
    assert config["base_model_name_or_path"] == "some/model"
    with pytest.raises(ExportError, match="user 9 has no adapter of spring after period 2"):
        find(params, name, 2, ["user 9"])
