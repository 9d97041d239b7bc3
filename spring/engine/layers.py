"""What a model can be asked for: layers that adapters lie on (`q_proj`), and how long a text may be."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spring.engine.device import ModelError
from spring.engine.folders import read_config


def decoder_of(model: Any) -> Any:
    """What makes last hidden states of tokens."""
    found = model.get_decoder()
    if found is not model and hasattr(found, "get_input_embeddings"):
        return found
    inner = [part for part in model.children() if hasattr(part, "get_input_embeddings")]  # Llama 4 names none
    if not inner:
        raise ModelError(f"{type(model).__name__} has no decoder apart from its output layer")
    return inner[0]


def decoded(model: Any, **given: Any) -> Any:
    """Calls the decoder with what it takes of `given`."""
    decoder = decoder_of(model)
    takes = signature(decoder.forward).parameters
    return decoder(**{name: value for name, value in given.items() if name in takes})


def layers_of(model: Any) -> dict[str, nn.Module]:
    """The linear layers of a model's decoder by name: the output layer is none of them."""
    inside = set(decoder_of(model).modules())
    return {n: module for n, module in model.named_modules() if module in inside and is_linear(module)}


def decoder_layers(model: Any) -> nn.ModuleList:
    """The layers of a decoder, one behind the other."""
    found = [part for part in decoder_of(model).children() if isinstance(part, nn.ModuleList)]
    if not found:
        raise ModelError(f"{type(model).__name__} has no list of decoder layers")
    return found[0]


def is_linear(module: nn.Module) -> bool:
    """Whether this is y = W x + b; GPT-2's Conv1D is one, whose weight lies the other way round."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def widths(linear: Any) -> tuple[int, int]:
    """Of the inputs and the outputs of a linear layer."""
    if isinstance(linear, nn.Linear):
        return linear.in_features, linear.out_features
    inputs, outputs = linear.weight.shape
    return int(inputs), int(outputs)


def leaf(name: str) -> str:
    """The last part of a module's name: `q_proj`."""
    return name.rpartition(".")[2]


@torch.no_grad()
def reached(model: Any) -> dict[str, nn.Module]:
    """The linear layers that make one vector of one for each token of a text, by name.

    A tower for images is given none; experts, rows of their own choice; a router gives something else.
    """
    tokens, seen = 7, {name: [0, 0] for name in layers_of(model)}

    def look(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], made: Any) -> None:
            fits = isinstance(made, Tensor) and inputs[0].numel() == tokens * inputs[0].shape[-1]
            seen[name][fits] += 1

        return hook

    handles = [layer.register_forward_hook(look(name)) for name, layer in layers_of(model).items()]
    try:
        model(input_ids=torch.arange(1, tokens + 1, device=model.device)[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    odd = {leaf(name) for name, (other, _) in seen.items() if other}
    fit = {n: layer for n, layer in layers_of(model).items() if seen[n][1] and not leaf(n).isdigit()}
    return {name: layer for name, layer in fit.items() if leaf(name) not in odd}


def read_outline(folder: Path, *, key: str = "model.id") -> Any:
    """The model that a folder describes, without its weights; `ModelError` where transformers has none."""
    from transformers import AutoModelForCausalLM

    config = read_config(folder, key=key)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError:
        raise ModelError(
            f"{key}: {folder} is of the family {config.model_type!r}, of which transformers has no model "
            f"that goes on with a text (AutoModelForCausalLM); choose one of a family that does"
        ) from None


def described(model: Any) -> str:
    """Class, family and size of a model: `LlamaForCausalLM (llama), 134,515,008 parameters`."""
    size = sum(weights.numel() for weights in model.parameters())
    return f"{type(model).__name__} ({model.config.model_type}), {size:,} parameters"


def check_positions(folder: Path, max_length: int) -> None:
    """Raises `ModelError` if `max_length` is beyond what the model of `folder` reads, both in tokens."""
    config = read_config(folder).get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if most and max_length > most:
        raise ModelError(
            f"model.max_length is {max_length} tokens, and the model reads {most}: take at most that, less "
            f"what retrieved context adds to it"
        )
