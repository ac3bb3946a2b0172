"""Modules that hold the hook sites of each architecture.

Every architecture is one row of a registry keyed by the model's `config.model_type`. Adding one takes the names of
its list of blocks, of its final norm and of the modules of a block, and an audit that passes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from atlas.errors import AtlasError
from atlas.hook_points import HookPoint


@dataclass(frozen=True)
class ModuleTensor:
    """A tensor of the forward pass: what goes into `module`, or what comes out of it."""

    module: nn.Module
    side: Literal["input", "output"]


# Path of the module inside its block, and the side of it.
Sites = dict[str, tuple[str, Literal["input", "output"]]]
Head = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Adapter:
    """Names of one architecture's modules.

    `blocks` and `final_norm` are paths inside the base model (the model without its head). `final_norm` is None where
    the last block's output is the model's output. `sites` gives the sites inside one block; blocks of a hybrid model
    differ. `heads` maps an objective to the function from the final hidden state to logits. `unused_positions` is how
    many of the embedded positions no token gets.
    """

    blocks: str
    final_norm: str | None
    sites: Callable[[nn.Module], Sites]
    heads: dict[str, Head]
    unused_positions: Callable[[PretrainedConfig], int] = lambda config: 0


def find_adapter(model_type: str) -> Adapter:
    """The adapter of an architecture; raises AtlasError that says how to add one."""
    if model_type not in _ADAPTERS:
        raise AtlasError(
            f"architecture {model_type!r} (model_type in config.json) has no adapter: must be one of "
            f"{sorted(_ADAPTERS)}. To add it, register the names of its blocks, its final norm, and the MLP and the "
            "attention of a block in atlas/models/adapters.py; then run its audit"
        )
    return _ADAPTERS[model_type]


def get_blocks(model: PreTrainedModel, adapter: Adapter) -> nn.ModuleList:
    """The model's blocks, first to last."""
    return model.base_model.get_submodule(adapter.blocks)


def longest_context(config: PretrainedConfig) -> int | None:
    """Tokens of the longest context that the model has positions for; None where its configuration names no limit."""
    limit = getattr(config, "max_position_embeddings", None)
    return None if limit is None else limit - find_adapter(config.model_type).unused_positions(config)


def has_experts(config: PretrainedConfig) -> bool:
    """Return whether blocks choose among experts: a choice that rounding can turn."""
    return any(getattr(config, key, None) for key in ("num_experts", "num_local_experts", "n_routed_experts"))


def find_place(model: PreTrainedModel, adapter: Adapter, hook: str) -> ModuleTensor:
    """The tensor that `hook` means in `model`.

    `resid_pre` and `resid_post` are a block's input and output. `mlp_out` and `attn_out` are what the MLP and the
    attention add to the residual stream (after a norm of their own where the architecture has one there), `mlp_in`
    is what goes into the MLP, after its norm. Raises AtlasError when the model or this block of it has no such place.
    """
    point = HookPoint.parse(hook)
    blocks = get_blocks(model, adapter)
    model_type = model.config.model_type
    if point.layer >= len(blocks):
        raise AtlasError(f"hook {hook!r}: this {model_type} model has layers 0 to {len(blocks) - 1}")
    block = blocks[point.layer]
    if point.is_residual:
        return ModuleTensor(block, "input" if point.site == "resid_pre" else "output")
    sites = adapter.sites(block)
    if point.site not in sites:
        kind = getattr(block, "block_type", type(block).__name__)
        raise AtlasError(
            f"hook {hook!r}: block {point.layer} of this {model_type} model is of type {kind!r} and has no "
            f"{point.site}: must be one of {['resid_pre', 'resid_post', *sites]}, or a block of another type"
        )
    path, side = sites[point.site]
    return ModuleTensor(block.get_submodule(path), side)


