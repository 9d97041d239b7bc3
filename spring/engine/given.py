"""What a chat template is given besides the turns: `model.chat_template_kwargs`, if it reads them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from spring.engine.clock import source_of, tree_of
from spring.engine.weights import ModelError

THINKING = "enable_thinking"  # Qwen's word, which SmolLM, GLM, Gemma and others have taken over


def kwargs_of(tokenizer: Any, asked: Mapping[str, Any], *, model_id: str) -> dict[str, Any]:
    """What every conversation is written with: `asked`, and no thinking where that is left to us.

    Raises `ModelError` for a name that the template does not read.
    """
    read = names_read(tokenizer, model_id)
    unknown = [name for name in asked if name not in read]
    if unknown:
        instead = f"it reads {', '.join(sorted(read))}" if read else "it reads nothing besides the turns"
        raise ModelError(
            f"model.chat_template_kwargs has {', '.join(unknown)}, which the chat template of {model_id} "
            f"does not read; {instead}"
        )
    return {**({THINKING: False} if THINKING in read else {}), **asked}


def names_read(tokenizer: Any, model_id: str) -> set[str]:
    """Variables that a template leaves to whoever calls it, without those that transformers gives it.

    What it sets itself is among them only where it asks first whether somebody else has.
    """
    from jinja2 import meta, nodes

    tree = tree_of(source_of(tokenizer, model_id))
    set_there = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    asked = [node.node for node in tree.find_all(nodes.Test) if node.name in ("defined", "undefined")]
    asked += [node.node for node in tree.find_all(nodes.Filter) if node.name in ("default", "d")]
    left = set_there - {node.name for node in asked if isinstance(node, nodes.Name)}
    theirs = inspect.signature(tokenizer.apply_chat_template).parameters  # tools, add_generation_prompt, ...
    given = {"messages", *theirs, *tokenizer.special_tokens_map, *tree.environment.globals}
    return set(meta.find_undeclared_variables(tree)) - left - given
