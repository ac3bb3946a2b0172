"""The audit passes on sound models and finds each planted fault, and only by the check that is meant to."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from atlas.errors import AuditError
from atlas.files import read_json
from atlas.models import adapters, checks, forward
from atlas.models.adapters import ModuleTensor, find_place, get_blocks
from atlas.models.audit import audit_model, norm_summary, write_audit
from atlas.models.objectives import per_token_loss
from tiny import VOCABULARY, prepare_and_load, tiny_bert, tiny_llama


def audit(loaded, contexts, hooks, storage_dtype=torch.bfloat16, counted=None):
    counted = torch.ones_like(contexts, dtype=torch.bool) if counted is None else counted
    return audit_model(loaded, contexts, counted, hooks, storage_dtype)


def failures(report) -> set[tuple[str, str | None]]:
    return {(check["name"], check["hook"]) for check in report["checks"] if check["passed"] is False}


def one(report, name, hook=None):
    [check] = [check for check in report["checks"] if (check["name"], check["hook"]) == (name, hook)]
    return check


def with_blocks(loaded, order):
    """The same model, whose adapter names a list of blocks in the wrong order."""
    loaded.base.wrong = nn.ModuleList([loaded.base.layers[index] for index in order])
    return dataclasses.replace(loaded, adapter=dataclasses.replace(loaded.adapter, blocks="wrong"))


def with_site(loaded, **sites):
    return dataclasses.replace(loaded, adapter=dataclasses.replace(loaded.adapter, sites=lambda block: sites))


@pytest.mark.parametrize(
    ("name", "hooks"),
    [
        ("llama", ["resid_pre.0", "resid_post.1", "resid_post.3", "mlp_in.1", "mlp_out.2", "attn_out.0"]),
        ("bert", ["resid_pre.0", "resid_post.1", "resid_post.2", "mlp_in.1", "mlp_out.2", "attn_out.0"]),
        ("nemotron_h", ["resid_pre.0", "resid_post.0", "resid_post.3", "mlp_in.1", "mlp_out.1", "attn_out.2"]),
    ],
)
@pytest.mark.parametrize("storage_dtype", [torch.bfloat16, torch.float32])
def test_sound_models_pass(name, hooks, storage_dtype, contexts, tmp_path, request):
    report = audit(request.getfixturevalue(name), contexts, hooks, storage_dtype)
    write_audit(report, tmp_path / "audit.json")
    assert failures(report) == set()
    assert read_json(tmp_path / "audit.json") == report
    assert report["status"] == "pass"
    assert len(report["checks"]) == 2 + 8 * len(hooks)
    for hook in hooks:
        made = {check["name"] for check in report["checks"] if check["hook"] == hook and check["passed"]}
        assert {"finite", "storage_range", "splice_is_exact", "zero_ablation_matters", "run_from_stored"} <= made
        assert "alone_as_in_batch" in made
        if hook.startswith("resid"):
            assert "equals_library" in made
        exact = storage_dtype == torch.float32
        assert (one(report, "run_from_stored", hook)["value"] == 0.0) is exact


@pytest.mark.parametrize(("order", "hook"), [([1, 2, 3], "resid_post.1"), ([0, 1, 2, 2], "resid_post.3")])
def test_a_hook_one_layer_off_is_found_by_comparison_with_the_library(llama, contexts, order, hook):
    report = audit(with_blocks(llama, order), contexts, [hook])
    assert failures(report) == {("equals_library", hook)}
    assert one(report, "equals_library", hook)["value"] > 0.1


def test_the_wrong_tensor_is_found(llama, contexts, monkeypatch):
    """The MLP's output handed out as the residual stream: it has the right shape and plausible values."""

    def wrong(model, adapter, hook):
        return (
            ModuleTensor(get_blocks(model, adapter)[1].mlp, "output")
            if hook == "resid_post.1"
            else find_place(model, adapter, hook)
        )

    monkeypatch.setattr(forward, "find_place", wrong)
    report = audit(llama, contexts, ["resid_post.1", "resid_post.2"])
    assert failures(report) == {("equals_library", "resid_post.1"), ("run_from_stored", "resid_post.1")}


def test_an_mlp_output_that_is_not_what_is_added_is_found(llama, contexts):
    report = audit(
        with_site(llama, mlp_out=("mlp", "input"), attn_out=("self_attn", "output")), contexts, ["mlp_out.1"]
    )
    assert failures(report) == {("sums_to_block_output", "mlp_out.1")}


def test_a_wrong_restart_is_found(llama, contexts, monkeypatch):
    """One block too many is skipped when the model is run from the stored activation."""

    def rotated(model, adapter):
        blocks = list(adapters.get_blocks(model, adapter))
        return blocks[1:] + blocks[:1]

    monkeypatch.setattr(forward, "get_blocks", rotated)
    report = audit(llama, contexts, ["resid_post.1"])
    assert failures(report) == {("run_from_stored", "resid_post.1")}
    check = one(report, "run_from_stored", "resid_post.1")
    assert check["value"] > 3 * check["limit"] > 0


