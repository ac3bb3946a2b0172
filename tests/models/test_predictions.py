"""Loss and KL from one product with the vocabulary, against the whole logits in float64."""

import pytest
import torch

from atlas.models import predictions
from atlas.models.forward import final_hidden, logits
from atlas.models.load import LoadedModel
from atlas.models.objectives import compare, summarise_clean
from atlas.models.predictions import clean_predictions, compare_predictions, features, vocabulary_projection
from tiny import prepare_and_load, tiny_bert, tiny_llama


def planted(seed: int, scale: float, bias: bool, dtype=torch.float32):
    """A vocabulary of 300, 40 clean rows, the same rows disturbed, and tokens to predict."""
    generator = torch.Generator().manual_seed(seed)
    projection = torch.nn.Linear(24, 300, bias=bias)
    with torch.no_grad():
        for parameter in projection.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    clean = scale * torch.randn(40, 24, generator=generator)
    other = clean + 0.3 * scale * torch.randn(40, 24, generator=generator)
    targets = torch.randint(300, (40,), generator=generator)
    return projection.to(dtype).requires_grad_(False), clean.to(dtype), other.to(dtype), targets


def exact(projection, rows):
    bias = 0 if projection.bias is None else projection.bias.double()
    return (rows.double() @ projection.weight.double().T + bias).log_softmax(-1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [(7, 64), (512, 1024)])
def test_loss_and_kl_equal_the_definition(monkeypatch, bias, chunk):
    monkeypatch.setitem(predictions._CHUNK_TOKENS, "cpu", chunk)
    projection, clean, other, targets = planted(0, 1.0, bias)
    loss, kl = compare_predictions(projection, other, targets, clean_predictions(projection, clean))
    p, q = exact(projection, clean), exact(projection, other)
    torch.testing.assert_close(loss.double(), -q.gather(1, targets[:, None])[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kl.double(), (p.exp() * (p - q)).sum(1), rtol=1e-4, atol=1e-4)


def test_clean_against_itself_is_zero():
    projection, clean, _, targets = planted(1, 1.0, bias=True, dtype=torch.bfloat16)
    _, kl = compare_predictions(projection, clean, targets, clean_predictions(projection, clean))
    torch.testing.assert_close(kl, torch.zeros(40), rtol=0, atol=1e-5)


def test_other_predictions_far_from_the_clean_ones():
    """Logits in the hundreds, and log-sum-exps that differ by more than exp can hold."""
    projection, clean, other, targets = planted(2, 40.0, bias=False)
    other = 5 * other
    loss, kl = compare_predictions(projection, other, targets, clean_predictions(projection, clean))
    p, q = exact(projection, clean), exact(projection, other)
    assert (exact(projection, other) - exact(projection, clean)).abs().max() > 200
    torch.testing.assert_close(loss.double(), -q.gather(1, targets[:, None])[:, 0], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(kl.double(), (p.exp() * (p - q)).sum(1), rtol=1e-4, atol=1e-2)


def test_bfloat16_is_rounded_after_the_shift():
    """Logits near 20 in bfloat16 are wrong by .06; here the loss of a sure prediction keeps three digits more."""
    projection, clean, other, targets = planted(3, 5.0, bias=False, dtype=torch.bfloat16)
    loss, kl = compare_predictions(projection, other, targets, clean_predictions(projection, clean))
    p, q = exact(projection, clean), exact(projection, other)
    wanted, divergence = -q.gather(1, targets[:, None])[:, 0], (p.exp() * (p - q)).sum(1)
    rounded_p, rounded_q = (logits_of(projection, rows).double().log_softmax(-1) for rows in (clean, other))
    rounded = -rounded_q.gather(1, targets[:, None])[:, 0]
    rounded_divergence = (rounded_p.exp() * (rounded_p - rounded_q)).sum(1)
    assert (loss - wanted).abs().mean() < 0.2 * (rounded - wanted).abs().mean()
    assert (kl - divergence).abs().mean() < 0.2 * (rounded_divergence - divergence).abs().mean()


def logits_of(projection, rows):
    return torch.nn.functional.linear(rows, projection.weight)


def test_not_finite_rows_are_not_hidden():
    projection, clean, other, targets = planted(4, 1.0, bias=False)
    other[3, 5] = float("nan")
    loss, kl = compare_predictions(projection, other, targets, clean_predictions(projection, clean))
    assert loss.isfinite().tolist() == kl.isfinite().tolist() == [row != 3 for row in range(40)]


@pytest.fixture(scope="module", params=["llama", "bert"])
def token_model(request, tmp_path_factory) -> LoadedModel:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "llama":
        return prepare_and_load(tiny_llama(folder / "m"), folder / "p", 4)
    return prepare_and_load(tiny_bert(folder / "m", 0, "masked_lm"), folder / "p", 3, objective="masked_lm")


def test_head_is_features_and_projection(token_model, contexts):
    hidden = final_hidden(token_model, contexts)
    projection = vocabulary_projection(token_model)
    with torch.inference_mode():
        torch.testing.assert_close(projection(features(token_model, hidden)), logits(token_model, hidden))
    assert logits(token_model, hidden).shape[-1] == token_model.identity["vocabulary_size"]  # the head is whole again


def test_without_a_linear_head_the_logits_themselves_are_compared(token_model, contexts, monkeypatch):
    clean = final_hidden(token_model, contexts).flatten(0, 1)
    other, targets = 0.5 * clean, contexts.flatten()
    expected = compare(token_model, other, targets, summarise_clean(token_model, clean))
    monkeypatch.setattr(token_model.model.config, "final_logit_softcapping", 1e9, raising=False)
    assert vocabulary_projection(token_model) is None
    found = compare(token_model, other, targets, summarise_clean(token_model, clean))
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
