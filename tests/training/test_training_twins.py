"""Twins: what a trained null may not learn stays as it was, and everything else is trained as always."""

import pytest
import torch
from training.planted import CPU, SPARSITY, PlantedStream, card_fields, recipe, train

from atlas.config.recipe import TWINS, Recipe
from atlas.errors import TrainingError
from atlas.runcard import read_run_card
from atlas.training import train as train_module
from atlas.training.choice import choose
from atlas.training.sae import load_sae
from atlas.training.state import new_state
from atlas.training.train import train_sae
from atlas.training.twins import keep_near

FILES = ("sae_weights.safetensors", "cfg.json", "training.parquet")
FROZEN = {"frozen_decoder": "W_dec", "frozen_encoder": "W_enc"}


@pytest.mark.parametrize("products", ["auto", "fused"])
def test_twins_are_never_updated_by_fused_loops(products, tmp_path):
    """These update every weight; a recipe that names them trains its twins by the sums of torch."""
    own = Recipe(
        architecture="topk", n_latents=4096, k=8, steps=10, batch_size=1024, products=products, twin="frozen_decoder"
    )
    numerics, choice = choose(own, 64, None, CPU, tmp_path)
    assert not numerics.fused and (choice.products, choice.by) == ("sparse", "shape")


def settings(architecture="topk", **overrides):
    return recipe(architecture, **({"lr": 3e-2, "dead_feature_tokens": 512} | overrides))


def start_of(own: Recipe, seed=0) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in new_state(own, 32, seed, CPU).parameters.items()}


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=1)


@pytest.mark.parametrize("architecture", SPARSITY)
@pytest.mark.parametrize("kind", FROZEN)
def test_a_frozen_weight_keeps_its_bits_and_all_others_are_trained(tmp_path, architecture, kind):
    own = settings(architecture, twin=kind)
    before = start_of(own)
    sae = load_sae(train(tmp_path, own, PlantedStream(batch_size=256)))
    kept = FROZEN[kind]
    (other,) = {"W_dec", "W_enc"} - {kept}
    assert torch.equal(getattr(sae, kept), before[kept])
    assert not torch.equal(getattr(sae, other), before[other])
    assert not torch.equal(sae.b_dec, before["b_dec"])
    assert float(sae.b_enc.abs().max()) > 0


@pytest.mark.parametrize("architecture", SPARSITY)
def test_near_rows_stay_within_the_cosine_and_some_reach_it(tmp_path, architecture):
    own = settings(architecture, twin="near_decoder")
    before = start_of(own)["W_dec"]
    sae = load_sae(train(tmp_path, own, PlantedStream(batch_size=256)))
    found = cosines(sae.W_dec, before)
    assert float(found.min()) >= own.twin_cosine
    assert float(found.min()) < own.twin_cosine + 1e-4
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(len(found)), atol=1e-5)
    free = load_sae(train(tmp_path / "free", settings(architecture), PlantedStream(batch_size=256)))
    assert float(cosines(free.W_dec, before).min()) < own.twin_cosine


def test_every_update_keeps_near_rows_within_the_cosine(tmp_path, monkeypatch):
    own, seen = settings(twin="near_decoder", twin_cosine=0.95), []

    def watched(state, *rest):
        seen.append(float(cosines(state.parameters["W_dec"].detach(), state.start).min()))
        return update(state, *rest)

    update = train_module.update
    monkeypatch.setattr(train_module, "update", watched)
    train(tmp_path, own, PlantedStream(batch_size=256))
    assert len(seen) == own.steps and min(seen) >= 0.95


def test_the_nearest_row_lies_between_row_and_start():
    start = torch.eye(4)[:3]
    rows = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]])
    keep_near(rows, start, 0.8)
    assert torch.allclose(rows[0], torch.tensor([0.8, 0.6, 0.0, 0.0]), atol=1e-5)
    assert torch.equal(rows[1], torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert torch.equal(rows[2], start[2])


@pytest.mark.parametrize("kind", TWINS)
def test_a_twin_begins_where_its_sae_begins(kind):
    plain, twin = start_of(settings(), seed=5), start_of(settings(twin=kind), seed=5)
    assert all(torch.equal(plain[name], twin[name]) for name in plain)


@pytest.mark.parametrize("kind", TWINS)
def test_a_resumed_twin_ends_in_the_same_bits(tmp_path, monkeypatch, kind):
    own = settings("batch_topk", twin=kind, checkpoint_every=7)
    whole = train(tmp_path / "whole", own, PlantedStream(batch_size=256))

    class KilledError(Exception):
        pass

    class Failing(PlantedStream):
        def batch(self, step):
            if step == 25:
                raise KilledError
            return super().batch(step)

    with pytest.raises(KilledError):
        train(tmp_path / "killed", own, Failing(batch_size=256))
    again = train(tmp_path / "killed", own, PlantedStream(batch_size=256))
    assert all((whole / name).read_bytes() == (again / name).read_bytes() for name in FILES)
    assert read_run_card(again / "run_card.yaml")["cost"]["resumed_from_steps"] == [21]


def test_the_run_card_says_which_twin_it_is(tmp_path):
    sae = train(tmp_path, settings(twin="frozen_decoder", steps=6), PlantedStream(batch_size=256))
    assert read_run_card(sae / "run_card.yaml")["sae"]["twin"] == "frozen_decoder"


def test_a_transcoder_has_no_twins(tmp_path):
    stream = PlantedStream(batch_size=256)
    stream.d_target = 32
    monitors = {"in_sample": stream.rows(1, 64)}
    with pytest.raises(TrainingError, match=r"twin is 'frozen_encoder': a transcoder has no twins"):
        train_sae(
            settings(twin="frozen_encoder"),
            stream,
            monitors,
            0,
            CPU,
            tmp_path / "sae",
            tmp_path / "state",
            card_fields() | {"target_hook": "mlp_out.2"},
            monitor_targets=monitors,
        )
    assert not (tmp_path / "sae").exists()