def apply_head(
    model: PreTrainedModel, adapter: Adapter, objective: str, hidden: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*units n_outputs"]:
    """Logits from the final hidden state; raises AtlasError when the objective has none or no head is registered."""
    if objective not in adapter.heads:
        raise AtlasError(
            f"a {model.config.model_type} model prepared for objective {objective!r} has no logits: "
            f"must be one of {sorted(adapter.heads) or 'none'}, or register its head in atlas/models/adapters.py"
        )
    return adapter.heads[objective](model, hidden)


def soft_cap(model: PreTrainedModel) -> float | None:
    """The bound that the model's logits are bent to (Gemma 2); None where they are a linear function."""
    return getattr(model.config, "final_logit_softcapping", None)


def bend_logits(model: PreTrainedModel, logits: Float[Tensor, "*rows tokens"]) -> Float[Tensor, "*rows tokens"]:
    """Return what the model makes of the products with its vocabulary: mostly the same."""
    cap = soft_cap(model)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _embedding_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return bend_logits(model, model.get_output_embeddings()(hidden))


def _bert_masked_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.cls(hidden)


# All heads for classes read the first position alone.
CLASS_POSITION = 0


def _bert_class_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.classifier(model.base_model.pooler(hidden))


def _roberta_masked_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.lm_head(hidden)


def _roberta_class_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.classifier(hidden)


def _distilbert_masked_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))))


def _distilbert_class_head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.classifier(torch.relu(model.pre_classifier(hidden[:, 0])))


def _same_in_every_block(block: nn.Module, sites: Sites) -> Sites:
    return sites


def _decoder(
    mlp: str, attention: str, mlp_norm: str | None = None, attention_norm: str | None = None, **names
) -> Adapter:
    """A decoder with an MLP and an attention in every block; the `_norm`s stand between them and the residual."""
    sites: Sites = {
        "mlp_in": (mlp, "input"),
        "mlp_out": (mlp_norm or mlp, "output"),
        "attn_out": (attention_norm or attention, "output"),
    }
    return Adapter(sites=partial(_same_in_every_block, sites=sites), heads={"causal_lm": _embedding_head}, **names)


def _encoder(sites: Sites, masked: Head, classes: Head, blocks: str = "encoder.layer") -> Adapter:
    """An encoder whose blocks end in a norm: the residual stream is the normed sum, the last one is the output."""
    heads = {"masked_lm": masked, "sequence_classification": classes}
    return Adapter(blocks, None, partial(_same_in_every_block, sites=sites), heads)


def _nemotron_h_sites(block: nn.Module) -> Sites:
    """Each block is one mixer: Mamba, attention, MLP or mixture of experts."""
    if block.block_type in ("mlp", "moe"):
        return {"mlp_in": ("mixer", "input"), "mlp_out": ("mixer", "output")}
    if block.block_type == "full_attention":
        return {"attn_out": ("mixer", "output")}
    return {}


_LLAMA = _decoder("mlp", "self_attn", blocks="layers", final_norm="norm")
# These norm what the MLP and the attention add, so the addition to the residual stream is the norm's output.
_POST_NORM = _decoder(
    "mlp", "self_attn", "post_feedforward_layernorm", "post_attention_layernorm", blocks="layers", final_norm="norm"
)
# In BERT's blocks `output` and `attention.output` add the residual and norm the sum; the addition is their `dense`.
_BERT_SITES: Sites = {
    "mlp_in": ("intermediate", "input"),
    "mlp_out": ("output.dense", "output"),
    "attn_out": ("attention.output.dense", "output"),
}
# Positions are counted from the one after that of padding.
_ROBERTA = replace(
    _encoder(_BERT_SITES, _roberta_masked_head, _roberta_class_head),
    unused_positions=lambda config: config.pad_token_id + 1,
)
_DISTILBERT_SITES: Sites = {
    "mlp_in": ("ffn", "input"),
    "mlp_out": ("ffn", "output"),
    "attn_out": ("attention", "output"),
}

_ADAPTERS: dict[str, Adapter] = {
    **dict.fromkeys(("llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "phi3", "olmo", "smollm3"), _LLAMA),
    **dict.fromkeys(("stablelm", "starcoder2", "nemotron", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4"), _POST_NORM),
    "phi": _decoder("mlp", "self_attn", blocks="layers", final_norm="final_layernorm"),
    "gpt_neox": _decoder("mlp", "attention", blocks="layers", final_norm="final_layer_norm"),
    "gpt2": _decoder("mlp", "attn", blocks="h", final_norm="ln_f"),
    "nemotron_h": Adapter("layers", "norm_f", _nemotron_h_sites, {"causal_lm": _embedding_head}),
    "bert": _encoder(_BERT_SITES, _bert_masked_head, _bert_class_head),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _ROBERTA),
    "distilbert": _encoder(
        _DISTILBERT_SITES, _distilbert_masked_head, _distilbert_class_head, blocks="transformer.layer"
    ),
}
