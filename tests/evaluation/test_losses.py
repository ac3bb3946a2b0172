"""Splicing into a real (tiny) model: losses, ablations and what is recovered."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch

from atlas.config.study import Evaluation
from atlas.errors import EvaluationError
from atlas.evaluation.facts import TrainingFacts, regular_mean
from atlas.evaluation.losses import LossTable, RegularLosses, loss_metrics
from atlas.evaluation.references import Ablated, References, compute_references, put
from atlas.evaluation.splice import splice_losses
from atlas.evaluation.units import MASKED_SHARE, Task, context_batches, masked_positions
from atlas.models.forward import capture, final_hidden, logits, run_from, run_with
from atlas.models.objectives import kl, per_token_loss
from atlas.training.sae import Sae
from tiny import prepare_and_load, tiny_bert

HOOK = "resid_post.1"
SETTINGS = Evaluation(bootstrap_samples=100, min_loss_gap={"causal_lm": 0.05})


def references_of(loaded, shards, folder, loss_tokens=160, batch=5) -> References:
    path = folder / "references.h5"
    compute_references(loaded, shards, [HOOK], loss_tokens, batch, path)
    return References.open(path, HOOK, shards[0].identity)


def rebuilt(sae, x):
    return sae.decode(sae.encode(x.flatten(0, 1))).view(x.shape)


def test_reference_losses_equal_direct_computation(llama, shards_of, tmp_path):
    shards = shards_of(llama, "chat", 0)
    references = references_of(llama, shards, tmp_path)
    ids = torch.from_numpy(np.concatenate([s.tokens for s in shards])[:160].astype(np.int64)).view(10, 16)
    counted = torch.from_numpy(np.concatenate([s.counted for s in shards])[:160]).view(10, 16)
    clean = final_hidden(llama, ids)
    np.testing.assert_allclose(references.loss_clean, per_token_loss(llama, ids, clean), rtol=1e-5, atol=1e-5)
    assert references.mask.tolist() == counted.tolist()  # position 0 is special and has no loss
    every = torch.cat([s.rows[torch.from_numpy(s.counted)] for s in shards]).double().mean(0).float()
    for value, found in ((torch.zeros(32), references.loss_zero), (every, references.loss_mean)):
        edited = run_with(llama, ids, HOOK, lambda x, value=value: torch.where(counted[..., None], value, x))
        np.testing.assert_allclose(found, per_token_loss(llama, ids, edited), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("hook", [HOOK, "mlp_out.1"])
def test_contexts_of_which_an_ablation_leaves_nothing_are_as_if_run_each(llama, hook):
    """Twice, for they are kept; after an MLP's output the rest of the text is still there."""
    ids = torch.randint(6, 262, (4, 16), generator=torch.Generator().manual_seed(3))
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[1, 5] = False
    task = Task(ids, counted, None, counted, np.zeros(ids.shape))
    rows, value = capture(llama, ids, [hook])[hook], torch.linspace(-1, 1, 32)
    ablated = Ablated(llama, {hook: value})
    for batch in (slice(0, 4), slice(1, 3)):
        part = Task(ids[batch], counted[batch], None, counted[batch], task.document[batch])
        for ablation, vector in (("mean", value), ("zero", torch.zeros(32))):
            found = ablated.hidden(part, hook, ablation, rows[batch])
            expected = run_from(llama, ids[batch], hook, put(rows[batch].float(), counted[batch], vector))
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_identity_splice_changes_nothing_and_recovers_all(llama, shards_of, tmp_path, identity_sae):
    shards = shards_of(llama, "chat", 0)
    references = references_of(llama, shards, tmp_path)
    table = splice_losses(llama, identity_sae, HOOK, shards, references, 3)
    np.testing.assert_allclose(table.sae, table.clean, atol=1e-4)
    result, reasons = loss_metrics(table, "causal_lm", SETTINGS)
    assert result["loss_recovered_zero"] == pytest.approx(1, abs=1e-4)
    assert result["loss_recovered_mean"] == pytest.approx(1, abs=1e-4)
    assert abs(result["delta_loss"]) < 1e-5
    assert abs(result["kl"]) < 1e-5
    assert result["loss_units"] == 150
    assert reasons == {}


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_constant_sae_recovers_nothing(llama, shards_of, tmp_path, value):
    """An SAE that always gives zero (or the mean) is that ablation, on counted positions only."""
    shards = shards_of(llama, "chat", 0)
    references = references_of(llama, shards, tmp_path)
    mean = torch.cat([s.rows[torch.from_numpy(s.counted)] for s in shards]).double().mean(0).float()
    b_dec = torch.zeros(32) if value == "zero" else mean
    sae = Sae("relu", torch.zeros(32, 4), torch.zeros(4), torch.zeros(4, 32), b_dec)
    table = splice_losses(llama, sae, HOOK, shards, references, 4)
    result, _ = loss_metrics(table, "causal_lm", SETTINGS)
    assert result[f"loss_recovered_{value}"] == pytest.approx(0, abs=1e-5)
    assert result["loss_sae"] == pytest.approx(result[f"loss_{value}"], rel=1e-6)
    assert result["kl"] > 0.05


