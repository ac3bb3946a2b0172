"""Refuse SAEs that SAE Bench cannot judge; free of heavy imports, because rules are made from it."""

from atlas.hook_points import HookPoint

# Sites that TransformerLens has under the name that SAELens files give them.
_SITES = ("resid_pre", "resid_post", "mlp_out", "attn_out")


def refusal(hook: str, target_hook: str | None, objective: str) -> str | None:
    """Return why SAE Bench cannot judge an SAE at `hook`; None: it can be tried."""
    if target_hook is not None:
        return "a transcoder: SAE Bench puts the reconstruction where the row was read"
    if objective != "causal_lm":
        return f"objective {objective}: SAE Bench measures the loss of next tokens"
    site = HookPoint.parse(hook).site
    if site not in _SITES:
        return f"{site} is no tensor of TransformerLens, whose hook of that name lies before the normalisation"
    return None
