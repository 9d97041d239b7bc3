#!/usr/bin/env bash
# sentence-transformers 6.2.0 (with transformers 5.23.0, torch 2.13.0).
#
# Seen: an encoder's folder declares prompts for queries and passages, as E5 and its kind do:
#     config_sentence_transformers.json: {"prompts": {"query": "query: ", "passage": "passage: "}}
# encode_query puts "query: " before a text, but encode_document puts nothing before it: the names it looks for are
# document, passage and corpus, in that order, and a model that declares no `document` prompt gets an empty one of
# that name on loading, which is then found first. Declared for encode_document are "passage: " and silence.
# Expected: the declared passage prompt, which encode_document's own documentation names as the second choice.
# Why it matters here: documents are then embedded otherwise than the encoder was trained for, without a word, and
# retrieval compares prefixed queries with bare documents. Whoever compares an own reader of such folders with
# sentence-transformers must pass the prompt by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder/encoder" <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

folder = Path(sys.argv[1])
folder.mkdir()
torch.manual_seed(0)
words = ["[PAD]", "[UNK]", "query", "passage", ":", "red", "cup"]
sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
BertModel(BertConfig(vocab_size=len(words), initializer_range=0.3, **sizes)).save_pretrained(folder)
plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
modules = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
prompts = {"query": "query: ", "passage": "passage: "}
(folder / "1_Pooling").mkdir()
said = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
(folder / "1_Pooling/config.json").write_text(json.dumps(said))
(folder / "modules.json").write_text(json.dumps(modules))
(folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))

model = SentenceTransformer(str(folder), device="cpu")
print("declared:", prompts)
print("on loading:", model.prompts)


def same(one, other):
    return bool(np.allclose(one, other, atol=1e-6))


text = "red cup"
bare, query, passage = (model.encode(before + text, prompt="") for before in ("", "query: ", "passage: "))
assert not same(bare, passage), "or nothing could be told"
print("encode_query reads the query prompt:", same(model.encode_query(text), query))
print("encode_document reads the passage prompt:", same(model.encode_document(text), passage))
print("encode_document reads the bare text:", same(model.encode_document(text), bare))
assert same(model.encode_query(text), query), "this has changed"
assert same(model.encode_document(text), bare), "this has changed"
PYTHON
