"""One update: sparse and dense agree, dead latents are revived, the threshold moves when it should."""

import pytest
import torch
from training.planted import CPU, PlantedStream, exact_state, recipe

from atlas.errors import TrainingError
from atlas.training.auxk import auxiliary_loss
from atlas.training.initialise import copied_weights, geometric_median, initial_weights
from atlas.training.products import DecodeKept, Encode, EncodeKept, Kept
from atlas.training.schedule import base_lr, lr_at
from atlas.training.selection import select_rows
from atlas.training.state import Numerics, choose_numerics, new_state
from atlas.training.update import update

DENSE = Numerics(torch.float32, sparse=False)
SPARSE = Numerics(torch.float32, sparse=True)


def run(settings, numerics, steps, stream=None, state=None):
    stream = stream or PlantedStream(batch_size=settings.batch_size, scale=0.3)
    state = state or new_state(settings, stream.d_model, 0, CPU)
    reports = [update(state, stream.batch(i).rows, settings, numerics, "planted") for i in range(steps)]
    return state, reports


@pytest.mark.parametrize("products", ["sparse", "fused"])
@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka_batch_topk"])
def test_sparse_updates_equal_dense_ones(architecture, products):
    settings = recipe(architecture, dead_feature_tokens=512)
    stream = PlantedStream(batch_size=settings.batch_size, scale=0.3, dtype=torch.float64)
    (dense, seen), (sparse, also) = (
        run(settings, Numerics.named(torch.float64, way), 15, stream, exact_state(settings, stream.d_model, 0))
        for way in ("dense", products)
    )
    assert seen[-1].dead > 0  # the auxiliary loss took part
    # Adam divides by at least 1e-8, so rounding of a gradient that is nearly 0 counts a thousandfold.
    for name, value in dense.parameters.items():
        torch.testing.assert_close(sparse.parameters[name], value, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(sparse.threshold, dense.threshold, rtol=1e-7, atol=0)
    assert torch.equal(sparse.tokens_since_fired, dense.tokens_since_fired)
    assert also[-1].l0 == seen[-1].l0 == 3


def test_gradients_of_the_products_are_those_of_autograd():
    torch.manual_seed(0)
    rows, W_enc, W_dec = torch.randn(7, 6), torch.randn(6, 10), torch.randn(10, 6)
    b_enc, b_dec, target = torch.randn(10), torch.randn(6), torch.randn(7, 6)

    def gradients(forward):
        leaves = [tensor.clone().requires_grad_() for tensor in (W_enc, b_enc, b_dec, W_dec)]
        (forward(*leaves) - target).square().sum().backward()
        return [leaf.grad for leaf in leaves]

    def kept_mask(pre):
        return torch.zeros_like(pre).view(-1).index_fill(0, select_rows(pre, 3), 1.0).view_as(pre)

    def plain(W_enc, b_enc, b_dec, W_dec):
        pre = (rows - b_dec) @ W_enc + b_enc
        return (pre * kept_mask(pre.detach())) @ W_dec + b_dec

    def dense(W_enc, b_enc, b_dec, W_dec):
        pre = Encode.apply(rows, W_enc, b_enc, b_dec, torch.float32)
        return (pre * kept_mask(pre.detach())) @ W_dec + b_dec

    def sparse(W_enc, b_enc, b_dec, W_dec):
        centred = (rows - b_dec).detach()
        pre = (centred @ W_enc + b_enc).detach()
        kept = Kept(select_rows(pre, 3), *pre.shape)
        values = EncodeKept.apply(centred, W_enc, b_enc, b_dec, pre.view(-1)[kept.flat], kept)
        return DecodeKept.apply(values, W_dec, kept) + b_dec

    expected = gradients(plain)
    for forward in (dense, sparse):
        for found, wanted in zip(gradients(forward), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_rows_without_any_kept_latent_are_reconstructed_as_the_bias():
    settings = recipe(batch_size=8)
    state = new_state(settings, 32, 0, CPU)
    with torch.no_grad():
        state.parameters["b_enc"].fill_(-100.0)
    rows = torch.randn(8, 32)
    report = update(state, rows, settings, SPARSE, "planted")
    torch.testing.assert_close(report.squared_error, rows.square().sum(dim=1).mean())
    assert report.l0 == 0
    assert (state.tokens_since_fired == 8).all()  # a pick of value zero would not be a firing


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka_batch_topk", "jumprelu"])
@pytest.mark.parametrize(("parity", "revived"), [(None, 8), ("dictionary_learning", 0)])
def test_a_latent_that_is_negative_on_every_row_is_revived_except_under_parity(architecture, parity, revived):
    sparsity = {"target_l0": 10.0} if architecture == "jumprelu" else {}
    settings = recipe(
        architecture, dead_feature_tokens=256, parity=parity, warmup_steps=0, lr=2e-2, steps=150, **sparsity
    )
    stream, state = PlantedStream(batch_size=256, scale=0.3, seed=1), new_state(settings, 32, 1, CPU)
    with torch.no_grad():
        state.parameters["b_enc"][:8] = -5.0
    ever_fired = torch.zeros(8, dtype=torch.bool)
    for step in range(150):
        update(state, stream.batch(step).rows, settings, SPARSE, "planted")
        ever_fired |= state.tokens_since_fired[:8] == 0
    assert int(ever_fired.sum()) == revived


def test_auxiliary_loss_by_hand():
    """Two dead latents, d_model 2: k_aux is 1, so each row takes the larger of its two."""
    rows = torch.tensor([[2.0, 1.0], [-1.0, 3.0], [0.5, -0.5]])
    residual = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    parameters = {"W_enc": torch.eye(2), "b_enc": torch.zeros(2), "W_dec": torch.eye(2), "b_dec": torch.zeros(2)}
    loss = auxiliary_loss(rows, residual, parameters, torch.tensor([0, 1]), torch.float32, rectify=False)
    # Reconstructions (2,0), (0,3), (.5,0): errors 1, 4, 1.25; variance of the residual 4/9.
    assert loss.item() == pytest.approx((1 + 4 + 1.25) / 3 / (4 / 9))
    same = torch.ones(3, 2)
    assert auxiliary_loss(rows, same, parameters, torch.tensor([0]), torch.float32, rectify=False).item() == 0


def test_the_threshold_moves_only_after_its_start_and_as_defined():
    settings = recipe("batch_topk", threshold_start_step=2, threshold_beta=0.75, warmup_steps=10)
    stream = PlantedStream(batch_size=256, scale=0.3)
    state = new_state(settings, 32, 0, CPU)
    seen, smallest = [], []
    for step in range(6):
        rows = stream.batch(step).rows
        with torch.no_grad():
            p = state.parameters
            pre = (rows - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
            smallest.append(pre.flatten().topk(3 * 256).values.min().item())
        update(state, rows, settings, DENSE, "planted")
        seen.append(state.threshold.item())
    assert seen[:3] == [-1, -1, -1]  # "after step 2" is strict
    assert seen[3] == pytest.approx(smallest[3])
    assert seen[4] == pytest.approx(0.75 * seen[3] + 0.25 * smallest[4])
    assert seen[5] == pytest.approx(0.75 * seen[4] + 0.25 * smallest[5])


def test_the_first_update_has_rate_zero_and_changes_nothing():
    settings = recipe()
    state, _ = run(settings, SPARSE, 1)
    fresh = initial_weights(32, 64, 0)
    for name, value in state.parameters.items():
        torch.testing.assert_close(value.detach(), fresh[name], rtol=0, atol=1e-6)


def test_schedule():
    settings = recipe(steps=100, warmup_steps=10, decay_start=50, lr=1.0)
    assert [lr_at(settings, step) for step in (0, 5, 10, 49, 50, 75, 99)] == [0, 0.5, 1, 1, 1, 0.5, 0.02]
    assert base_lr(recipe(n_latents=2**12, lr=None)) == pytest.approx(4e-4)
    assert lr_at(recipe(warmup_steps=0, lr=0.5), 0) == 0.5


def test_decoder_rows_stay_at_unit_norm_and_the_gradient_is_clipped():
    settings = recipe(warmup_steps=0, lr=0.1)
    state, reports = run(settings, DENSE, 5, PlantedStream(batch_size=256, scale=50.0))
    torch.testing.assert_close(state.parameters["W_dec"].norm(dim=1), torch.ones(64), rtol=0, atol=1e-5)
    assert reports[0].gradient_norm > 100  # what was clipped to 1 is what is reported


def test_geometric_median_survives_duplicates_and_resists_outliers():
    rows = torch.randn(101, 4, generator=torch.Generator().manual_seed(0))
    rows[0] = 1e6
    assert geometric_median(rows).norm() < 1  # the mean is 10,000 away
    point = torch.tensor([1.0, -2.0, 0.5, 3.0])
    torch.testing.assert_close(geometric_median(point.repeat(16, 1)), point)
    # A majority of equal rows is the median, and the distance to it is zero.
    torch.testing.assert_close(geometric_median(torch.cat([point.repeat(9, 1), rows[1:8]])), point, rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("numerics", [DENSE, SPARSE])
def test_a_broken_row_stops_before_any_weight_changes(value, numerics):
    settings = recipe()
    state, _ = run(settings, numerics, 2)
    before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
    rows = PlantedStream(batch_size=256).batch(0).rows
    rows[3, 1] = value
    with pytest.raises(TrainingError, match=r"loss is .* at step 2 \(rows from planted\): 1 of 256 activation rows"):
        update(state, rows, settings, numerics, "planted")
    assert all(torch.equal(before[name], parameter) for name, parameter in state.parameters.items())


def test_divergence_is_told_apart_from_broken_rows():
    settings = recipe()
    state, _ = run(settings, DENSE, 2)
    with torch.no_grad():
        state.parameters["W_dec"].fill_(1e30)
    with pytest.raises(TrainingError, match="the rows are finite, so training diverged"):
        update(state, PlantedStream(batch_size=256).batch(0).rows, settings, DENSE, "planted")


def test_choice_of_numerics():
    assert choose_numerics(recipe(parity="dictionary_learning", matmul_dtype="auto"), CPU).dtype == torch.float32
    assert choose_numerics(recipe(matmul_dtype="bfloat16"), CPU).dtype == torch.bfloat16
    assert choose_numerics(recipe(k=8), CPU).sparse and not choose_numerics(recipe(k=9), CPU).sparse
    assert not choose_numerics(recipe("relu"), CPU).sparse


def test_copies_start_as_near_copies_and_all_others_as_ever():
    plain, copied = initial_weights(32, 64, 0), copied_weights(32, 64, 8, 0)
    for name in ("W_dec", "W_enc"):
        ours, theirs = (w[name] if name == "W_dec" else w[name].T for w in (copied, plain))
        assert torch.equal(ours[:56], theirs[:56])
    cosines = (copied["W_dec"][:8] * copied["W_dec"][56:]).sum(1)
    assert (cosines > 0.9997).all() and (cosines < 1).all()
    assert torch.equal(copied["W_enc"], copied["W_dec"].T)
    assert torch.equal(copied_weights(32, 64, 8, 0)["W_dec"], copied["W_dec"])
