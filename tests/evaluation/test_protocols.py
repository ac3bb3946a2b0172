"""Both protocols on one SAE, against direct computation."""

import pytest
import torch

from atlas.config.study import Evaluation
from atlas.evaluation.protocols import AtlasSums, GuideSums
from atlas.evaluation.redundancy import decoder_geometry
from atlas.statistics.clusters import half_width
from atlas.training.sae import Sae

SETTINGS = Evaluation(dead_min_tokens=100)


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(600, 32, generator=torch.Generator().manual_seed(0)) + 0.5


def fed(sums, sae: Sae, rows: torch.Tensor, batch: int, *more: torch.Tensor):
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        sums.update(rows[part], sae.pre_activations(rows[part]), *(column[part] for column in more))
    return sums


@pytest.mark.parametrize("batch", [600, 37])
def test_guide_is_computed_as_published(topk_sae, rows, batch):
    sums = fed(GuideSums(topk_sae, rows.mean(0)), topk_sae, rows, batch)
    result, reasons = sums.metrics(absorption=0.3)
    positive = torch.relu(rows @ topk_sae.W_enc + topk_sae.b_enc)  # b_dec is not subtracted
    values, places = positive.topk(4, dim=1)
    x_hat = torch.zeros_like(positive).scatter_(1, places, values) @ topk_sae.W_dec + topk_sae.b_dec
    fvu = (rows - x_hat).double().square().sum() / (rows - rows.mean(0)).double().square().sum()
    assert result["loss_recovered_pct"] == pytest.approx(100 * (1 - fvu.item()), rel=1e-5)
    assert result["l0"] == pytest.approx((positive > 0).sum(1).double().mean().item(), rel=1e-3)
    assert result["l0"] > 5 * topk_sae.k  # before TopK
    dead = ((positive > 0).sum(0) < 5) | (positive.mean(0) < 0.1)
    assert result["dead_pct"] == pytest.approx(100 * dead.double().mean().item())
    assert result["absorption"] == 0.3
    assert reasons == {}


def test_guide_clamps_to_zero_and_hides_how_bad_it_is(topk_sae, rows):
    far = Sae("topk", topk_sae.W_enc, topk_sae.b_enc, -3 * topk_sae.W_dec, topk_sae.b_dec, k=4)
    assert fed(GuideSums(far, rows.mean(0)), far, rows, 100).metrics(0.0)[0]["loss_recovered_pct"] == 0.0


def test_guide_dead_by_count_and_by_strength(rows):
    """Latent 0 fires 4 times, 1 fires 5 times strongly, 2 always but weakly, 3 always and strongly."""
    sae = Sae("relu", torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4))
    rows = torch.full((50, 4), -1.0)
    rows[:4, 0] = rows[:5, 1] = 100.0
    rows[:, 2] = 0.05
    rows[:, 3] = 2.0
    assert fed(GuideSums(sae, rows.mean(0)), sae, rows, 50).metrics(0.0)[0]["dead_pct"] == 50


@pytest.mark.parametrize("batch", [600, 37])
def test_atlas_measures_the_inference_path(topk_sae, rows, batch):
    massive = torch.arange(600) % 60 == 0
    rows[massive] *= 50
    groups = torch.arange(600) // 100
    sums = AtlasSums(topk_sae, rows.mean(0), 6, decoder_geometry(topk_sae.W_dec))
    result, reasons = fed(sums, topk_sae, rows, batch, massive, groups).metrics(SETTINGS)
    latents = topk_sae.encode(rows)
    error = (rows - topk_sae.decode(latents)).double().square().sum(1)
    for suffix, mine in (("", torch.ones(600, dtype=torch.bool)), ("_regular", ~massive)):
        x = rows[mine].double()
        fvu = error[mine].sum() / (x - x.mean(0)).square().sum()
        assert result[f"explained_variance{suffix}"] == pytest.approx(1 - fvu.item(), rel=1e-6)
        low, high = result[f"explained_variance{suffix}_interval"]
        assert low <= 1 - fvu.item() <= high
    assert result["l0"] == (latents > 0).sum(1).double().mean().item() <= 4
    low, high = result["l0_interval"]
    assert low <= result["l0"] <= high
    assert result["dead_pct"] == 100 * ((latents > 0).sum(0) == 0).double().mean().item()
    assert result["sparsity_constraint_broken"] is False
    assert 0 < result["firing_jaccard_null"] < 1
    assert reasons == {}


def test_order_of_latents_is_immaterial(topk_sae, rows):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    other = Sae("topk", topk_sae.W_enc[:, order], topk_sae.b_enc[order], topk_sae.W_dec[order], topk_sae.b_dec, k=4)
    massive, groups = torch.zeros(600, dtype=torch.bool), torch.arange(600) // 100
    results = []
    for sae in (topk_sae, other):
        sums = AtlasSums(sae, rows.mean(0), 6, decoder_geometry(sae.W_dec))
        results.append(fed(sums, sae, rows, 100, massive, groups).metrics(SETTINGS)[0])
    for name in ("explained_variance", "l0", "dead_pct", "dense_pct", "firing_jaccard"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-6)


def test_relu_has_no_constraint_and_says_so(identity_sae, rows):
    massive, groups = torch.zeros(600, dtype=torch.bool), torch.arange(600) // 100
    sums = AtlasSums(identity_sae, rows.mean(0), 6, None)
    result, reasons = fed(sums, identity_sae, rows, 100, massive, groups).metrics(SETTINGS)
    assert result["sparsity_constraint_broken"] is None
    assert "relu has no target" in reasons["atlas_sparsity_constraint_broken"]
    assert result["firing_jaccard"] is None
    assert "0.5" in reasons["atlas_firing_jaccard"]
    assert result["explained_variance"] == pytest.approx(1)


def test_the_interval_of_l0_knows_that_rows_of_a_document_are_alike():
    """Rows of a document fire the same number of latents: six numbers, not six hundred."""
    sae = Sae("relu", torch.eye(8), torch.zeros(8), torch.eye(8), torch.zeros(8))
    fires = torch.arange(6).repeat_interleave(100)
    rows = torch.where(torch.arange(8) <= fires[:, None], 1.0, -1.0)
    sums = AtlasSums(sae, rows.mean(0), 6, None)
    result, _ = fed(sums, sae, rows, 100, torch.zeros(600, dtype=torch.bool), fires).metrics(SETTINGS)
    low, high = result["l0_interval"]
    assert result["l0"] == 3.5
    # The numbers 1 to 6 have standard deviation 1.87, their mean a standard error of .764.
    assert low == pytest.approx(max(0, 3.5 - half_width(6) * 0.7638), abs=1e-3)
    assert high == pytest.approx(3.5 + half_width(6) * 0.7638, abs=1e-3)
    assert result["l0_clusters"] == 6
