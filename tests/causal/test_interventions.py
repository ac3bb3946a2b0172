"""Interventions change a latent's own contribution and nothing else, in every architecture, at every hook."""

import pytest
import torch
from drawn_sae import draw_sae, hooks_of
from test_adapters import DECODERS, ENCODERS, build

from atlas.causal.generation import generate, generate_beside_clean
from atlas.causal.interventions import Change, Intervention, activations_of, intervened_logits
from atlas.errors import AtlasError, CausalError
from atlas.models.forward import capture, final_hidden, logits, run_with
from atlas.training.architectures import ARCHITECTURES


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(6, 64, (2, 12), generator=torch.Generator().manual_seed(2))


ZERO = [Change.of("scale", [3, 5], 1.0), Change.of("add", 3, 0.0), Change.of("clamp", 3, 4.0)]


def zero_interventions(loaded, sae, hook, shape):
    """Changes of zero: scale by 1, add 0, and any change at no position."""
    nowhere = torch.zeros(shape, dtype=torch.bool)
    yield Intervention.of(loaded, sae, hook, ZERO[0])
    yield Intervention.of(loaded, sae, hook, ZERO[1])
    yield Intervention.of(loaded, sae, hook, ZERO[2], nowhere, generated=False)


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_change_of_zero_leaves_logits_as_they_are_at_every_hook(model_type, ids):
    loaded, sae = build(model_type), draw_sae()
    clean = logits(loaded, final_hidden(loaded, ids))
    for hook in hooks_of(loaded):
        for zero in zero_interventions(loaded, sae, hook, ids.shape):
            assert torch.equal(intervened_logits(loaded, ids, zero).view(torch.int32), clean.view(torch.int32))


