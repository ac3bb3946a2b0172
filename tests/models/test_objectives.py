import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from atlas.errors import AtlasError
from atlas.models import predictions, token_logits
from atlas.models.forward import final_hidden, logits
from atlas.models.objectives import divergence, kl, loss_mask, per_token_loss
from tiny import prepare_and_load, tiny_bert


def classifier(tmp_path, objective):
    source = tiny_bert(tmp_path / "source", objective=objective)
    return prepare_and_load(source, tmp_path / "prepared", 3, objective=objective)


def test_loss_is_the_cross_entropy_of_each_token_given_those_before(llama, contexts):
    hidden = final_hidden(llama, contexts)
    loss = per_token_loss(llama, contexts, hidden)
    with torch.inference_mode():
        whole = llama.model(contexts, labels=contexts)
    chance = softmax(whole.logits.double().numpy(), axis=-1)
    expected = -np.log(np.take_along_axis(chance[:, :-1], contexts[:, 1:, None].numpy(), axis=-1))[..., 0]
    assert loss.dtype == torch.float32
    assert (loss[:, 0] == 0).all()
    np.testing.assert_allclose(loss[:, 1:].numpy(), expected, rtol=1e-5)
    mask = loss_mask(llama, contexts)
    assert loss[mask].mean().item() == pytest.approx(whole.loss.item(), rel=1e-5)


def test_mask_leaves_out_the_first_position_alone(llama, contexts):
    mask = loss_mask(llama, contexts)
    assert mask.shape == contexts.shape
    assert not mask[:, 0].any()
    assert mask[:, 1:].all()


@pytest.mark.parametrize("chunk", [(1, 1), (7, 100), (1000, 1000)])
def test_chunks_do_not_change_the_result(llama, contexts, monkeypatch, chunk):
    hidden = final_hidden(llama, contexts)
    loss, distance = per_token_loss(llama, contexts, hidden), kl(llama, hidden, 0.5 * hidden)
    monkeypatch.setitem(predictions._CHUNK_TOKENS, "cpu", chunk)
    torch.testing.assert_close(per_token_loss(llama, contexts, hidden), loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kl(llama, hidden, 0.5 * hidden), distance, rtol=1e-4, atol=1e-5)


def test_no_more_than_a_chunk_of_logits_is_held(llama, contexts, monkeypatch):
    sizes, hidden = [], final_hidden(llama, contexts)
    monkeypatch.setitem(predictions._CHUNK_TOKENS, "cpu", (5, 100))
    bend = token_logits.bend_logits
    monkeypatch.setattr(
        token_logits, "bend_logits", lambda model, logits: sizes.append(logits.shape) or bend(model, logits)
    )
    per_token_loss(llama, contexts, hidden)
    kl(llama, hidden, hidden)
    assert max(sizes) == (5, 100)
    assert sum(rows * tokens for rows, tokens in sizes) == 262 * (3 * 23 + 2 * 3 * 24)


def test_equal_states_have_a_divergence_of_exactly_zero(llama, contexts):
    hidden = final_hidden(llama, contexts)
    assert (kl(llama, hidden, hidden.clone()) == 0).all()


def test_a_far_larger_logit_in_a_later_chunk_is_not_lost(llama, contexts, monkeypatch):
    """Sums of earlier chunks are rescaled: exp of these logits overflows float32."""
    hidden = 300 * final_hidden(llama, contexts)
    exact = logits(llama, hidden).double().log_softmax(-1)
    monkeypatch.setitem(predictions._CHUNK_TOKENS, "cpu", (5, 16))
    loss = per_token_loss(llama, contexts, hidden)
    expected = -exact[:, :-1].gather(2, contexts[:, 1:, None])[..., 0]
    assert exact.min() < -1000
    torch.testing.assert_close(loss[:, 1:].double(), expected, rtol=1e-5, atol=1e-3)


def test_kl_is_that_of_clean_against_other(llama, contexts):
    clean = final_hidden(llama, contexts)
    other = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    p, q = (softmax(logits(llama, hidden).double().numpy(), axis=-1) for hidden in (clean, other))
    found = kl(llama, clean, other)
    assert found.shape == contexts.shape
    np.testing.assert_allclose(found.numpy(), rel_entr(p, q).sum(-1), rtol=1e-4, atol=1e-6)
    assert not np.allclose(found.numpy(), rel_entr(q, p).sum(-1), rtol=0.01)
    assert (kl(llama, clean, clean) == 0).all()


def test_divergence_of_a_causal_model_is_its_mean_kl(llama, contexts):
    clean = final_hidden(llama, contexts)
    other = 0.5 * clean
    torch.testing.assert_close(divergence(llama, clean, other), kl(llama, clean, other).mean(dim=1))


def test_nan_is_an_error_and_counted(llama, contexts):
    hidden = final_hidden(llama, contexts).clone()
    hidden[0, 3:5] = float("nan")
    with pytest.raises(AtlasError, match="cross-entropy of llama is not finite at 2 of 72"):
        per_token_loss(llama, contexts, hidden)
    with pytest.raises(AtlasError, match="KL divergence of llama is not finite at 2 of 72"):
        kl(llama, final_hidden(llama, contexts), hidden)


def test_embeddings_differ_by_the_cosine_of_their_means(bert, contexts):
    clean = final_hidden(bert, contexts)
    other = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    a, b = clean.numpy().mean(axis=1), other.numpy().mean(axis=1)
    expected = 1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(divergence(bert, clean, other).numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(divergence(bert, clean, -clean).numpy(), 2.0, atol=1e-5)
    assert (divergence(bert, clean, clean) == 0).all()
    assert (divergence(bert, clean, 0 * clean) == 1).all()


def test_classes_differ_by_their_kl(tmp_path, contexts):
    loaded = classifier(tmp_path, "sequence_classification")
    clean, other = final_hidden(loaded, contexts), final_hidden(loaded, contexts.flip(1))
    with torch.inference_mode():
        p, q = (softmax(loaded.model(ids).logits.double().numpy(), axis=-1) for ids in (contexts, contexts.flip(1)))
    assert p.shape == (3, 3)
    np.testing.assert_allclose(divergence(loaded, clean, other).numpy(), rel_entr(p, q).sum(-1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "message"),
    [("masked_lm", "has a loss at masked positions only"), ("sequence_classification", "has no loss per token")],
)
def test_objectives_without_a_loss_per_token_say_what_to_use(tmp_path, contexts, objective, message):
    loaded = classifier(tmp_path, objective)
    with pytest.raises(AtlasError, match=message):
        per_token_loss(loaded, contexts, final_hidden(loaded, contexts))


def test_kl_per_token_needs_predictions_of_tokens(bert, contexts):
    hidden = final_hidden(bert, contexts)
    with pytest.raises(AtlasError, match="predicts no tokens: use `divergence`"):
        kl(bert, hidden, hidden)


def test_a_masked_language_model_compares_its_predictions(tmp_path, contexts):
    loaded = classifier(tmp_path, "masked_lm")
    clean = final_hidden(loaded, contexts)
    assert (kl(loaded, clean, 0.5 * clean).mean(dim=1) > 1e-3).all()
