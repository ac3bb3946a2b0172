"""Branches of a context in one pass are what the model gives for each changed context by itself."""

import pytest
import torch
from test_adapters import DECODERS, EXPERTS, build

from atlas.errors import AtlasError
from atlas.models.branches import Branches, can_join, run_apart, run_branches
from atlas.models.forward import capture, final_hidden

SITES = ("resid_post.1", "resid_pre.0", "mlp_in.1", "mlp_out.0", "attn_out.2")


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(6, 64, (14,), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def branches() -> Branches:
    delta = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))
    delta[4] = 0
    return Branches(torch.tensor([3, 10, 0, 10, 7]), delta, 3)


@pytest.mark.parametrize("model_type", sorted(set(DECODERS) - {"nemotron_h", *EXPERTS}))
def test_joined_branches_are_the_changed_contexts(model_type, tokens, branches):
    loaded = build(model_type)
    clean = final_hidden(loaded, tokens[None])[0]
    for hook in SITES:
        rows = capture(loaded, tokens[None], [hook])[hook][0] if hook.startswith("resid") else None
        own, joined = run_branches(loaded, tokens, hook, rows, branches)
        same, apart = run_apart(loaded, tokens, hook, rows, branches)
        for found in (own, same):
            torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(joined, apart, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(joined[4], clean[7:10], atol=1e-4, rtol=1e-4)
        assert (joined[0, 0] - clean[3]).abs().max() > 0.01  # the change matters


@pytest.mark.parametrize("model_type", ["nemotron_h", *EXPERTS])
def test_models_in_which_more_passes_between_tokens_run_apart(model_type, tokens, branches):
    loaded = build(model_type)
    assert not can_join(loaded, len(tokens))
    with pytest.raises(AtlasError, match="cannot be joined: use `run_apart`"):
        run_branches(loaded, tokens, "resid_post.1", None, branches)
    _, apart = run_apart(loaded, tokens, "resid_post.1", None, branches)
    torch.testing.assert_close(apart[4], final_hidden(loaded, tokens[None])[0, 7:10], atol=1e-4, rtol=1e-4)


def test_attention_that_reaches_less_far_than_the_context_runs_apart():
    loaded = build("mistral", sliding_window=8)
    assert can_join(loaded, 8)
    assert not can_join(loaded, 9)
    assert not can_join(build("bert", "masked_lm"), 4)
