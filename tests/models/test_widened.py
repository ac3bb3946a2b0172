"""bfloat16 models on a CPU that has no bfloat16 instructions, and on one that has."""

import pytest
import torch
from torch import nn

from atlas import devices
from atlas.models.forward import capture, final_hidden, logits
from atlas.models.load import load_model
from atlas.models.predictions import clean_predictions, compare_predictions, features
from atlas.models.widened import widen_products
from tiny import prepare_and_load, tiny_llama

CPU = torch.device("cpu")


@pytest.fixture
def without_bfloat16(monkeypatch):
    monkeypatch.setattr(devices, "fast_matmul_dtype", lambda device: torch.float32)


@pytest.fixture
def with_bfloat16(monkeypatch):
    monkeypatch.setattr(devices, "fast_matmul_dtype", lambda device: torch.bfloat16)


@pytest.fixture
def prepared(tmp_path):
    """Folder of a prepared model in bfloat16."""
    prepare_and_load(tiny_llama(tmp_path / "llama"), tmp_path / "prepared", 4, dtype="bfloat16")
    return tmp_path / "prepared"


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_the_exact_one_rounded_once(without_bfloat16, bias):
    torch.manual_seed(0)
    layer = nn.Linear(300, 40, bias=bias).bfloat16().requires_grad_(False)
    inputs = torch.randn(7, 300).bfloat16()
    assert widen_products(layer, CPU)
    found, exact = layer(inputs), nn.Linear.forward(layer.double(), inputs.double())
    assert found.dtype == torch.bfloat16
    # Half a unit in the last of 8 places, and what adding 300 terms in float32 may lose.
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() * 1.01 + 1e-5).all()


def test_weights_and_names_stay(without_bfloat16):
    layer = nn.Linear(3, 2).bfloat16()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    widen_products(layer, CPU)
    after = layer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) and after[name].dtype == torch.bfloat16 for name in before)


def test_only_what_needs_it_is_widened(with_bfloat16, monkeypatch):
    narrow, wide = nn.Linear(3, 2).bfloat16(), nn.Linear(3, 2)
    assert not widen_products(narrow, CPU)
    monkeypatch.setattr(devices, "fast_matmul_dtype", lambda device: torch.float32)
    assert not widen_products(wide, CPU)
    assert not widen_products(narrow, torch.device("cuda"))
    assert "forward" not in narrow.__dict__ and "forward" not in wide.__dict__


def test_a_widened_model_agrees_with_the_emulated_one(prepared, contexts, monkeypatch):
    """Both ways are as far from the float32 model as eight bits make them."""
    states, lost = {}, {}
    for name, dtype in (("emulated", torch.bfloat16), ("widened", torch.float32)):
        monkeypatch.setattr(devices, "fast_matmul_dtype", lambda device, dtype=dtype: dtype)
        loaded = load_model(prepared, CPU)
        states[name] = logits(loaded, final_hidden(loaded, contexts)).float()
    loaded.model.float()
    exact = logits_in_float32(loaded, contexts)
    for name, state in states.items():
        lost[name] = ((state - exact).norm() / exact.norm()).item()
    assert not torch.equal(states["emulated"], exact)
    assert lost["widened"] < 0.02
    assert lost["widened"] < 1.5 * lost["emulated"]


def test_the_head_stays_widened_after_its_features_were_asked_for(prepared, contexts, without_bfloat16):
    loaded = load_model(prepared, CPU)
    hidden = capture(loaded, contexts, ["resid_post.3"])["resid_post.3"]
    before = logits(loaded, hidden)
    features(loaded, hidden)
    assert "forward" in loaded.model.get_output_embeddings().__dict__
    assert torch.equal(logits(loaded, hidden), before)


def test_loss_without_rounding_of_the_logits(without_bfloat16):
    """Logits near 40 in bfloat16 are wrong by a tenth; products in float32 leave nothing of that."""
    torch.manual_seed(0)
    projection = nn.Linear(24, 300, bias=True).bfloat16().requires_grad_(False)
    rows, targets = (20 * torch.randn(40, 24)).bfloat16(), torch.randint(300, (40,))
    loss, kl = compare_predictions(projection, rows, targets, clean_predictions(projection, rows))
    exact = nn.Linear.forward(projection.double(), rows.double()).log_softmax(-1)
    torch.testing.assert_close(loss.double(), -exact.gather(1, targets[:, None])[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kl, torch.zeros(40), rtol=0, atol=1e-4)


def logits_in_float32(loaded, contexts):
    for module in loaded.model.modules():
        module.__dict__.pop("forward", None)
    return loaded.model(input_ids=contexts).logits
