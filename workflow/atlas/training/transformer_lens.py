"""Names of hook points in TransformerLens, for SAEs in files that its tools read.

Names are those of its `TransformerBridge` (3.9.0), compared tensor by tensor on tiny models of each kind.
Its older `HookedTransformer` has the same names of residual stream, `hook_mlp_out` and `hook_attn_out` with the same
meaning in decoders, and none of the others: a tool that looks for one of those there finds nothing, not another tensor.
"""

from atlas.hook_points import HookPoint

_DECODER = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    # Not hook_mlp_in, which lies before the norm.
    "mlp_in": "mlp.hook_in",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
}
# Blocks that end in a norm. In HookedEncoder hook_resid_post lies before it, in the bridge after it; hook_attn_out is
# before the residual is added in the one, and after the norm of the sum in the other.
_BERT = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_out",
    "mlp_in": "mlp.in.hook_in",
    "mlp_out": "hook_mlp_out",
    "attn_out": "attn.o.hook_out",
}
# One mixer in every block, whatever it is.
_NEMOTRON_H = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "mlp_in": "mixer.hook_in",
    "mlp_out": "mixer.hook_out",
    "attn_out": "mixer.hook_out",
}
# Encoders that TransformerLens does not know; None is an architecture that is not known here.
_WITHOUT_NAMES = ("roberta", "xlm-roberta", "camembert", "distilbert", None)


def transformer_lens_name(hook: str, architecture: str | None) -> str | None:
    """``resid_post.19`` of a Llama as ``blocks.19.hook_resid_post``; None where TransformerLens has no such tensor.

    `architecture` is the model's `model_type`.
    """
    if architecture in _WITHOUT_NAMES:
        return None
    sites = {"bert": _BERT, "nemotron_h": _NEMOTRON_H}.get(architecture, _DECODER)
    point = HookPoint.parse(hook)
    return f"blocks.{point.layer}.{sites[point.site]}"
