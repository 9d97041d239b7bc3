#!/usr/bin/env bash
# Package: transformers 5.23.0 with torch 2.13.0 (CPU).
# Seen: `reorder_cache` of MiniMax's cache moves the rows of its attention layers and leaves those of its linear layers where
#   they were: afterwards each row goes on from its own keys and another row's state, without an error.
#   `batch_select_indices` of the same cache moves both.
# Expected: both operations move all that the cache holds of a row.
# Why it matters here: rows leave a batch and change places while they are decoded, as in beam search. Which operation a model's
#   cache can be trusted with is therefore tried before it is used (spring/engine/trials.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.23.0" "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import torch
from transformers import MiniMaxConfig, MiniMaxForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
sizes |= dict(num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1, block_size=8)
sizes |= dict(layer_types=["full_attention", "linear_attention"], initializer_range=0.3, max_position_embeddings=64)
model = MiniMaxForCausalLM(MiniMaxConfig(**sizes)).eval()
rows, token = torch.randint(0, 64, (2, 10)), torch.tensor([[5], [5]])


@torch.no_grad()
def turned(by):
    """Logits of both rows' next step, the rows having changed places in the cache `by` an operation."""
    cache = model(rows, use_cache=True).past_key_values
    order = torch.tensor([1, 0])
    if by is not None:
        getattr(cache, by)(order)
    logits = model(token, past_key_values=cache, use_cache=True).logits[:, -1]
    return logits if by is None else logits[order]


expected = turned(None)
off = {by: ((turned(by) - expected).abs().max() / expected.std()).item() for by in ("reorder_cache", "batch_select_indices")}
print("logits after two rows have changed places, in their spread:", {by: f"{x:.1e}" for by, x in off.items()})
assert off["reorder_cache"] > 0.1 and off["batch_select_indices"] < 1e-4, "this has changed"
PYTHON
echo "As described."
