"""Two tasks' prompts, a query with its context, and what the chat template makes of them."""

from __future__ import annotations

import json
from typing import Any

from spring.method.prompts import Prompt, Prompter

PROMPTS = {
    "abstract": Prompt(system="You are an abstract writer.", user="Generate an abstract for '{TITLE}'."),
    "commit": Prompt(system="You are a developer.", user="Subject {SUBJECT}, by {NAME}"),
}
QUERY = json.dumps({"TITLE": "Adapters"})
CONTEXT = [
    (json.dumps({"TITLE": "Memory"}), "we propose a method"),
    (json.dumps({"TITLE": "Drift"}), "it works"),
]
REQUEST = "<|im_start|>system\nYou are an abstract writer.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
ANSWERED = REQUEST + "<|im_start|>assistant\n"
BARE = ANSWERED.format("Generate an abstract for 'Adapters'.")


def prompter(tokenizer: Any, *, max_length: int = 400) -> Prompter:
    return Prompter(tokenizer, PROMPTS, max_length)