def test_splice_is_an_edit_of_the_whole_model_at_counted_positions(llama, shards_of, tmp_path, topk_sae):
    """Loss and KL are those of two whole forward passes, with special positions (here every third too) left alone."""
    shards = shards_of(llama, "chat", 0)
    for shard in shards:
        shard.counted = shard.counted & (np.arange(len(shard.counted)) % 3 != 0)
    references = references_of(llama, shards, tmp_path)
    table = splice_losses(llama, topk_sae, HOOK, shards, references, 4)
    ids = torch.from_numpy(np.concatenate([s.tokens for s in shards])[:160].astype(np.int64)).view(10, 16)
    counted = torch.from_numpy(np.concatenate([s.counted for s in shards])[:160]).view(10, 16)
    edited = run_with(llama, ids, HOOK, lambda x: torch.where(counted[..., None], rebuilt(topk_sae, x), x))
    divergence = kl(llama, final_hidden(llama, ids), edited)
    np.testing.assert_allclose(table.sae, per_token_loss(llama, ids, edited)[counted], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(table.kl, divergence[:, :-1][counted[:, 1:]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 4, 12])
def test_massive_activations_keep_their_rows_in_regular_losses(llama, shards_of, tmp_path, topk_sae, batch):
    """Against two whole forward passes; contexts without such a row are as with all rows."""
    shards = shards_of(llama, "chat", 0)
    for place in (20, 37, 100):  # contexts 1, 2 and 6
        shard, row = (shards[0], place) if place < 96 else (shards[1], place - 96)
        shard.rows[row] *= 1000
    training = TrainingFacts.of({"chat": shards}, HOOK)
    references = references_of(llama, shards, tmp_path)
    table = splice_losses(llama, topk_sae, HOOK, shards, references, batch, training)
    rows = torch.cat([s.rows for s in shards])[:160].view(10, 16, 32)
    counted = torch.from_numpy(np.concatenate([s.counted for s in shards])[:160]).view(10, 16)
    massive = counted & (rows.norm(dim=-1) > training.source.limit)
    assert (table.regular.n_massive, table.regular.n_rows) == (int(massive.sum()), int(counted.sum())) == (3, 150)
    ids = torch.from_numpy(np.concatenate([s.tokens for s in shards])[:160].astype(np.int64)).view(10, 16)
    regular = (counted & ~massive)[..., None]
    mean = regular_mean(shards, HOOK).float()
    clean = final_hidden(llama, ids)
    for value, found in ((rebuilt(topk_sae, rows), table.regular.sae), (mean, table.regular.mean)):
        edited = run_from(llama, ids, HOOK, torch.where(regular, value, rows))
        np.testing.assert_allclose(found, per_token_loss(llama, ids, edited)[counted], rtol=1e-3, atol=1e-4)
    edited = run_from(llama, ids, HOOK, torch.where(regular, rebuilt(topk_sae, rows), rows))
    np.testing.assert_allclose(table.regular.kl, kl(llama, clean, edited)[:, :-1][counted[:, 1:]], rtol=1e-3, atol=1e-4)
    untouched = ~massive.any(1)[:, None].expand_as(counted)[counted].numpy()
    np.testing.assert_allclose(table.regular.sae[untouched], table.sae[untouched], rtol=1e-3, atol=1e-4)
    assert np.abs(table.regular.sae[~untouched] - table.sae[~untouched]).max() > 0.01


def test_without_massive_activations_regular_losses_are_those_of_all_rows(llama, shards_of, tmp_path, topk_sae):
    shards = shards_of(llama, "chat", 0)
    references = references_of(llama, shards, tmp_path)
    training = TrainingFacts.of({"chat": shards}, HOOK)
    table = splice_losses(llama, topk_sae, HOOK, shards, references, 4, training)
    result, _ = loss_metrics(table, "causal_lm", SETTINGS)
    assert result["loss_massive_rows"] == 0
    for name in ("loss_sae", "loss_mean", "delta_loss", "kl", "loss_recovered_mean"):
        assert result[f"{name}_regular"] == result[name]
    assert result["loss_recovered_mean_regular_interval"] == result["loss_recovered_mean_interval"]


def test_batches_are_immaterial(llama, shards_of, tmp_path, topk_sae):
    shards = shards_of(llama, "chat", 0)
    first = references_of(llama, shards, tmp_path, batch=1)
    second = references_of(llama, shards, tmp_path, batch=12)
    np.testing.assert_allclose(first.loss_zero, second.loss_zero, rtol=1e-4)
    tables = [splice_losses(llama, topk_sae, HOOK, shards, first, batch) for batch in (1, 5, 12)]
    for table in tables[1:]:
        np.testing.assert_allclose(table.sae, tables[0].sae, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(table.kl, tables[0].kl, rtol=1e-2, atol=1e-4)


def test_whole_contexts_within_the_budget(llama, shards_of, tmp_path):
    shards = shards_of(llama, "chat", 0)
    assert references_of(llama, shards, tmp_path, loss_tokens=47).n_contexts == 2
    assert references_of(llama, shards, tmp_path, loss_tokens=10**6).n_contexts == 12
    sizes = [(batch.first, batch.n_contexts) for batch in context_batches(shards, 10, 4)]
    assert sizes == [(0, 4), (4, 2), (6, 4)]
    with pytest.raises(EvaluationError, match=r"loss_tokens is 15.*16 tokens"):
        references_of(llama, shards, tmp_path, loss_tokens=15)


def table_of(clean, zero, mean, sae, documents) -> LossTable:
    n = len(documents)
    columns = [np.full(n, value, dtype=np.float32) for value in (clean, zero, mean, sae)]
    return LossTable(*columns, kl=np.zeros(n, dtype=np.float32), document=np.asarray(documents))


def test_recovered_shares_of_known_losses():
    result, reasons = loss_metrics(table_of(2, 6, 4, 3, [0, 1, 2, 3]), "causal_lm", SETTINGS)
    assert result["loss_recovered_zero"] == pytest.approx(0.75)
    assert result["loss_recovered_mean"] == pytest.approx(0.5)
    assert result["delta_loss"] == pytest.approx(1)
    assert result["loss_recovered_zero_interval"] == pytest.approx([0.75, 0.75])
    assert [result[f"loss_{n}"] for n in ("clean", "sae", "zero", "mean")] == [2, 3, 6, 4]
    assert reasons == {}


def test_recovered_share_of_regular_rows_has_its_own_ablation():
    table = table_of(2, 6, 4, 3, [0, 1, 2, 3])
    columns = {name: np.full(4, value, np.float32) for name, value in (("sae", 2.5), ("mean", 7), ("kl", 0.25))}
    result, reasons = loss_metrics(
        dataclasses.replace(table, regular=RegularLosses(**columns, n_massive=1, n_rows=5)), "causal_lm", SETTINGS
    )
    assert result["delta_loss"] == pytest.approx(1) and result["delta_loss_regular"] == pytest.approx(0.5)
    assert result["loss_recovered_mean"] == pytest.approx(0.5)
    assert result["loss_recovered_mean_regular"] == pytest.approx(0.9)
    assert result["loss_recovered_mean_regular_interval"] == pytest.approx([0.9, 0.9])
    assert result["kl_regular"] == pytest.approx(0.25)
    assert (result["loss_massive_rows"], result["loss_rows"]) == (1, 5)
    assert "loss_recovered_zero_regular" not in result
    assert reasons == {}


def test_small_gap_is_null_with_reason():
    result, reasons = loss_metrics(table_of(2, 2.04, 4, 3, [0, 1]), "causal_lm", SETTINGS)
    assert result["loss_recovered_zero"] is None
    assert result["loss_recovered_mean"] == pytest.approx(0.5)
    assert "raises the loss by 0.04" in reasons["atlas_loss_recovered_zero"]
    assert "atlas_loss_recovered_zero_interval" in reasons


@pytest.mark.parametrize("objective", ["causal_lm", "masked_lm", "sequence_classification", "embedding"])
def test_each_objective_has_its_own_least_gap(objective):
    """Cross-entropies of several nats and distances of a few hundredths are not held to one limit."""
    limit = getattr(Evaluation().min_loss_gap, objective)
    below, reasons = loss_metrics(table_of(0, 0.9 * limit, 4, 0, [0, 1]), objective, Evaluation())
    above, _ = loss_metrics(table_of(0, 1.1 * limit, 4, 0, [0, 1]), objective, Evaluation())
    assert below["loss_recovered_zero"] is None
    assert f"evaluation.min_loss_gap.{objective} {limit:g}" in reasons["atlas_loss_recovered_zero"]
    assert above["loss_recovered_zero"] == pytest.approx(1)


def test_one_document_has_no_interval():
    result, reasons = loss_metrics(table_of(2, 6, 4, 3, [7, 7, 7]), "causal_lm", SETTINGS)
    assert result["delta_loss_interval"] is None
    assert "too few documents" in reasons["atlas_delta_loss_interval"]


def test_encoder_is_judged_per_context(bert, shards_of, tmp_path, identity_sae, topk_sae):
    shards = shards_of(bert, "chat", 0)
    references = references_of(bert, shards, tmp_path)
    assert references.loss_clean.shape == (10, 1)
    result, _ = loss_metrics(splice_losses(bert, identity_sae, HOOK, shards, references, 4), "embedding", SETTINGS)
    assert abs(result["loss_sae"]) < 1e-5
    worse, reasons = loss_metrics(splice_losses(bert, topk_sae, HOOK, shards, references, 4), "embedding", SETTINGS)
    assert worse["loss_sae"] > 1e-3
    assert worse["loss_units"] == 10
    assert worse["loss_kind"].startswith("1 - cosine")
    assert worse["kl"] is None
    assert "no distribution" in reasons["atlas_kl"]


def test_references_of_something_else_are_refused(llama, shards_of, tmp_path):
    shards = shards_of(llama, "chat", 0)
    path = references_of(llama, shards, tmp_path).path
    with pytest.raises(EvaluationError, match=r"references.h5: corpus_fingerprint.*made anew"):
        References.open(path, HOOK, shards[0].identity | {"corpus_fingerprint": "other"})
    with pytest.raises(EvaluationError, match=r"has no hook 'resid_post.3', only resid_post.1"):
        References.open(path, "resid_post.3", shards[0].identity)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(EvaluationError, match=r"references.h5: missing, truncated or altered"):
        References.open(path, HOOK, shards[0].identity)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "other"
    with pytest.raises(EvaluationError, match="format is"):
        References.open(path, HOOK, shards[0].identity)


def test_hidden_states_survive_in_bfloat16(llama, tmp_path):
    from atlas.evaluation.references import _bits

    hidden = capture(llama, torch.tensor([[1, 9, 9]]), [HOOK])[HOOK].bfloat16()
    restored = torch.from_numpy(_bits(hidden)).view(torch.bfloat16)
    assert torch.equal(restored, hidden)
    assert bool((hidden < 0).any())


def test_classifier_is_judged_by_divergence(shards_of, tmp_path, identity_sae, topk_sae):
    objective = "sequence_classification"
    loaded = prepare_and_load(tiny_bert(tmp_path / "b", 1, objective), tmp_path / "p", 3, objective=objective)
    shards = shards_of(loaded, "chat", 0)
    references = references_of(loaded, shards, tmp_path)
    assert references.loss_clean.max() < 1e-6
    same, _ = loss_metrics(splice_losses(loaded, identity_sae, HOOK, shards, references, 4), objective, SETTINGS)
    worse, _ = loss_metrics(splice_losses(loaded, topk_sae, HOOK, shards, references, 4), objective, SETTINGS)
    assert (same["loss_units"], worse["loss_units"]) == (10, 10)
    assert abs(same["loss_sae"]) < 1e-5
    assert worse["loss_sae"] > 1e-4
    assert worse["kl"] == pytest.approx(worse["loss_sae"], rel=1e-6)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    source = tiny_bert(folder / "b", 1, "masked_lm")
    return prepare_and_load(source, folder / "p", 3, objective="masked_lm")


def test_masked_model_fills_its_holes(masked, shards_of, tmp_path, topk_sae):
    """Losses of whole passes over the masked text, at masked positions; x̂ at all counted ones, of masked rows."""
    shards = shards_of(masked, "chat", 0)
    references = references_of(masked, shards, tmp_path)
    ids = torch.from_numpy(np.concatenate([s.tokens for s in shards])[:160].astype(np.int64)).view(10, 16)
    counted = torch.from_numpy(np.concatenate([s.counted for s in shards])[:160]).view(10, 16)
    holes = masked_positions(shards[0].identity["corpus_fingerprint"], 0, counted)
    assert references.mask.tolist() == holes.tolist()
    inputs = ids.masked_fill(holes, masked.tokenizer.mask_token_id)
    clean = final_hidden(masked, inputs)
    mean = torch.cat([s.rows[torch.from_numpy(s.counted)] for s in shards]).double().mean(0).float()

    def edited(edit):
        return run_with(masked, inputs, HOOK, lambda x: torch.where(counted[..., None], edit(x), x))

    def loss(hidden):
        chances = logits(masked, hidden[holes]).double().log_softmax(-1)
        return -chances.gather(1, ids[holes][:, None])[:, 0].numpy()

    table = splice_losses(masked, topk_sae, HOOK, shards, references, 4)
    np.testing.assert_allclose(table.clean, loss(clean), rtol=1e-4)
    np.testing.assert_allclose(table.zero, loss(edited(torch.zeros_like)), rtol=1e-4)
    np.testing.assert_allclose(table.mean, loss(edited(lambda x: mean.expand_as(x))), rtol=1e-4)
    spliced = edited(lambda x: rebuilt(topk_sae, x))
    np.testing.assert_allclose(table.sae, loss(spliced), rtol=1e-3)
    np.testing.assert_allclose(table.kl, kl(masked, clean, spliced)[holes], rtol=1e-3, atol=1e-4)
    assert table.kl.mean() > 1e-3
    result, _ = loss_metrics(table, "masked_lm", SETTINGS)
    assert result["loss_units"] == holes.sum()
    assert "15% of tokens, seed 0" in result["loss_kind"]
    with h5py.File(references.path) as file:
        assert (file.attrs["masked_share"], file.attrs["masking_seed"]) == (0.15, 0)


def test_masked_identity_is_free(masked, shards_of, tmp_path, identity_sae):
    shards = shards_of(masked, "chat", 0)
    table = splice_losses(masked, identity_sae, HOOK, shards, references_of(masked, shards, tmp_path), 4)
    np.testing.assert_allclose(table.sae, table.clean, atol=1e-4)
    np.testing.assert_allclose(table.kl, 0, atol=1e-5)


def test_holes_depend_on_corpus_and_context_alone():
    counted = torch.ones(200, 40, dtype=torch.bool)
    counted[:, 0] = False
    counted[7] = False
    counted[8, 3:] = False  # two counted tokens: one hole all the same
    whole = masked_positions("abc", 0, counted)
    parts = [masked_positions("abc", first, counted[first : first + 30]) for first in range(0, 200, 30)]
    assert torch.equal(torch.cat(parts), whole)
    assert not bool((whole & ~counted).any())
    assert whole.sum(dim=1)[[6, 7, 8]].tolist() == [6, 0, 1]
    assert whole[:, 1:].float().mean() == pytest.approx(MASKED_SHARE, abs=0.01)
    assert (whole[9:].sum(dim=0)[1:] > 5).all()  # no position is spared
    assert not torch.equal(masked_positions("abd", 0, counted), whole)


def test_masked_model_without_mask_token_is_refused(masked, shards_of, monkeypatch):
    batch = next(context_batches(shards_of(masked, "chat", 0), 10, 4))
    monkeypatch.setitem(masked.tokenizer._special_tokens_map, "mask_token", None)
    with pytest.raises(EvaluationError, match="has no mask token"):
        Task.of(masked, batch)


def test_losses_that_nothing_reaches_are_null_with_their_reason():
    """At a classifier's last block the spliced rows have no way to the output: 0 would look like a perfect SAE."""
    zeros = np.zeros(4, np.float32)
    regular = RegularLosses(zeros, zeros, zeros, 1, 4)
    table = LossTable(zeros, zeros, zeros, zeros, zeros, np.arange(4), regular)
    result, reasons = loss_metrics(table, "sequence_classification", SETTINGS, "no way out")
    usual, _ = loss_metrics(table, "sequence_classification", SETTINGS)
    assert set(result) == set(usual)
    known = {"loss_kind", "loss_units", "loss_clean", "loss_massive_rows", "loss_rows"}
    assert {name for name, value in result.items() if value is not None} == known
    assert reasons == {f"atlas_{name}": "no way out" for name, value in result.items() if value is None}
