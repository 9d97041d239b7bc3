"""Stage `model`: what it says of the model, what it refuses, and what the stages behind it then read."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
from pathlib import Path

import polars as pl
import pytest
from kit.encoders import MakeEncoder
from kit.families import FORMS
from kit.pipeline import run, write_params, write_table
from kit.sources import CASES
from kit.templates import DATED, DROPS_SYSTEM, NO_SYSTEM, PLAIN, THINKING, WITHOUT

from bench.tiny import make_model
from spring.engine.model import load_tokenizer
from spring.engine.packaged import PACKAGED
from spring.engine.settings import Model
from spring.engine.weights import ModelError
from spring.settings.params import ParameterError
from tasks import ingest, model, score_base, split
from tasks.params import load_params
from tasks.steps.experiment import Experiment


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny model that a test may change; the current folder is a project's."""
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (PLAIN, "system turn, ends with <|im_end|>, no clock"),
        (DATED, "system turn, ends with <|im_end|>, its clock stands at 2026-01-01 (model.date)"),
        (NO_SYSTEM, f"{WITHOUT}, ends with <|im_end|>, no clock"),
        (DROPS_SYSTEM, f"{WITHOUT}, ends with <|im_end|>, no clock"),
        (THINKING, r"answers begin behind '<think>\n\n</think>\n\n'"),
    ],
)
def test_one_line_on_the_template_and_every_row_is_scored(
    source: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where one title has 900 words."""
    caplog.set_level(logging.INFO)
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    write_table(Path("table.csv"), users=2, items=12)
    rows = pl.read_csv("table.csv")
    rows[3, "subject"] = "many words " * 450
    rows.write_csv("table.csv")
    write_params(Path(), folder, model__max_length=400)
    monkeypatch.setattr("spring.engine.cuts.register", lambda tell: told.append(tell))
    told: list[object] = []
    for stage in (ingest, split, model, score_base):
        run(stage, monkeypatch)
    [line] = [message for message in caplog.messages if message.startswith("template: ")]
    assert said in line
    scored = pl.concat(pl.read_parquet(f"data/score_base/{t}.parquet") for t in range(3))
    assert scored.height == 24 and scored["logp"].is_finite().all()
    assert len(told) == 1  # one row was cut, and it is told when the process ends


def test_a_template_that_cannot_be_followed_stops_the_first_stage_that_knows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "chat_template.jinja").write_text(PLAIN + "{{ [1, 2] | random }}", encoding="utf-8")
    write_params(Path(), folder)
    with pytest.raises(ModelError, match=r"chat template of .*model draws lots \(random\)"):
        run(model, monkeypatch)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template; choose an instruction-tuned model"):
        run(model, monkeypatch)


def test_what_is_said_of_a_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """36,000 = 320 x 32 once (tied) or twice, and 2 layers, counted by transformers itself."""
    caplog.set_level(logging.INFO, logger="tasks.model")
    write_params(Path(), folder, model__max_length=400)
    run(model, monkeypatch)
    size = make_model().num_parameters()
    assert caplog.messages == [
        f"model: {folder}, LlamaForCausalLM (llama), {size:,} parameters",
        "runs: on cpu in float32, texts of up to 400 tokens",
        "road: packed",
        "adapters: may lie on down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        "template: system turn, ends with <|im_end|>, no clock",
    ]


@pytest.mark.parametrize(
    ("file", "keys", "told"),
    [
        ("config.json", {"model_type": "frobnicator"}, "of the family 'frobnicator', which transformers "),
        ("config.json", {"model_type": None}, r"config\.json cannot be used \(it names no model_type\)"),
        ("config.json", {"num_attention_heads": "many"}, r"cannot be used \(Validation error .*'many'"),
        ("config.json", {"model_type": "t5"}, "of the family 't5', of which transformers has no model that"),
        ("tokenizer.json", {"model": None, "added_tokens": 1}, "has no tokenizer that can be read"),
    ],
)
def test_models_that_are_none_of_ours_are_refused_in_one_line(
    file: str, keys: dict[str, object], told: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = json.loads((folder / file).read_text()) | keys
    kept = {key: value for key, value in described.items() if value is not None}
    (folder / file).write_text(json.dumps(kept))
    write_params(Path(), folder)
    with pytest.raises(ModelError, match=told) as refusal:
        run(model, monkeypatch)
    assert "\n" not in str(refusal.value)


def test_a_hub_that_cannot_be_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at that port."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    write_params(Path(), folder, model__id="no-such-owner/no-such-model")
    with pytest.raises(ModelError, match=r"\(it cannot be reached, and no copy is on this machine\); use"):
        run(model, monkeypatch)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
@pytest.mark.parametrize(
    ("case", "prompt"),
    [
        ("dated", "system\nToday is 2026-01-01.\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"),
        ("thinking", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("no-system", "<|im_start|>user\nS\n\nU<|im_end|>\n"),
        ("drops-system", "<|im_start|>user\nS\n\nU<|im_end|>\n"),
    ],
)
def test_templates_from_the_field(case: str, prompt: str, folder: Path) -> None:
    source = (CASES / f"chat-templates/{case}.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    tokenizer, template = load_tokenizer(folder, model_id=case)
    assert prompt in tokenizer.decode(template.prompt("S", "U"))
    assert str(template).startswith(f"template: {WITHOUT}") == ("system" in case)


def test_an_encoder_that_cannot_be_followed_too(
    folder: Path, encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(Path(), folder, model__embedding=str(encoder(pooling="mean", modules=["Dense"])))
    with pytest.raises(ModelError, match="choose an encoder without Dense"):
        run(model, monkeypatch)


def test_the_date_is_in_every_key_once_it_is_not_the_usual_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the usual one the keys are those of before there was a date."""
    (folder / "chat_template.jinja").write_text(DATED, encoding="utf-8")
    write_params(Path(), folder)
    run(model, monkeypatch)
    usual = Experiment()
    assert sorted(usual.identity) == ["libraries", "model", "run"]
    write_params(Path(), folder, model__date="2024-02-03")
    other = Experiment()
    assert other.identity == {**usual.identity, "date": "2024-02-03"}
    for bench, words in ((usual, "01 Jan 2026"), (other, "03 Feb 2024")):
        tokens = bench.prompter.prompt("commit", json.dumps({"SUBJECT": "a cup"}))
        assert f"Today is {words}." in bench.base.tokenizer.decode(list(tokens))


def test_what_the_template_is_given_is_in_every_key_once_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is said the keys are those of before; thinking is then off."""
    (folder / "chat_template.jinja").write_text(FORMS["smollm3"].source, encoding="utf-8")
    write_params(Path(), folder)
    run(model, monkeypatch)
    usual = Experiment()
    assert sorted(usual.identity) == ["libraries", "model", "run"]
    write_params(Path(), folder, model__chat_template_kwargs={"enable_thinking": True})
    other = Experiment()
    assert other.identity == {**usual.identity, "chat_template_kwargs": {"enable_thinking": True}}
    for bench, words in ((usual, "/no_think"), (other, "/think")):
        tokens = bench.prompter.prompt("commit", json.dumps({"SUBJECT": "a cup"}))
        assert f"Reasoning Mode: {words}\n" in bench.base.tokenizer.decode(list(tokens))
    write_params(Path(), folder, model__chat_template_kwargs={"thinking": True})
    for refuse in (lambda: run(model, monkeypatch), lambda: Experiment().base):
        with pytest.raises(ModelError, match=r"chat_template_kwargs has thinking, which .* enable_thinking"):
            refuse()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"today": datetime.date(2026, 1, 1)}, r"today is datetime\.date.*: must be text, a number, true"),
        ({"heat": float("inf")}, "heat is inf: must be text, a number"),
        ({"deep": {"day": [datetime.date(2026, 1, 1)]}}, "deep must be text, a number"),
        ([1], r"model\.chat_template_kwargs is \[1\]"),
    ],
)
def test_what_json_has_no_word_for_is_refused(given: object, told: str, folder: Path) -> None:
    write_params(Path(), folder, model__chat_template_kwargs=given)
    with pytest.raises(ParameterError, match=told):
        load_params()


@pytest.mark.slow
def test_the_packaged_model_is_made_once_and_again_where_it_must_be(
    real_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def prepare(name: str, *, revision: str | None, folder: Path) -> None:
        made.append(name)
        shutil.copytree(real_folder, folder)

    monkeypatch.setattr("tasks.model.prepare", prepare)
    folder = tmp_path / "model"
    asked = Model.model_validate(
        {"id": PACKAGED, "revision": None, "device": "auto", "dtype": "auto", "embedding": "all-minilm-l6-v2"}
        | {"max_length": 768, "memory_gb": 1.5}
    )
    for _ in range(2):
        model.make_ready(asked, folder)
    assert made == [PACKAGED]
    config = folder / "config.json"
    config.write_text(config.read_text().replace("8192", "8193"))
    model.make_ready(asked, folder)  # something has changed it
    (folder / model.MADE_BY).write_text("older code")
    model.make_ready(asked, folder)
    (folder / "source.json").write_text(json.dumps({"id": "another", "revision": None, "digest": "0"}))
    model.make_ready(asked, folder)
    model.make_ready(asked, folder)
    assert made == [PACKAGED] * 4
