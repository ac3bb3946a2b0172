"""Weights in the layout of the runners become SAEs of ours that compute the same."""

import pytest
import torch
from safetensors.torch import save_file

from atlas.frameworks.launch import FrameworkError
from atlas.frameworks.weights import held_out_loss, sae_of

D_MODEL, N_LATENTS, K, SCALE = 6, 12, 3, 7.5


def planted(architecture: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = {
        "W_enc": torch.randn(D_MODEL, N_LATENTS, generator=generator),
        "b_enc": torch.randn(N_LATENTS, generator=generator),
        "W_dec": torch.randn(N_LATENTS, D_MODEL, generator=generator),
        "b_dec": torch.randn(D_MODEL, generator=generator),
    }
    return weights | ({"threshold": torch.tensor(0.8)} if architecture == "batch_topk" else {})


def written(folder, weights) -> None:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "weights.safetensors")


def reference(weights: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Reconstruction of normalised rows, row by row, as peer_job says that weights are meant."""
    found = []
    for row in rows:
        pre = (row - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
        kept = torch.zeros_like(pre)
        chosen = pre.topk(K).indices if "threshold" not in weights else (pre > weights["threshold"]).nonzero()[:, 0]
        kept[chosen] = pre[chosen].relu()
        found.append(kept @ weights["W_dec"] + weights["b_dec"])
    return torch.stack(found)


def distance_from_another_selection(weights: dict[str, torch.Tensor], rows: torch.Tensor) -> float:
    """By how much a pre-activation must change before other latents are kept."""
    pre = (rows - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    if "threshold" in weights:
        return (pre - weights["threshold"]).abs().min().item()
    ordered = pre.sort(dim=1, descending=True).values
    return (ordered[:, K - 1] - ordered[:, K]).min().item()


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_sae_reconstructs_stored_rows_as_the_framework_does_normalised_ones(tmp_path, architecture):
    weights = planted(architecture)
    written(tmp_path, weights)
    sae = sae_of(tmp_path, architecture, K, SCALE)
    rows = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(2))
    exact = {name: value.double() for name, value in weights.items()}
    wanted = reference(exact, rows.double()) * SCALE
    found = sae.decode(sae.encode(rows * SCALE)).double()
    assert distance_from_another_selection(exact, rows.double()) > 1e-4  # hence float32 selects the same
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_held_out_loss_is_that_of_normalised_rows(tmp_path):
    weights = planted("topk")
    written(tmp_path, weights)
    rows = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(2))
    found = held_out_loss(sae_of(tmp_path, "topk", K, SCALE), rows * SCALE, SCALE, batch_size=16)
    assert found == pytest.approx((rows - reference(weights, rows)).square().sum(dim=1).mean().item(), rel=1e-5)


def test_held_out_loss_of_batch_topk_selects_in_batches_without_the_threshold(tmp_path):
    """Planted: latent i reads coordinate i; the two largest of each batch of two rows are kept, whatever the row."""
    eye = torch.eye(4)
    weights = {"W_enc": eye.clone(), "b_enc": torch.zeros(4), "W_dec": eye.clone(), "b_dec": torch.zeros(4)}
    written(tmp_path, weights | {"threshold": torch.tensor(100.0)})
    rows = torch.tensor([[5.0, 4, 0, 0], [1, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 6]])
    sae = sae_of(tmp_path, "batch_topk", 1, 1.0)
    assert held_out_loss(sae, rows, 1.0, batch_size=2) == pytest.approx((1 + 4) / 4)
    assert held_out_loss(sae, rows, 1.0, batch_size=4) == pytest.approx((1 + 4 + 0 + 0) / 4)
    assert held_out_loss(sae, rows * 10, 10.0, batch_size=2) == pytest.approx((1 + 4) / 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": torch.tensor(0.1)}, r"holds \['W_dec', .*'threshold'\], expected .* for topk"),
        ({"b_dec": None}, r"holds \['W_dec', 'W_enc', 'b_enc'\], expected"),
        ({"W_dec": torch.zeros(D_MODEL, N_LATENTS)}, r"W_dec has shape \(6, 12\), expected \(12, 6\)"),
        ({"b_enc": torch.full((N_LATENTS,), torch.nan)}, r"b_enc has values that are not finite; training diverged"),
    ],
)
def test_faulty_weights_are_named(tmp_path, change, message):
    weights = {name: tensor for name, tensor in (planted("topk") | change).items() if tensor is not None}
    written(tmp_path, weights)
    with pytest.raises(FrameworkError, match=message):
        sae_of(tmp_path, "topk", K, SCALE)


def test_threshold_that_was_never_set_is_refused(tmp_path):
    written(tmp_path, planted("batch_topk") | {"threshold": torch.tensor(-1.0)})
    with pytest.raises(FrameworkError, match=r"threshold is -7\.5: it was never set"):
        sae_of(tmp_path, "batch_topk", K, SCALE)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FrameworkError, match=r"weights\.safetensors: missing or not a safetensors file"):
        sae_of(tmp_path, "topk", K, SCALE)
