"""Transcoders: planted maps are found, scales do not matter, and a killed run ends in the same bits."""

import dataclasses
import json
import random

import pytest
import torch
from training.planted import CPU, card_fields, recipe
from training.planted import train as train_sae_on

from atlas.errors import TrainingError
from atlas.runcard import read_run_card
from atlas.training.initialise import initial_transcoder, initial_weights
from atlas.training.monitor import look
from atlas.training.sae import Sae, load_sae, save_sae
from atlas.training.train import train_sae

FILES = ("sae_weights.safetensors", "cfg.json", "training.parquet")


class PlantedPairs:
    """Rows whose active directions decide which output directions the target is made of, and how strongly.

    x = offset_in + Σ a_i u_i, y = offset_out + Σ g(a_i) v_i with g(a) = 2a - 1: a nonlinear map of x (through which
    directions are active), of another width, that no decoder equal to the encoder could make.
    """

    def __init__(self, d_model=32, d_target=24, n_features=40, active=3, batch_size=256, scales=(5.0, 0.5), seed=0):
        generator = torch.Generator().manual_seed(seed)
        unit = torch.nn.functional.normalize
        self.inputs = unit(torch.randn(n_features, d_model, generator=generator), dim=1)
        self.outputs = unit(torch.randn(n_features, d_target, generator=generator), dim=1)
        self.offsets = torch.randn(d_model, generator=generator), torch.randn(d_target, generator=generator)
        self.active, self.batch_size, self.scales, self.seed = active, batch_size, scales, seed
        self.d_model, self.d_target, self.fail_at = d_model, d_target, None
        self.identity = f"pairs {d_model} {d_target} {n_features} {active} {batch_size} {scales} {seed}"

    def pairs(self, number, n_rows):
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        chosen = torch.rand(n_rows, len(self.inputs), generator=generator).topk(self.active, dim=1).indices
        strength = 1 + torch.rand(n_rows, self.active, generator=generator)
        codes = torch.zeros(n_rows, len(self.inputs)).scatter_(1, chosen, strength)
        answers = torch.zeros_like(codes).scatter_(1, chosen, 2 * strength - 1)
        rows = self.scales[0] * (codes @ self.inputs + self.offsets[0])
        return rows, self.scales[1] * (answers @ self.outputs + self.offsets[1])

    def batch(self, step):
        if step == self.fail_at:
            raise KilledError
        return PairBatch(*self.pairs(step, self.batch_size))

    def where(self, step):
        return [("planted.h5", row) for row in range(self.batch_size)]

    def statistics(self):
        return Moments(self.pairs(10**6, 8192)[0])

    def target_statistics(self):
        return Moments(self.pairs(10**6, 8192)[1])

    def drawn_shares(self, steps):
        return {"planted": 1.0}


class KilledError(Exception):
    pass


class PairBatch:
    def __init__(self, rows, targets):
        self.rows, self.targets, self.corpora = rows, targets, {"planted": len(rows)}


class Moments:
    """Statistics as the store has them."""

    def __init__(self, rows):
        norms = rows.double().norm(dim=1)
        self.n_rows, self.mean = 10**5, rows.double().mean(dim=0)
        self.mean_square_norm, self.median_norm = float(norms.square().mean()), float(norms.median())


def train(folder, settings, stream, seed=0, **monitored):
    rows, targets = stream.pairs(10**7, 512)
    monitors = {"in_sample": rows, "oos": rows[:100] * 1.1}
    wanted = {"in_sample": targets, "oos": targets[:100]}
    card = card_fields() | {"hook": "mlp_in.2", "target_hook": "mlp_out.2"}
    wanted |= monitored
    train_sae(settings, stream, monitors, seed, CPU, folder / "sae", folder / "state", card, monitor_targets=wanted)
    return folder / "sae"


def long(architecture, **overrides):
    return recipe(architecture, **({"steps": 1500, "batch_size": 512, "dead_feature_tokens": 20_000} | overrides))


@pytest.fixture(scope="module", params=["topk", "batch_topk"])
def trained(request, tmp_path_factory):
    stream = PlantedPairs(batch_size=512)
    settings = long(request.param, monitor_every=500, checkpoint_every=10_000)
    return stream, train(tmp_path_factory.mktemp(request.param), settings, stream)


def test_planted_directions_are_recovered_on_both_sides(trained):
    stream, folder = trained
    transcoder = load_sae(folder)
    assert (transcoder.d_model, transcoder.d_target, transcoder.is_transcoder) == (32, 24, True)
    rows, targets = stream.pairs(5 * 10**6, 4096)
    held_out = look(transcoder, rows, targets)
    assert held_out.explained_variance > 0.9
    assert held_out.l0 == pytest.approx(3, rel=0.1)
    cosines = stream.outputs @ torch.nn.functional.normalize(transcoder.W_dec, dim=1).T
    best, latent = cosines.max(dim=1)
    assert (best > 0.95).double().mean() > 0.9
    # The latent that writes a planted output reads the planted input that belongs to it.
    encoder = torch.nn.functional.normalize(transcoder.W_enc, dim=0)
    read = (stream.inputs @ encoder).argmax(dim=0)
    assert (read[latent] == torch.arange(len(latent))).double().mean() > 0.9


