"""Dictionaries whose recovery is known by arithmetic: the truth, random ones, permuted, flipped, doubled, partial."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from atlas.errors import EvaluationError
from atlas.planted.recovery import Chance, FiringMatch, Partners, most_frequent
from atlas.planted.truth import Truth

N_FEATURES, N_ROWS = 24, 400


@pytest.fixture
def truth() -> Truth:
    generator = np.random.Generator(np.random.PCG64(0))
    directions = np.linalg.qr(generator.standard_normal((32, 32)))[0][:N_FEATURES].astype(np.float32)
    frequency = np.linspace(0.5, 0.1, N_FEATURES)
    none = np.full(N_FEATURES, -1)
    return Truth(directions, frequency, none, frequency, np.ones(N_FEATURES), np.zeros((N_FEATURES, 0)))


@pytest.fixture
def codes(truth) -> torch.Tensor:
    generator = np.random.Generator(np.random.PCG64(1))
    fires = generator.random((N_ROWS, N_FEATURES)) < truth.frequency
    return torch.from_numpy(fires * generator.uniform(0.5, 2.0, fires.shape)).float()


def told(partners: Partners, latents: torch.Tensor, codes: torch.Tensor) -> dict:
    match = FiringMatch(partners, 20)
    for rows in torch.arange(len(codes)).split(150):  # however rows come
        match.update(latents[rows], csr_array(codes[rows].numpy()), rows.numpy() // 20)
    return match.measures()[0]


def directions_of(truth: Truth) -> torch.Tensor:
    return torch.from_numpy(truth.directions)


def test_the_truth_itself_scores_one_on_everything(truth, codes):
    partners = Partners.of(directions_of(truth), directions_of(truth))
    assert all(value == pytest.approx(1, abs=1e-6) for value in partners.measures(truth.frequency).values())
    found = told(partners, codes, codes)
    for name in ("mcc_firing", "precision", "recall", "f1", "precision_pooled", "recall_pooled"):
        assert found[name] == pytest.approx(1, abs=1e-6), name
    assert found["n_tested"] == N_FEATURES


def test_order_and_length_of_latents_do_not_matter(truth, codes):
    order = torch.randperm(N_FEATURES, generator=torch.Generator().manual_seed(0))
    partners = Partners.of(directions_of(truth), 3.0 * directions_of(truth)[order])
    assert (order.numpy()[partners.latent] == np.arange(N_FEATURES)).all()
    assert partners.measures(truth.frequency)["share_found"] == 1
    assert told(partners, 0.5 * codes[:, order], codes)["mcc_firing"] == pytest.approx(1, abs=1e-6)


def test_a_direction_that_points_the_other_way_is_not_found(truth):
    flipped = directions_of(truth).clone()
    flipped[:6] *= -1
    partners = Partners.of(directions_of(truth), flipped)
    assert partners.measures(truth.frequency)["share_found"] == pytest.approx(18 / 24)
    assert not partners.found[:6].any()


def test_a_copy_takes_no_second_feature(truth):
    """The first half twice: half of the features are found, each once, though each has two close latents."""
    half = directions_of(truth)[: N_FEATURES // 2]
    partners = Partners.of(directions_of(truth), torch.cat([half, half]))
    measures = partners.measures(truth.frequency)
    assert measures["share_found"] == measures["share_nearest_above_08"] == 0.5
    assert measures["mcc"] == pytest.approx(0.5, abs=1e-6)  # true directions are orthogonal
    assert measures["share_of_firings_found"] == pytest.approx(truth.frequency[:12].sum() / truth.frequency.sum())
    assert len(set(partners.latent)) == N_FEATURES


def test_two_features_may_share_a_nearest_latent_but_no_partner():
    """Features 30 degrees apart, a latent between them (cosine .966 to both), and one far from both."""
    angle = np.deg2rad([-15, 15])
    features = torch.tensor(np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)).float()
    partners = Partners.of(features, torch.tensor([[1.0, 0, 0], [0, 0, 1]]))
    measures = partners.measures(np.array([0.5, 0.5]))
    assert measures["share_nearest_above_08"] == 1
    assert measures["share_found"] == 0.5


def test_random_dictionaries_have_the_chance_level():
    generator = torch.Generator().manual_seed(100)  # the draws behind the chance level have seeds 0, 1, …
    directions = torch.nn.functional.normalize(torch.randn(40, 30, generator=generator), dim=1)
    frequency = np.full(40, 0.1)
    chance = Chance(directions, frequency, 40, 8).measures
    other = torch.randn(40, 30, generator=torch.Generator().manual_seed(99))
    found = Partners.of(directions, other).measures(frequency)
    assert chance["share_found"] == (0, 0) and found["share_found"] == 0
    mean, sd = chance["mcc"]
    assert 0 < mean < 0.6
    assert abs(found["mcc"] - mean) < 6 * sd


def test_firing_by_chance_has_the_precision_of_the_frequency(truth, codes):
    """Latents that fire on rows drawn at random: precision is the feature's frequency, recall the latent's own."""
    partners = Partners.of(directions_of(truth), directions_of(truth))
    generator = torch.Generator().manual_seed(5)
    latents = (torch.rand(codes.shape, generator=generator) < 0.3).float()
    found = told(partners, latents, codes)
    fires = (codes > 0).double()
    assert found["recall_pooled"] == pytest.approx(0.3, abs=0.05)
    assert found["precision"] == pytest.approx(fires.mean().item(), abs=0.05)
    assert abs(found["mcc_firing"]) < 0.05
    low, high = found["recall_pooled_interval"]
    assert low < 0.3 < high


def test_a_latent_that_fires_on_half_of_its_feature_and_on_as_much_else(truth, codes):
    latents = codes.clone()
    for feature in range(N_FEATURES):
        rows, others = (codes[:, feature] > 0).nonzero()[:, 0], (codes[:, feature] == 0).nonzero()[:, 0]
        half = len(rows) // 2
        latents[rows[:half], feature] = 0
        latents[others[: len(rows) - half], feature] = 1
    found = told(Partners.of(directions_of(truth), directions_of(truth)), latents, codes)
    for name in ("precision", "recall", "f1"):
        assert found[name] == pytest.approx(0.5, abs=0.01)


def test_silence_counts_against_a_latent_and_features_that_never_fire_are_left_out(truth, codes):
    codes = codes.clone()
    codes[:, :4] = 0
    latents = codes.clone()
    latents[:, 4:14] = 0
    found = told(Partners.of(directions_of(truth), directions_of(truth)), latents, codes)
    assert found["n_tested"] == 20
    for name in ("precision", "recall", "f1", "mcc_firing"):
        assert found[name] == pytest.approx(0.5, abs=1e-6)
    assert found["precision_pooled"] == 1
    match = FiringMatch(Partners.of(directions_of(truth), directions_of(truth)), 1)
    match.update(latents, csr_array(codes.shape), np.zeros(len(codes), dtype=np.int64))
    measures, reasons = match.measures()
    assert measures["precision"] is None and "no scored feature fires on 400 rows" in reasons["precision"]


def test_fewer_latents_than_features_are_refused(truth):
    with pytest.raises(EvaluationError, match="24 features are looked for, but the dictionary has 23 latents"):
        Partners.of(directions_of(truth), directions_of(truth)[:23])


def test_the_most_frequent_features_are_looked_for(truth):
    assert most_frequent(truth, 3).tolist() == [0, 1, 2]
