#!/usr/bin/env bash
# Package: transformers 5.23.0 with torch 2.13.0 (CPU).
# Seen: in the layers of Llama 4 that have no rotary positions, queries are scaled by their position
#   (`attn_temperature_tuning`), and the position is counted from the first column of the batch: neither `position_ids` nor
#   the attention mask are asked. A left-padded row, as `generate` wants it, gets the scale of a longer one. Published
#   models step at 8,192 tokens (`floor_scale`); the small one here at 8.
# Expected: the row's own positions, as its rotary layers use them, so that a row is the same alone and in a batch.
# Why it matters here: the road that a model takes is found by comparing rows in a batch with rows alone, on twins that are
#   small in every number. Llama 4 decodes prompts of equal lengths together because of this (docs/models.md).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.23.0" "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import torch
from transformers import Llama4ForCausalLM, Llama4TextConfig


def differ(tuning):
    """How far a row's last logits move when 5 padded columns stand before it."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=32, intermediate_size_mlp=32, head_dim=8)
    sizes |= dict(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, num_local_experts=2)
    sizes |= dict(max_position_embeddings=64, attention_chunk_size=64, initializer_range=0.3)
    config = Llama4TextConfig(**sizes, no_rope_layers=[1, 1, 1, 0], attn_temperature_tuning=tuning, floor_scale=8)
    model = Llama4ForCausalLM(config).eval()
    row = torch.randint(1, 64, (1, 12))
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), row], 1)
    mask = (torch.arange(17) >= 5).long()[None]
    with torch.no_grad():
        alone = model(row, use_cache=False).logits[0, -1]
        given = dict(attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False)
        behind = model(padded, **given).logits[0, -1]
    return ((alone - behind).abs().max() / alone.std()).item()


on, off = differ(True), differ(False)
print(f"padding before a row moves its logits by {on:.1e} of their spread; without the tuning by {off:.1e}")
assert on > 1e-3 and off < 1e-5, "this has changed"
PYTHON
echo "As described."
