"""Checkpoints of tiny models in other forms, and what their source computes."""

from pathlib import Path

import numpy as np
import torch
from gguf_files import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from atlas.models.widened import widen_products


def source_logits(folder: Path, contexts: torch.Tensor, dtype=torch.float32) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    widen_products(model, torch.device("cpu"))  # as this machine computes
    with torch.inference_mode():
        return model(contexts).logits


def tiny_gguf(source: Path, target: Path, more: dict[str, np.ndarray] | None = None) -> Path:
    """The tiny Llama as a GGUF file, with its own vocabulary, and with `more` tensors."""
    vocabulary = AutoTokenizer.from_pretrained(source).get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    tokens[3] = "<|endoftext|>"  # a tokenizer of this kind adds it when it is absent
    return write_gguf(source, target, tokens, [3] * 6 + [1] * 256, "gpt-2", more)
