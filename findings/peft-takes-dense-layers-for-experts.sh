#!/usr/bin/env bash
# Package: peft 0.21.2 with transformers 5.23.0 and torch 2.13.0 (CPU).
# Seen: in a mixture of experts that has blocks without experts too (Qwen 3 MoE with `mlp_only_layers`, DeepSeek V3's first
#   layers), `target_modules=["gate_proj", "up_proj", "down_proj"]` lies on the experts alone: the names are rewritten to the
#   experts' stacked parameters, and the `gate_proj`, `up_proj` and `down_proj` of dense blocks, which are ordinary linear layers
#   of just these names, get no adapter. Their full names are rewritten as well: `model.layers.0.mlp.down_proj`, a dense block's,
#   becomes the experts' of the whole model. Nothing is said.
# Expected: linear layers that bear a target's name are targets, whatever else is.
# Why it matters here: an adapter that was trained on a dense block is loaded onto other weights. Folders written here name such
#   layers by their weights (`target_parameters`), which are left alone (spring/engine/peft.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "peft==0.21.2" "transformers==5.23.0" "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
from peft import LoraConfig, get_peft_model
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

sizes = dict(vocab_size=64, hidden_size=16, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=2)
sizes |= dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2)


def trained(targets):
    """Where adapters lie: layer 0 is dense, layer 1 has experts."""
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, mlp_only_layers=[0]))
    assert "model.layers.0.mlp.down_proj" in dict(model.named_modules())
    config = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", lora_dropout=0.0)
    names = [n for n, weight in get_peft_model(model, config).named_parameters() if weight.requires_grad]
    return sorted({name.split(".lora_")[0].removeprefix("base_model.model.model.") for name in names})


for targets in (["gate_proj", "up_proj", "down_proj"], ["model.layers.0.mlp.down_proj"], ["q_proj"]):
    found = trained(targets)
    print(f"{targets}: {found}")
    if targets != ["q_proj"]:
        assert found and all("layers.1.mlp.experts" in name for name in found), "this has changed"
PYTHON
echo "As described."