def test_decoder_rows_have_unit_norm_after_folding(trained):
    norms = load_sae(trained[1]).W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_predicting_the_mean_of_the_targets_explains_nothing(trained):
    stream, folder = trained
    transcoder = load_sae(folder)
    rows, targets = stream.pairs(6 * 10**6, 2048)
    transcoder.b_dec.copy_(targets.mean(dim=0))
    transcoder.W_dec.zero_()
    assert look(transcoder, rows, targets).explained_variance == pytest.approx(0, abs=1e-6)


def test_run_card_names_hooks_widths_and_scales(trained):
    stream, folder = trained
    card = read_run_card(folder / "run_card.yaml")
    assert (card["hook"], card["target_hook"]) == ("mlp_in.2", "mlp_out.2")
    assert (card["sae"]["d_model"], card["sae"]["d_target"]) == (32, 24)
    rows, targets = stream.statistics(), stream.target_statistics()
    spread = (rows.mean_square_norm - float(rows.mean.square().sum())) ** 0.5
    assert card["sae"]["normalisation"] == {
        "rows_divided_by": pytest.approx(spread),
        "rows_centred": "mean",
        "targets_divided_by": pytest.approx(targets.mean_square_norm**0.5),
        "folded_into_weights": True,
    }


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_scales_of_both_hooks_are_folded(tmp_path, architecture):
    """Rows times a and targets times b, powers of two so that nothing rounds: the same transcoder, b times as large."""
    settings = recipe(architecture)
    plain = load_sae(train(tmp_path / "plain", settings, PlantedPairs(scales=(1.0, 1.0))))
    scaled = load_sae(train(tmp_path / "scaled", settings, PlantedPairs(scales=(64.0, 0.25))))
    rows = PlantedPairs(scales=(1.0, 1.0)).pairs(3, 200)[0]
    latents = plain.encode(rows)
    torch.testing.assert_close(scaled.encode(64.0 * rows), 0.25 * latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled.W_dec, plain.W_dec, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scaled.b_dec, 0.25 * plain.b_dec, rtol=1e-4, atol=1e-6)
    if architecture == "batch_topk":
        assert scaled.threshold == pytest.approx(0.25 * plain.threshold, rel=1e-4)