def test_a_splice_that_changes_the_model_is_found(llama, contexts, monkeypatch):
    def lossy(loaded, input_ids, hook, edit):
        return forward.run_with(loaded, input_ids, hook, lambda value: edit(value).bfloat16().float())

    monkeypatch.setattr(checks, "run_with", lossy)
    report = audit(llama, contexts, ["resid_post.1"])
    assert failures(report) == {("splice_is_exact", "resid_post.1")}


def test_overflow_of_the_store_is_found(llama, contexts):
    llama.base.layers[1].mlp.down_proj.weight.mul_(1e6)
    report = audit(llama, contexts, ["resid_post.0", "resid_post.1"], torch.float16)
    guess = ("clean_loss_below_uniform", None)  # such a block drowns what the model knows
    assert failures(report) == {("storage_range", "resid_post.1"), guess}
    check = one(report, "storage_range", "resid_post.1")
    assert check["value"] > check["limit"] == 65504.0
    assert one(report, "run_from_stored", "resid_post.1")["detail"] == "not made: storage_range failed"
    assert one(report, "run_from_stored", "resid_post.0")["passed"] is True
    assert failures(audit(llama, contexts, ["resid_post.1"], torch.bfloat16)) == {guess}


def test_nan_in_the_weights_is_found(llama, contexts, tmp_path):
    llama.base.layers[2].mlp.down_proj.weight[5, 0] = float("nan")
    report = audit(llama, contexts, ["resid_post.1", "resid_post.2"])
    assert failures(report) == {
        ("clean_output_finite", None),
        ("finite", "resid_post.2"),
        ("storage_range", "resid_post.2"),
    }
    assert one(report, "finite", "resid_post.2")["value"] == contexts.numel()
    assert report["loss_clean"] is None
    assert report["norms"]["resid_post.2"] == {"reason": "not finite"}
    with pytest.raises(AuditError, match=r"finite at resid_post\.2: found 72, limit 0"):
        write_audit(report, tmp_path / "audit.json")


def test_an_ablation_without_effect_is_found(llama, contexts):
    llama.base.layers[1].mlp.down_proj.weight.zero_()
    report = audit(llama, contexts, ["mlp_out.0", "mlp_out.1"])
    assert failures(report) == {("zero_ablation_matters", "mlp_out.1")}
    assert one(report, "zero_ablation_matters", "mlp_out.1")["value"] == 0.0


def test_contexts_that_see_each_other_are_found(llama, contexts):
    """Something that depends on what else is in the batch, such as a wrong mask."""
    handle = llama.base.layers[1].register_forward_pre_hook(lambda _, args: (args[0] + args[0].mean(0, keepdim=True),))
    report = audit(llama, contexts, ["resid_post.0", "resid_post.1"])
    handle.remove()
    assert failures(report) == {("alone_as_in_batch", "resid_post.1")}


def test_a_failed_audit_is_written_then_raised_with_name_and_numbers(llama, contexts, tmp_path):
    report = audit(with_blocks(llama, [1, 2, 3]), contexts, ["resid_post.1"])
    value = one(report, "equals_library", "resid_post.1")["value"]
    with pytest.raises(AuditError) as caught:
        write_audit(report, tmp_path / "audit.json")
    text = str(caught.value)
    assert "audit of model llama failed 1 of 10 checks" in text
    assert f"equals_library at resid_post.1: found {value:.6g}, limit 0" in text
    assert str(tmp_path / "audit.json") in text
    assert json.loads((tmp_path / "audit.json").read_text())["status"] == "fail"


def test_only_counted_positions_are_ablated_and_scored(llama, contexts):
    counted = torch.zeros_like(contexts, dtype=torch.bool)
    counted[:, [3, 4, 9, 15]] = True
    report = audit(llama, contexts, ["resid_post.1"], counted=counted)
    state = forward.capture(llama, contexts, ["resid_post.1"])["resid_post.1"].clone()
    state[counted] = 0
    hidden = forward.run_from(llama, contexts, "resid_post.1", state)
    losses = [per_token_loss(llama, contexts, each) for each in (forward.final_hidden(llama, contexts), hidden)]
    assert report["counted_tokens"] == 12
    assert report["loss_clean"] == pytest.approx(losses[0][counted].mean().item())
    effect = (losses[1] - losses[0])[counted].abs().mean().item()
    assert one(report, "zero_ablation_matters", "resid_post.1")["value"] == pytest.approx(effect)


def test_an_audit_of_nothing_is_refused(llama, contexts):
    with pytest.raises(AuditError, match="none of 72 positions counts"):
        audit(llama, contexts, ["resid_post.1"], counted=torch.zeros_like(contexts, dtype=torch.bool))


