"""Tensors of a model by TransformerLens' names: a plain script for the peer's environment.

    PYTHON -I transformer_lens_tensors.py JOBS.json

JOBS is a list of `model`, a folder as transformers saves it, `masked`, whether its head is BERT's, `ids`, a
safetensors file with `ids`, and `target`, which receives every tensor of block 1 of the residual stream's width.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

for job in json.loads(Path(sys.argv[1]).read_text()):
    kind = AutoModelForMaskedLM if job["masked"] else AutoModelForCausalLM
    model = kind.from_pretrained(job["model"], attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    bridge = TransformerBridge.boot_transformers("tiny", hf_model=model, tokenizer=tokenizer, device="cpu")
    with torch.no_grad():
        _, cache = bridge.run_with_cache(load_file(job["ids"])["ids"])
    own = {name: cache[name] for name in cache if name.startswith("blocks.1.") and torch.is_tensor(cache[name])}
    save_file({name: tensor.float().clone().contiguous() for name, tensor in own.items()}, job["target"])
