"""Every registered architecture, as a tiny random model: its hooks are where the library says they are."""

import pytest
import torch
from transformers import CONFIG_MAPPING

from atlas.errors import AtlasError
from atlas.models import adapters, checks
from atlas.models.adapters import find_adapter, find_place, get_blocks, longest_context
from atlas.models.checks import AuditedModel
from atlas.models.forward import capture, final_hidden, logits, read_prefix, run_from
from atlas.models.load import MODEL_CLASSES, LoadedModel
from tiny import SPECIALS

FIELDS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe")
DECODERS = sorted(set(adapters._ADAPTERS) - set(ENCODERS))
HYBRID = {
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "moe"],
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "chunk_size": 16,
    "n_routed_experts": 4,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
}


def build(model_type: str, objective: str = "causal_lm", **overrides) -> LoadedModel:
    fields = FIELDS | overrides
    if model_type in ("gpt2", *ENCODERS):
        fields = {key: value for key, value in fields.items() if key not in ("num_key_value_heads", "head_dim")}
    if model_type == "gpt2":
        del fields["intermediate_size"]
    if model_type == "nemotron_h":
        del fields["num_hidden_layers"]
        fields |= HYBRID
    config = CONFIG_MAPPING[model_type](**fields)
    torch.manual_seed(0)
    model = MODEL_CLASSES[objective].from_config(config).eval().requires_grad_(False)
    identity = {"name": model_type, "objective": objective, "dtype": "float32", "d_model": 32}
    identity |= {"n_layers": len(get_blocks(model, find_adapter(model_type))), "vocabulary_size": 64}
    return LoadedModel(model, None, find_adapter(model_type), identity, torch.device("cpu"))


def every_hook(loaded: LoadedModel) -> list[str]:
    hooks = []
    for layer, block in enumerate(get_blocks(loaded.model, loaded.adapter)):
        hooks += [f"{site}.{layer}" for site in ("resid_pre", "resid_post", *loaded.adapter.sites(block))]
    return hooks


