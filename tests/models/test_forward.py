import dataclasses
import inspect

import pytest
import torch

from atlas.errors import AtlasError
from atlas.models.adapters import get_blocks
from atlas.models.forward import capture, final_hidden, logits, run_from, run_with

SITES = ("resid_pre", "resid_post", "mlp_in", "mlp_out", "attn_out")


def blocks_of(loaded):
    return get_blocks(loaded.model, loaded.adapter)


@pytest.fixture
def computed(llama):
    """Names of the modules that compute, in order: what a block skips does not appear."""
    seen = []
    handles = [
        module.register_forward_hook(lambda *_, label=label: seen.append(label))
        for index, block in enumerate(blocks_of(llama))
        for label, module in ((f"attention {index}", block.self_attn), (f"mlp {index}", block.mlp))
    ]
    handles.append(llama.model.lm_head.register_forward_hook(lambda *_: seen.append("head")))
    yield seen
    for handle in handles:
        handle.remove()


def count_hooks(loaded) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


def test_capture_returns_the_librarys_hidden_states(llama, contexts):
    with torch.inference_mode():
        expected = llama.model(contexts, output_hidden_states=True).hidden_states
    found = capture(llama, contexts, ["resid_post.2", "resid_pre.0", "resid_post.0"])
    assert list(found) == ["resid_post.2", "resid_pre.0", "resid_post.0"]
    assert torch.equal(found["resid_pre.0"], expected[0])
    assert torch.equal(found["resid_post.0"], expected[1])
    assert torch.equal(found["resid_post.2"], expected[3])


def test_capture_stops_after_the_deepest_hook(llama, contexts, computed):
    capture(llama, contexts, ["resid_post.1", "mlp_in.0"])
    assert computed == ["attention 0", "mlp 0", "attention 1", "mlp 1"]
    computed.clear()
    capture(llama, contexts, ["attn_out.1", "resid_pre.1"])
    assert computed == ["attention 0", "mlp 0", "attention 1"]


def test_the_head_runs_only_in_logits(llama, contexts, computed):
    hidden = final_hidden(llama, contexts)
    capture(llama, contexts, ["resid_post.3"])
    run_from(llama, contexts, "resid_post.0", hidden)
    assert "head" not in computed
    logits(llama, hidden)
    assert computed[-1] == "head"


def test_run_from_computes_only_the_blocks_after_a_residual_hook(llama, contexts, computed):
    state = capture(llama, contexts, ["resid_post.1"])["resid_post.1"]
    computed.clear()
    run_from(llama, contexts, "resid_post.1", state)
    assert computed == ["attention 2", "mlp 2", "attention 3", "mlp 3"]
    computed.clear()
    run_from(llama, contexts, "resid_pre.3", state)
    assert computed == ["attention 3", "mlp 3"]
    computed.clear()
    run_from(llama, contexts, "resid_post.3", state)
    assert computed == []


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_run_from_equals_the_whole_model_with_that_tensor_replaced(llama, contexts, site, layer):
    hook = f"{site}.{layer}"
    other = torch.randn(*contexts.shape, 32, generator=torch.Generator().manual_seed(3))
    replaced = run_with(llama, contexts, hook, lambda _: other)
    assert torch.equal(run_from(llama, contexts, hook, other), replaced)
    assert not torch.allclose(replaced, final_hidden(llama, contexts), atol=0.1)


@pytest.mark.parametrize("hook", ["resid_post.0", "resid_pre.2", "mlp_out.1", "attn_out.2", "resid_post.3"])
def test_a_hybrid_model_runs_from_its_hooks(nemotron_h, contexts, hook):
    clean = final_hidden(nemotron_h, contexts)
    value = capture(nemotron_h, contexts, [hook])[hook]
    assert torch.equal(run_from(nemotron_h, contexts, hook, value), clean)
    other = run_from(nemotron_h, contexts, hook, 2 * value)
    assert torch.equal(other, run_with(nemotron_h, contexts, hook, lambda value: 2 * value))


def test_run_from_takes_the_stores_number_format(llama, contexts):
    value = capture(llama, contexts, ["resid_post.1"])["resid_post.1"]
    stored = run_from(llama, contexts, "resid_post.1", value.bfloat16())
    assert stored.dtype == torch.float32
    assert torch.equal(stored, run_from(llama, contexts, "resid_post.1", value.bfloat16().float()))


def test_edits_reach_only_what_comes_after(llama, contexts):
    """A causal model: changing position 10 leaves the output before it as it was."""

    def change(value):
        value = value.clone()
        value[:, 10] = 0
        return value

    clean, edited = final_hidden(llama, contexts), run_with(llama, contexts, "mlp_out.1", change)
    assert torch.equal(edited[:, :10], clean[:, :10])
    assert ((edited - clean)[:, 10:].norm(dim=-1) > 1e-3).all()


def test_nothing_is_left_behind_even_after_an_error(llama, contexts):
    before, clean = count_hooks(llama), final_hidden(llama, contexts)
    state = capture(llama, contexts, ["resid_post.1", "mlp_in.3"])["resid_post.1"]
    run_from(llama, contexts, "resid_post.1", state)

    def explode(value):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        run_with(llama, contexts, "mlp_out.2", explode)
    with pytest.raises(IndexError):
        run_from(llama, contexts + 1000, "resid_post.1", state)  # no such tokens: fails inside the model
    assert count_hooks(llama) == before
    assert all("forward" not in vars(block) for block in blocks_of(llama))
    assert torch.equal(final_hidden(llama, contexts), clean)


def test_no_hooks_no_pass(llama, contexts):
    assert capture(llama, contexts, []) == {}


def test_a_tensor_of_another_shape_is_refused(llama, contexts):
    with pytest.raises(AtlasError, match=r"resid_post\.1 .* \(3, 23, 32\): must be .* = \(3, 24, 32\)"):
        inspect.unwrap(run_from)(llama, contexts, "resid_post.1", torch.zeros(3, 23, 32))
    wide = dataclasses.replace(
        llama, adapter=dataclasses.replace(llama.adapter, sites=lambda block: {"mlp_out": ("mlp.up_proj", "output")})
    )
    with pytest.raises(AtlasError, match=r"mlp_out\.1 .* \(3, 24, 64\): must be"):
        capture(wide, contexts, ["mlp_out.1"])


def test_a_place_off_the_forward_pass_is_an_error(llama, contexts):
    block = blocks_of(llama)[1]
    block.unused = torch.nn.Identity()
    stray = dataclasses.replace(
        llama, adapter=dataclasses.replace(llama.adapter, sites=lambda block: {"mlp_out": ("unused", "output")})
    )
    with pytest.raises(AtlasError, match=r"never reached \['mlp_out\.1'\]: mend its adapter"):
        capture(stray, contexts, ["resid_post.0", "mlp_out.1"])
