#!/usr/bin/env bash
# Package: transformers 5.23.0 with torch 2.13.0 (CPU), without mamba-ssm and causal-conv1d.
# Seen: Mamba in bfloat16 cannot be run on a processor: the forward pass raises "expected m1 and m2 to have the same dtype".
#   FalconMamba, nearly the same model, and Mamba 2 run.
# Expected: the implementation without kernels takes the model's own number format, as those of the other two do.
# Why it matters here: a model that is read in float32 is right (docs/models.md), so it must be refused in bfloat16 with
#   `model.dtype: float32` as the remedy, and not as a family that cannot be used.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.23.0" "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import torch
from transformers import AutoConfig, AutoModelForCausalLM

small = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8)
KINDS = {"mamba": {}, "falcon_mamba": {}, "mamba2": dict(num_heads=8, head_dim=8, n_groups=1)}


def runs(kind, dtype):
    """What a forward pass says."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small, **KINDS[kind])).to(dtype).eval()
    try:
        with torch.no_grad():
            model(torch.arange(8)[None], use_cache=False)
    except RuntimeError as error:
        return str(error).split(",")[0]
    return "runs"


found = {(kind, dtype): runs(kind, dtype) for kind in KINDS for dtype in (torch.float32, torch.bfloat16)}
for (kind, dtype), said in found.items():
    print(f"{kind} in {dtype}: {said}")
failing = [kind for (kind, dtype), said in found.items() if said != "runs" and dtype == torch.bfloat16]
assert failing == ["mamba"] and all(found[kind, torch.float32] == "runs" for kind in KINDS), "this has changed"
PYTHON
echo "As described."