@pytest.fixture
def contexts() -> torch.Tensor:
    return torch.randint(len(SPECIALS), 64, (2, 12), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("model_type", DECODERS)
def test_contexts_go_on_from_a_shared_prefix_as_if_read_whole(model_type, contexts):
    loaded = build(model_type)
    contexts[1, :7] = contexts[0, :7]
    last = len(get_blocks(loaded.model, loaded.adapter)) - 2  # the pass ends before the last block
    hooks = ["resid_post.0", f"resid_post.{last}"]
    cache = read_prefix(loaded, contexts[0, :7], hooks)
    if model_type in ("nemotron_h", *EXPERTS):
        assert cache is None  # blocks with a state of their own, or a choice that rounding can turn
        return
    whole = capture(loaded, contexts, hooks)
    for _ in range(2):  # the cache is not used up
        for hook, values in capture(loaded, contexts[:, 7:], hooks, cache).items():
            torch.testing.assert_close(values, whole[hook][:, 7:], atol=1e-4, rtol=1e-3)


def test_no_prefix_is_shared_before_the_first_attention(contexts):
    """GPT-2 adds positions before its first block: from an empty cache they would begin at 0 again."""
    loaded = build("gpt2")
    assert read_prefix(loaded, contexts[0, :7], ["resid_pre.0"]) is None
    assert read_prefix(loaded, contexts[0, :7], ["resid_pre.0", "attn_out.0"]) is not None
    whole = capture(loaded, contexts[:1], ["resid_pre.0"])["resid_pre.0"]
    alone = capture(loaded, contexts[:1, 7:], ["resid_pre.0"])["resid_pre.0"]
    assert not torch.allclose(alone, whole[:, 7:], atol=1e-3)  # what the rows would have been


def test_encoder_has_no_prefix_to_go_on_from(contexts):
    assert read_prefix(build("bert", "masked_lm"), contexts[0], ["resid_post.0"]) is None


def test_the_longest_context_is_what_there_are_positions_for(contexts):
    assert longest_context(CONFIG_MAPPING["gpt2"](n_positions=77)) == 77
    assert longest_context(CONFIG_MAPPING["llama"](max_position_embeddings=64)) == 64
    assert longest_context(CONFIG_MAPPING["roberta"](max_position_embeddings=514, pad_token_id=1)) == 512
    loaded = build("gpt2")
    loaded.identity["longest_context"] = longest_context(loaded.model.config)
    assert final_hidden(loaded, contexts[:, :1].repeat(1, 64)).isfinite().all()
    with pytest.raises(AtlasError, match="a context of 65 tokens is longer than gpt2 has positions for, 64"):
        final_hidden(loaded, contexts[:, :1].repeat(1, 65))


def own_logits(loaded: LoadedModel, contexts: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(input_ids=contexts).logits


@pytest.mark.parametrize("model_type", DECODERS)
def test_decoder_hooks_are_what_the_library_computes(model_type, contexts):
    loaded = build(model_type)
    subject = AuditedModel(loaded, contexts, torch.ones_like(contexts, dtype=torch.bool), torch.float32)
    captured = capture(loaded, contexts, every_hook(loaded))
    assert {"resid_pre.0", "mlp_in.1", "mlp_out.1"} <= set(captured)
    for hook, value in captured.items():
        found = [checks.check_against_library(subject, hook), checks.check_block_sum(subject, hook)]
        assert [check for check in found if check.passed is False] == []
        assert hook.startswith("mlp_in") or any(check.passed for check in found)
        assert torch.equal(run_from(loaded, contexts, hook, value), subject.clean)
    assert torch.equal(logits(loaded, subject.clean), own_logits(loaded, contexts))


@pytest.mark.parametrize("objective", ["embedding", "masked_lm", "sequence_classification"])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_encoder_hooks_are_what_the_library_computes(model_type, objective, contexts):
    loaded = build(model_type, objective)
    subject = AuditedModel(loaded, contexts, torch.ones_like(contexts, dtype=torch.bool), torch.float32)
    for hook, value in capture(loaded, contexts, every_hook(loaded)).items():
        assert checks.check_against_library(subject, hook).passed is (True if hook.startswith("resid") else None)
        assert torch.equal(run_from(loaded, contexts, hook, value), subject.clean)
    if objective == "embedding":
        with pytest.raises(AtlasError, match="objective 'embedding' has no logits"):
            logits(loaded, subject.clean)
    else:
        assert torch.equal(logits(loaded, subject.clean), own_logits(loaded, contexts))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
def test_encoder_additions_are_those_that_the_norms_see(model_type, contexts):
    """The block's output is norm(x + mlp_out) with x = norm(resid_pre + attn_out)."""
    loaded = build(model_type, "embedding")
    found = capture(loaded, contexts, ["resid_pre.1", "attn_out.1", "mlp_in.1", "mlp_out.1", "resid_post.1"])
    block = get_blocks(loaded.model, loaded.adapter)[1]
    if model_type == "distilbert":
        norms = block.sa_layer_norm, block.output_layer_norm
    else:
        norms = block.attention.output.LayerNorm, block.output.LayerNorm
    middle = norms[0](found["attn_out.1"].clone() + found["resid_pre.1"])
    torch.testing.assert_close(middle, found["mlp_in.1"].clone())
    torch.testing.assert_close(norms[1](middle + found["mlp_out.1"]), found["resid_post.1"].clone())


def test_norms_after_the_mlp_are_part_of_its_output(contexts):
    """In Gemma 2 the MLP's bare output is not what reaches the residual stream; the audit would find it."""
    loaded = build("gemma2")
    place = find_place(loaded.model, loaded.adapter, "mlp_out.1")
    assert place.module is get_blocks(loaded.model, loaded.adapter)[1].post_feedforward_layernorm


def test_gemma2_caps_its_logits(contexts):
    loaded = build("gemma2", final_logit_softcapping=0.01)
    capped = logits(loaded, final_hidden(loaded, contexts))
    assert capped.abs().max() < 0.0101
    assert torch.equal(capped, own_logits(loaded, contexts))


def test_unknown_architecture_names_the_known_and_says_how_to_add_one():
    with pytest.raises(AtlasError, match=r"'mamba9'.*'gpt2'.*'llama'.*To add it, register"):
        find_adapter("mamba9")


def test_a_layer_that_is_not_there(contexts):
    with pytest.raises(AtlasError, match=r"'resid_post\.3': this llama model has layers 0 to 2"):
        capture(build("llama"), contexts, ["resid_post.3"])


@pytest.mark.parametrize(
    ("hook", "kind"), [("mlp_out.0", "linear_attention"), ("attn_out.1", "mlp"), ("mlp_in.2", "full_attention")]
)
def test_a_hybrid_block_without_the_site_is_named_by_its_type(hook, kind, contexts):
    with pytest.raises(AtlasError, match=rf"'{hook}': block . of this nemotron_h model is of type '{kind}'"):
        capture(build("nemotron_h"), contexts, [hook])