def test_a_shift_of_the_rows_goes_into_the_encoder_bias(tmp_path):
    stream, shifted = PlantedPairs(scales=(1.0, 1.0)), PlantedPairs(scales=(1.0, 1.0))
    shifted.offsets = stream.offsets[0] + 4.0, stream.offsets[1]
    # So few steps that another latent, kept because of rounding, moves no weight by what is allowed here.
    settings = recipe(steps=8)
    one, two = (load_sae(train(tmp_path / str(i), settings, s)) for i, s in enumerate((stream, shifted)))
    torch.testing.assert_close(two.W_enc, one.W_enc, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(two.b_enc, one.b_enc - 4.0 * one.W_enc.sum(dim=0), rtol=1e-3, atol=1e-3)


def test_encoder_and_decoder_start_apart_and_depend_on_the_seed():
    weights = initial_transcoder(16, 16, 40, seed=0)
    torch.testing.assert_close(weights["W_enc"].norm(dim=0), torch.ones(40))
    torch.testing.assert_close(weights["W_dec"], initial_weights(16, 40, seed=0)["W_dec"])
    own = torch.nn.functional.cosine_similarity(weights["W_enc"].T, weights["W_dec"], dim=1)
    assert own.abs().max() < 0.9
    assert not torch.equal(weights["W_enc"], initial_transcoder(16, 16, 40, seed=1)["W_enc"])


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_a_run_killed_at_random_steps_ends_in_the_same_bits(tmp_path, architecture):
    settings = recipe(architecture, checkpoint_every=7, dead_feature_tokens=512)
    whole = train(tmp_path / "whole", settings, PlantedPairs())
    stream = PlantedPairs()
    for stream.fail_at in sorted(random.Random(architecture).sample(range(1, 40), 3)):
        with pytest.raises(KilledError):
            train(tmp_path / "cut", settings, stream)
    stream.fail_at = None
    cut = train(tmp_path / "cut", settings, stream)
    for name in FILES:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def test_dense_and_sparse_products_train_alike(tmp_path):
    """k above an eighth of the latents is computed densely."""
    stream = PlantedPairs()
    sparse = look(load_sae(train(tmp_path / "s", recipe(n_latents=64, k=8), stream)), *stream.pairs(9, 1000))
    dense = look(load_sae(train(tmp_path / "d", recipe(n_latents=63, k=8), stream)), *stream.pairs(9, 1000))
    assert sparse.explained_variance == pytest.approx(dense.explained_variance, abs=0.1)


def test_what_cannot_be_trained_is_refused(tmp_path):
    stream = PlantedPairs()
    with pytest.raises(TrainingError, match=r"a transcoder cannot have architecture 'relu'.*one of topk, batch_topk"):
        train(tmp_path, recipe("relu"), stream)
    rows, targets = stream.pairs(0, 512)
    with pytest.raises(TrainingError, match=r"monitor 'in_sample': its 512 rows need as many targets"):
        train(tmp_path, recipe(), stream, in_sample=targets[:100])
    with pytest.raises(TrainingError, match=r"targets of monitor 'in_sample' has shape \(512, 32\).*d_target 24"):
        train(tmp_path, recipe(), stream, in_sample=rows)
    stream.target_statistics = lambda: Moments(torch.zeros(10, 24))
    with pytest.raises(TrainingError, match=r"norm of the training targets is 0"):
        train(tmp_path, recipe(), stream)


def test_a_card_that_says_otherwise_is_refused_before_training(tmp_path):
    rows, targets = PlantedPairs().pairs(0, 64)
    arguments = ({"in_sample": rows}, 0, CPU, tmp_path / "sae", tmp_path / "state")
    with pytest.raises(TrainingError, match=r"target_hook None, but targets to monitor are given"):
        train_sae(recipe(), PlantedPairs(), *arguments, card_fields(), monitor_targets={"in_sample": targets})
    with pytest.raises(TrainingError, match=r"target_hook 'mlp_out.2', but targets to monitor are missing"):
        train_sae(recipe(), PlantedPairs(), *arguments, card_fields() | {"target_hook": "mlp_out.2"})


def test_damaged_targets_are_named(tmp_path):
    stream = PlantedPairs()
    whole = stream.batch
    stream.batch = lambda step: whole(step) if step != 4 else PairBatch(whole(4).rows, whole(4).targets * float("nan"))
    with pytest.raises(TrainingError, match=r"step 4 .*: 256 of 256 activation rows are not finite"):
        train(tmp_path, recipe(), stream)


def test_an_sae_of_the_same_stream_ignores_the_targets(tmp_path):
    """The stream serves both; only what is asked for is trained."""
    stream = PlantedPairs()
    stream.rows = lambda number, n_rows: stream.pairs(number, n_rows)[0]
    sae = load_sae(train_sae_on(tmp_path, recipe(), stream))
    assert (sae.is_transcoder, sae.d_target) == (False, 32)


@pytest.mark.parametrize(("architecture", "theirs"), [("topk", "topk"), ("batch_topk", "jumprelu_transcoder")])
def test_transcoder_round_trip_and_layout(tmp_path, architecture, theirs):
    """Another width at the target; nothing subtracted from the rows. TopK has no transcoder class in SAELens."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (6, 10), "b_enc": (10,), "W_dec": (10, 4), "b_dec": (4,)}
    weights = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    threshold = 0.25 if architecture == "batch_topk" else None
    sae = Sae(architecture, **weights, k=2, threshold=threshold, is_transcoder=True)
    metadata = {"model_name": "tiny", "hook_name": "mlp_in.3", "target_hook_name": "mlp_out.3"}
    save_sae(sae, tmp_path, metadata | {"model_architecture": "llama"})
    loaded = load_sae(tmp_path)
    rows = torch.randn(20, 6)
    torch.testing.assert_close(loaded.pre_activations(rows), rows @ sae.W_enc + sae.b_enc)
    assert torch.equal(loaded.decode(loaded.encode(rows)), sae.decode(sae.encode(rows)))
    assert (loaded.is_transcoder, loaded.d_model, loaded.d_target) == (True, 6, 4)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert (config["architecture"], config["d_in"], config["d_out"]) == (theirs, 6, 4)
    assert config["apply_b_dec_to_input"] is False
    assert config["metadata"]["hook_name"] == "blocks.3.mlp.hook_in"
    assert config["metadata"]["hook_name_out"] == "blocks.3.hook_mlp_out"
    assert config["metadata"]["atlas"]["target_hook_name"] == "mlp_out.3"
    with pytest.raises(TrainingError, match="metadata lacks 'target_hook_name'"):
        save_sae(sae, tmp_path, {"model_name": "tiny", "hook_name": "mlp_in.3"})
    with pytest.raises(TrainingError, match=r"has target_hook_name 'mlp_out\.3', but this is an SAE"):
        save_sae(dataclasses.replace(sae, is_transcoder=False), tmp_path, metadata)
