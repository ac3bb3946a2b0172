"""GGUF files as llama.cpp writes them, of tiny models."""

import json
from pathlib import Path
from typing import Any

import gguf
from safetensors.torch import load_file


def write_gguf(
    source: Path,
    target: Path,
    tokens: list[str],
    types: list[int],
    pre: str | None,
    more: dict[str, Any] | None = None,
    **tokenizer: Any,
) -> Path:
    """The tiny Llama of the folder `source`, unquantised, with a byte-level vocabulary.

    `types` are the format's (1 normal, 3 control); `pre` names the rule of splitting; `more` are arrays that
    are stored beside the weights; `tokenizer` may hold `merges`.
    """
    config = json.loads((source / "config.json").read_text())
    weights = {name: value.numpy() for name, value in load_file(source / "model.safetensors").items()}
    target.parent.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if "merges" in tokenizer:
        writer.add_token_merges(tokenizer["merges"])
    else:
        writer.add_token_scores([0.0] * len(tokens))  # no merges can be written, and none follow from these
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