def test_norms_and_massive_activations_are_located(llama, contexts):
    activation = torch.zeros(*contexts.shape, 32)
    activation[..., 0] = torch.arange(72).reshape(3, 24) / 71 + 0.5  # norms .5 to 1.5, median 1
    activation[1, 0, 3] = -40.0
    activation[2, 7, 4] = 20.0
    counted = torch.ones_like(contexts, dtype=torch.bool)
    counted[1, 0] = False
    found = norm_summary(llama, contexts, counted, activation)
    assert found["median"] == pytest.approx(1.0, abs=0.02)
    assert found["quantiles"]["0.05"] == pytest.approx(0.55, abs=0.02)
    assert found["quantiles"]["0.95"] == pytest.approx(1.45, abs=0.02)
    assert found["max"] == pytest.approx(20.0, abs=0.1)
    assert found["max_abs"] == 40.0
    assert found["massive_share"] == pytest.approx(1 / 71)
    assert [(item["context"], item["position"], item["counted"]) for item in found["massive"]] == [
        (1, 0, False),
        (2, 7, True),
    ]
    first = found["massive"][0]
    assert first["token"] == int(contexts[1, 0])
    assert first["text"] == llama.tokenizer.decode([first["token"]])
    assert first["norm"] == pytest.approx(40.0, abs=0.1)


def test_nan_where_nothing_counts_is_still_reported_as_json(llama, contexts):
    """Padding-like positions are stored too, so a NaN there fails the audit instead of breaking its report."""
    activation = torch.ones(*contexts.shape, 32)
    activation[0, 0] = float("nan")
    counted = torch.ones_like(contexts, dtype=torch.bool)
    counted[0, 0] = False
    assert norm_summary(llama, contexts, counted, activation) == {"reason": "not finite"}


def test_an_audit_of_random_weights_passes_and_says_what_it_does_not_mean(contexts, tmp_path):
    loaded = prepare_and_load(
        tiny_llama(tmp_path / "source", initializer_range=0.05), tmp_path / "m", 4, random_weights=3
    )
    report = audit_model(
        loaded, contexts, torch.ones_like(contexts, dtype=torch.bool), ["resid_post.1"], torch.bfloat16
    )
    assert report["status"] == "pass"
    assert report["random_weights"] == 3
    assert one(report, "clean_loss_below_uniform")["passed"] is None
    assert "weights are random: loss_clean is near that of a uniform guess" in report["notes"][0]
    assert report["loss_clean"] == pytest.approx(math.log(VOCABULARY), rel=0.1)


def spoilt(loaded):
    """Weights as they are read from a quantised file without their scales: the head's say something else now."""
    head = loaded.model.get_output_embeddings()
    head.weight.copy_(head.weight.roll(40, 0) * 448)
    if head.bias is not None:
        head.bias.zero_()
    return loaded


@pytest.mark.parametrize("objective", ["causal_lm", "masked_lm"])
def test_a_model_that_predicts_worse_than_a_guess_is_found(objective, contexts, tmp_path):
    if objective == "causal_lm":
        loaded = prepare_and_load(tiny_llama(tmp_path / "source"), tmp_path / "m", 4)
    else:
        source = tiny_bert(tmp_path / "source", objective=objective)
        loaded = prepare_and_load(source, tmp_path / "m", 3, objective=objective)
    sound = one(audit(loaded, contexts, ["resid_post.1"]), "clean_loss_below_uniform")
    assert sound["passed"] is True
    assert sound["value"] < sound["limit"] == math.log(VOCABULARY)
    report = audit(spoilt(loaded), contexts, ["resid_post.1"])
    found = one(report, "clean_loss_below_uniform")
    assert found["passed"] is False
    assert found["value"] > found["limit"]
    with pytest.raises(AuditError, match=r"clean_loss_below_uniform: found .*, limit 5\.56834"):
        write_audit(report, tmp_path / "audit.json")


def test_a_classifier_has_no_ablation_after_its_last_attention(contexts, tmp_path):
    """Its head reads the first position, a special token that is never edited; hooks before that are checked."""
    source = tiny_bert(tmp_path / "source", objective="sequence_classification")
    loaded = prepare_and_load(source, tmp_path / "m", 3, objective="sequence_classification")
    contexts[:, 0] = 1
    counted = contexts != 1
    hooks = ["resid_post.1", "resid_pre.2", "attn_out.2", "mlp_in.2", "mlp_out.2", "resid_post.2"]
    report = audit(loaded, contexts, hooks, counted=counted)
    assert report["status"] == "pass"
    made = [one(report, "zero_ablation_matters", hook) for hook in hooks]
    assert [check["passed"] for check in made] == [True, True, None, None, None, None]
    assert made[-1]["value"] is None
    assert "the classifier reads position 0 alone" in made[-1]["detail"]
    # The reason is true: the counted positions change nothing there.
    state = forward.capture(loaded, contexts, ["resid_post.2"])["resid_post.2"]
    edited = forward.run_from(loaded, contexts, "resid_post.2", state.masked_fill(counted[..., None], 0))
    assert torch.equal(forward.logits(loaded, edited), forward.logits(loaded, state))
    # With text at the first position it can be checked.
    everywhere = audit(loaded, contexts, ["resid_post.2"], counted=torch.ones_like(counted))
    assert one(everywhere, "zero_ablation_matters", "resid_post.2")["passed"] is True
