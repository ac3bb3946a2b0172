"""Names of tensors in other tools, as hook points of ours; None where ours has no such place."""

import re

from atlas.hook_points import HookPoint

_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "mlp.hook_in": "mlp_in",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_out": "mlp_out",
    "hook_attn_out": "attn_out",
}
_MODULES = {
    "": "resid_post",
    "mlp": "mlp_out",
    "self_attn": "attn_out",
    "attn": "attn_out",
    "attention": "attn_out",
    "pre_feedforward_layernorm": "mlp_in",
    "post_feedforward_layernorm": "mlp_out",
    "post_attention_layernorm": None,  # the MLP's input in Llama, attention's output in Gemma
}
_BLOCKS = re.compile(r"blocks\.(\d+)\.(.+)")
_LAYERS = re.compile(r"(?:model\.|transformer\.|gpt_neox\.|backbone\.)*(?:layers|h)\.(\d+)(?:\.(.+?))?(?:\.output)?")


def hook_of(name: str | None) -> str | None:
    """``blocks.3.hook_resid_post``, ``model.layers.3.output``, ``layers.3`` or ``resid_post.3`` as ``resid_post.3``."""
    if name is None:
        return None
    try:
        return str(HookPoint.parse(name))
    except ValueError:
        pass
    if match := _BLOCKS.fullmatch(name):
        site = _TRANSFORMER_LENS.get(match[2])
    elif match := _LAYERS.fullmatch(name):
        module = match[2] or ""
        site = _MODULES.get("" if module == "output" else module)
    else:
        return None
    return None if site is None else f"{site}.{int(match[1])}"
