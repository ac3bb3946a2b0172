"""Summands of a logit add up to it, and are what a small change of a latent does."""

import pytest
import torch
from drawn_sae import draw_sae, hooks_of
from test_adapters import DECODERS, build

from atlas.causal import attribution
from atlas.causal.attribution import attribute
from atlas.errors import AtlasError, CausalError
from atlas.models.adapters import apply_head, find_place
from atlas.models.forward import edited


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(6, 64, (10,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("model_type", DECODERS)
def test_summands_add_up_to_the_logit_at_every_hook(model_type, tokens):
    loaded, sae = build(model_type), draw_sae()
    for hook in hooks_of(loaded):
        found = attribute(loaded, sae, hook, tokens, 7, 11)
        assert abs(found.total - found.logit) < 1e-4, hook
        assert not found.latents[8:].any() and not found.error[8:].any()  # what comes later has no part in it


@pytest.mark.parametrize("model_type", sorted(set(DECODERS) - {"gemma2"}))
def test_nothing_is_left_over_where_only_norm_and_head_follow(model_type, tokens):
    loaded, sae = build(model_type), draw_sae()
    last = loaded.identity["n_layers"] - 1
    found = attribute(loaded, sae, f"resid_post.{last}", tokens, 7, 11)
    norm, head = loaded.base.get_submodule(loaded.adapter.final_norm), loaded.model.get_output_embeddings()
    constant = 0.0 if head.bias is None else float(head.bias[11])
    if getattr(norm, "bias", None) is not None:
        constant += float(norm.bias @ head.weight[11])
    assert abs(found.rest - constant) < 1e-4
    assert abs(float(found.latents.sum() + found.bias.sum() + found.error.sum()) - found.logit + constant) < 1e-4
    assert abs(found.logit) > 1e-3


def test_in_float64_they_add_up_far_better(tokens):
    loaded, sae = build("gpt_neox"), draw_sae()
    loaded.model.double()
    for hook in hooks_of(loaded):
        found = attribute(loaded, sae, hook, tokens, 7, 11)
        assert abs(found.total - found.logit) < 1e-12
    found = attribute(loaded, sae, "resid_post.2", tokens, 7, 11)
    assert abs(found.rest) < 1e-12


@pytest.mark.parametrize("hook", ["resid_post.0", "mlp_out.1", "mlp_in.0-to-mlp_out.1"])
def test_a_contribution_is_the_slope_of_the_logit_in_its_latent(hook, tokens):
    loaded, sae = build("gpt_neox"), draw_sae(is_transcoder="-to-" in hook)
    loaded.model.double()
    found = attribute(loaded, sae, hook, tokens, 7, 11, hold_norm=False)
    (position, latent, value), *_ = found.strongest(1)
    target = hook.split("-to-")[-1]
    activation = {}

    def logit(amount: float) -> float:
        def add(tensor):
            tensor = tensor.clone()
            tensor[0, position] += amount * sae.W_dec[latent].double()
            return tensor

        with torch.no_grad(), edited(find_place(loaded.model, loaded.adapter, target), add):
            hidden = loaded.base(input_ids=tokens[None], use_cache=False).last_hidden_state
            return float(apply_head(loaded.model, loaded.adapter, "causal_lm", hidden)[0, 7, 11])

    def see(tensor):
        activation["value"] = float(sae.encode(tensor[0])[position, latent])
        return tensor

    with torch.no_grad(), edited(find_place(loaded.model, loaded.adapter, hook.split("-to-")[0]), see):
        loaded.base(input_ids=tokens[None], use_cache=False)
    slope = (logit(1e-4) - logit(-1e-4)) / 2e-4
    assert value == pytest.approx(activation["value"] * slope, rel=1e-5)


def test_holding_the_norm_changes_no_value_of_the_model(tokens):
    loaded, sae = build("llama"), draw_sae()
    held, live = (attribute(loaded, sae, "resid_post.2", tokens, 7, 11, hold_norm=hold) for hold in (True, False))
    assert held.logit == live.logit
    # With a live scale, gradient times state is nothing at all: the norm undoes any change of length.
    assert abs(live.total - live.rest) < 1e-3 < abs(held.total - held.rest)


def test_what_cannot_be_split_is_named(tokens):
    loaded, sae = build("llama"), draw_sae()
    for position, token, said in ((10, 0, "positions 0 to 9"), (0, 64, "tokens 0 to 63"), (-1, 0, "position -1")):
        with pytest.raises(CausalError, match=said):
            attribute(loaded, sae, "resid_post.1", tokens, position, token)
    with pytest.raises(CausalError, match="'embedding' has no logits of tokens"):
        attribute(build("bert", "embedding"), sae, "resid_post.1", tokens, 0, 0)
    with pytest.raises(AtlasError, match="layers 0 to 2"):
        attribute(loaded, sae, "resid_post.7", tokens, 0, 0)
    strange = torch.nn.Tanh()
    with pytest.raises(CausalError, match="is a Tanh, neither an RMS norm nor a layer norm"):
        attribution._norm_form(strange, torch.randn(2, 32), torch.randn(2, 32))
