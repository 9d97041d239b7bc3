"""What else runs on the device beside the model: retrieval, dropout masks, the sentence encoder."""

from __future__ import annotations

import numpy as np
import torch

from bench.gpu.checks import FLOAT32, Check
from spring.engine.lowrank import draw, least


def retrieval() -> Check:
    """Cosines of the index, on a GPU where faiss sees one, against numpy."""
    import faiss

    from spring.method.retrieval import Dense

    draw = np.random.default_rng(0)
    documents, query = draw.standard_normal((200, 384)), draw.standard_normal(384)
    expected = documents @ query / np.linalg.norm(documents, axis=1) / np.linalg.norm(query)
    error = float(np.abs(Dense(documents).scores("", query) - expected).max())
    where = "GPU" if faiss.get_num_gpus() > 0 else "processor"
    return Check(f"retrieval by faiss on the {where}", "-", "float32", "-", error, 1e-5)


def dropout(device: torch.device) -> list[Check]:
    """Masks keep the share that they should, and are of their seed alone."""
    p = 0.05
    one, again, other = (draw(4000, 256, seed=seed, device=device) >= least(p) for seed in (3, 3, 4))
    kept = abs(float(one.float().mean()) - (1 - p))
    alike = float((one == other).float().mean())  # 0.905 of two that know nothing of each other
    return [
        Check("dropout: share kept", "-", "float32", "-", kept, 2e-3),
        Check("dropout: the same seed", "-", "float32", "-", float(not torch.equal(one, again)), 0.0),
        Check("dropout: another seed", "-", "float32", "-", abs(alike - (p**2 + (1 - p) ** 2)), 2e-3),
    ]


def encoder(device: torch.device) -> Check:
    """Sentence embeddings on the device in batches, against the processor one by one."""
    from spring.engine.embedding import PACKAGED, Embedder

    texts = [f"{'a review of a camera and what came with it ' * (1 + i % 7)}{i}" for i in range(20)]
    name = next(iter(PACKAGED))
    there = Embedder(name, device="cuda" if device.type == "cuda" else "cpu").embed(texts)
    here = Embedder(name, device="cpu", batch_size=1).embed(texts)
    return Check("sentence encoder", name, "float32", "-", float(np.abs(there - here).max()), FLOAT32)
