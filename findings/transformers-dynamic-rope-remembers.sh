#!/usr/bin/env bash
# Package: transformers 5.23.0 with torch 2.13.0 (CPU).
# Seen: with `rope_type: dynamic` a text's logits depend on the texts that the same model read before it. Beyond
#   `max_position_embeddings` the rotary module keeps the frequencies of the longest text so far, until one within the limit
#   comes: 20 tokens, read again after 40, have other logits; after 6 tokens they are back.
# Expected: logits that follow from the text alone.
# Why it matters here: likelihoods of users' texts are compared with each other, and would change with the order in which
#   users are read. spring/engine/roads.py makes the module forget before every call, and reads such texts by equal lengths.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.23.0" "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}
config = LlamaConfig(**sizes, max_position_embeddings=16, rope_parameters=rope, initializer_range=0.3)
model = LlamaForCausalLM(config).eval()
texts = {n: torch.randint(0, 64, (1, n)) for n in (6, 20, 40)}


@torch.no_grad()
def read(tokens):
    return model(texts[tokens], use_cache=False).logits


first = read(20)
read(40)
after_long = read(20)
read(6)
after_short = read(20)
long, short = ((x - first).abs().max().item() for x in (after_long, after_short))
print(f"20 tokens again after 40: logits differ by {long:.2f} (their spread is {first.std():.2f}); after 6: {short:.0e}")
assert long > 0.1 * first.std() and short < 1e-5, "this has changed"
PYTHON
echo "As described."
