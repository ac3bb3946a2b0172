"""Checkpoints of tiny models in other forms, and what their source computes."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from atlas.models.widened import widen_products


def source_logits(folder: Path, contexts: torch.Tensor, dtype=torch.float32) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    widen_products(model, torch.device("cpu"))  # as this machine computes
    with torch.inference_mode():
        return model(contexts).logits


def write_gguf(source: Path, target: Path, more: dict[str, np.ndarray] | None = None) -> Path:
    """The tiny Llama as llama.cpp would store it (unquantised), with `more` tensors."""
    config = json.loads((source / "config.json").read_text())
    weights = {name: value.numpy() for name, value in load_file(source / "model.safetensors").items()}
    target.parent.mkdir()
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = AutoTokenizer.from_pretrained(source).get_vocab()
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(vocabulary, key=vocabulary.get)
    tokens[3] = "<|endoftext|>"  # a tokenizer of this kind adds it when it is absent
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 6 + [1] * 256)  # control tokens, then normal ones
    writer.add_token_scores([0.0] * len(vocabulary))  # no merges can be written, and none follow from these
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, value in weights.items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if heads:  # the format interleaves the halves that rotary embeddings pair
            rows = value.shape[0] // config[heads] // 2
            value = value.reshape(config[heads], 2, rows, -1).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), value.copy())
    for name, value in (more or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
