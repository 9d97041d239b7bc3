#!/usr/bin/env bash
# Package: peft 0.21.2 with transformers 5.23.0 and torch 2.13.0 (CPU).
# Seen: `get_peft_model_state_dict(model, adapter_name="0")` of a model with the adapters "0" and "1" lacks the tensors of
#   layer 1: a key counts as the other adapter's as soon as `.1` stands anywhere in it, and so does `layers.1`. Nothing is
#   said, and `save_pretrained` writes the same cut file.
# Expected: all tensors of the adapter, whatever its name; or a refusal of names that can be mistaken for a part of a key.
# Why it matters here: one adapter a user, named by number, is the first thing one writes. Half of each is lost on saving.
#   Adapters here are written from their own tensors (spring/engine/lora.py), not picked out of a model by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "peft==0.21.2" "transformers==5.23.0" "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM


def layers(names):
    """Which layers the first adapter's tensors are of, when the adapters have these names."""
    sizes = dict(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**sizes)), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    state = get_peft_model_state_dict(model, adapter_name=names[0])
    return sorted({int(key.split("layers.")[1].split(".")[0]) for key in state})


for names in (["0"], ["ann", "ben"], ["0", "1"], ["0", "1", "2"]):
    print(f"adapters {names}: the first has layers {layers(names)}")
assert layers(["0"]) == layers(["ann", "ben"]) == [0, 1, 2], "this has changed"
assert layers(["0", "1"]) == [0, 2] and layers(["0", "1", "2"]) == [0], "this has changed"
PYTHON
echo "As described."