@pytest.mark.parametrize("objective", ["masked_lm", "sequence_classification"])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_change_of_zero_leaves_encoders_as_they_are(model_type, objective, ids):
    loaded, sae = build(model_type, objective), draw_sae()
    clean = logits(loaded, final_hidden(loaded, ids))
    for hook in hooks_of(loaded):
        assert torch.equal(
            intervened_logits(loaded, ids, Intervention.of(loaded, sae, hook, Change.of("scale", 3, 1.0))), clean
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_change_of_zero_is_one_for_every_sae_and_number_format(architecture, ids):
    loaded, sae = build("llama"), draw_sae(architecture)
    for dtype in ("float32", "bfloat16"):
        loaded.model.to(getattr(torch, dtype))
        loaded.identity["dtype"] = dtype
        clean = logits(loaded, final_hidden(loaded, ids))
        for hook, own in (
            ("resid_post.1", sae),
            ("mlp_in.1-to-mlp_out.1", draw_sae(architecture, is_transcoder=True)),
        ):
            for zero in zero_interventions(loaded, own, hook, ids.shape):
                assert torch.equal(intervened_logits(loaded, ids, zero), clean)


@pytest.mark.parametrize("model_type", DECODERS)
def test_generation_of_zero_change_is_the_models_own_and_the_cache_changes_no_token(model_type, ids):
    loaded, sae = build(model_type), draw_sae()
    prompts, hook = ids[:, :6], "resid_post.1"
    own = generate(loaded, prompts, 6)
    assert torch.equal(generate(loaded, prompts, 6, Intervention.of(loaded, sae, hook, ZERO[0])), own)
    assert torch.equal(generate(loaded, prompts, 6, cache=False), own)
    positions = torch.zeros(prompts.shape, dtype=torch.bool)
    positions[:, 4:] = True
    for generated in (True, False):
        steered = Intervention.of(loaded, sae, hook, Change.of("clamp", [2, 7], 30.0), positions, generated)
        cached = generate(loaded, prompts, 6, steered)
        assert torch.equal(cached, generate(loaded, prompts, 6, steered, cache=False))


def test_a_change_is_the_latents_own_contribution_where_it_is_made(ids):
    loaded, sae, hook = build("llama"), draw_sae("topk"), "resid_post.1"
    rows = capture(loaded, ids, [hook])[hook]
    positions = torch.rand(ids.shape, generator=torch.Generator().manual_seed(5)) < 0.5
    codes = sae.encode(rows.flatten(0, 1)).view(*ids.shape, -1)
    for kind, amount, new in (
        ("ablate", 0.0, lambda value: 0 * value),
        ("clamp", 2.0, lambda value: 0 * value + 2),
        ("scale", 3.0, lambda value: 3 * value),
        ("add", 0.5, lambda value: value + 0.5),
    ):
        change = Change.of(kind, [3, 8], [amount, amount])
        value = torch.stack([codes[0, :, 3], codes[1, :, 8]])
        delta = (new(value) - value)[..., None] * sae.W_dec[[3, 8]][:, None] * positions[..., None]
        expected = logits(loaded, run_with(loaded, ids, hook, lambda tensor, delta=delta: tensor + delta))
        found = intervened_logits(loaded, ids, Intervention.of(loaded, sae, hook, change, positions))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(activations_of(sae, rows, change.latent), value, atol=1e-4, rtol=1e-4)


def test_a_transcoder_is_changed_at_its_target_by_what_its_source_says(ids):
    loaded, sae = build("llama"), draw_sae(is_transcoder=True)
    rows = capture(loaded, ids, ["mlp_in.1"])["mlp_in.1"]
    delta = -sae.encode(rows.flatten(0, 1)).view(*ids.shape, -1)[..., 3, None] * sae.W_dec[3]
    expected = logits(loaded, run_with(loaded, ids, "mlp_out.1", lambda tensor: tensor + delta))
    ablated = Intervention.of(loaded, sae, "mlp_in.1-to-mlp_out.1", Change.of("ablate", 3))
    torch.testing.assert_close(intervened_logits(loaded, ids, ablated), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["llama", "nemotron_h"])
def test_kl_of_generated_text_is_that_of_the_logits_with_and_without_the_change(model_type, ids):
    loaded, sae, prompts = build(model_type), draw_sae(), ids[:, :6]
    nothing = Intervention.of(loaded, sae, "resid_post.1", ZERO[0])
    new, kl = generate_beside_clean(loaded, prompts, 4, nothing)
    assert torch.equal(new, generate(loaded, prompts, 4))
    assert kl.tolist() == [0, 0]
    steered = Intervention.of(loaded, sae, "resid_post.1", Change.of("clamp", 3, 5.0))
    new, kl = generate_beside_clean(loaded, prompts, 4, steered)
    assert torch.equal(new, generate(loaded, prompts, 4, steered))
    text = torch.cat([prompts, new], 1)
    clean, changed = (intervened_logits(loaded, text, each)[:, 5:-1].double() for each in (None, steered))
    expected = torch.nn.functional.kl_div(changed.log_softmax(-1), clean.softmax(-1), reduction="none").sum(-1).mean(1)
    torch.testing.assert_close(kl.double(), expected, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_done_is_named(ids):
    loaded, sae = build("llama"), draw_sae()

    def intervene(change, hook="resid_post.1", own=sae):
        return intervened_logits(loaded, ids, Intervention.of(loaded, own, hook, change))

    with pytest.raises(CausalError, match="latent 24: this dictionary has latents 0 to 23"):
        intervene(Change.of("ablate", 24))
    with pytest.raises(CausalError, match=r"'clamp': amount is .*inf.*must be finite"):
        Change.of("clamp", 3, 1e39)
    with pytest.raises(CausalError, match="must be one of ablate, clamp, scale, add"):
        Change.of("remove", 3)
    for amount in (1e20, 1e38):
        with pytest.raises(CausalError, match=r"clamp latent 3, amount 1e\+\d\d at resid_post.1: the state overflows"):
            intervene(Change.of("clamp", 3, amount))
    with pytest.raises(CausalError, match="no prompt can be told from what follows it"):
        Intervention.of(loaded, sae, "resid_post.1", Change.of("ablate", 3), generated=False)
    with pytest.raises(CausalError, match="belongs to a transcoder, the weights to an SAE"):
        intervene(Change.of("ablate", 3), "mlp_in.1-to-mlp_out.1")
    with pytest.raises(AtlasError, match="layers 0 to 2"):
        intervene(Change.of("ablate", 3), "resid_post.9")
    hybrid = build("nemotron_h")
    with pytest.raises(AtlasError, match="has no mlp_out"):
        Intervention.of(hybrid, sae, "mlp_out.0", Change.of("ablate", 3))
    loaded.identity["longest_context"] = 12
    with pytest.raises(AtlasError, match="a context of 13 tokens is longer than llama has positions for, 12"):
        generate(loaded, ids, 1)
    with pytest.raises(AtlasError, match="longer than llama"):
        intervened_logits(loaded, ids.repeat(1, 2), None)
    with pytest.raises(CausalError, match="a prompt has no tokens"):
        generate(loaded, ids[:, :0], 1)
    with pytest.raises(CausalError, match="'masked_lm': only a causal_lm generates text"):
        generate(build("bert", "masked_lm"), ids, 1)
