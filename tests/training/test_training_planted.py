"""Each architecture finds a planted dictionary, and what it saves is what it learnt."""

import pandas as pd
import pytest
import torch
import yaml
from training.planted import PlantedStream, recipe, train

from atlas.training.monitor import look
from atlas.training.sae import load_sae

_THRESHOLD = {"threshold_start_step": 50, "threshold_beta": 0.98}
SETTINGS = {
    "topk": {},
    "batch_topk": _THRESHOLD,
    "matryoshka_batch_topk": _THRESHOLD | {"steps": 800, "decay_start": 600},
    "relu": {"l1_coefficient": 0.05, "sparsity_warmup_steps": 50},
    "gated": {"l1_coefficient": 0.15, "sparsity_warmup_steps": 50},
    "jumprelu": {"bandwidth": 0.05, "sparsity_warmup_steps": 100},
}


@pytest.mark.parametrize("matmul_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", SETTINGS)
def test_a_planted_dictionary_is_recovered(tmp_path, architecture, matmul_dtype):
    stream = PlantedStream(batch_size=256)
    common = {"steps": 400, "lr": 1e-2, "decay_start": 300, "monitor_every": 200, "dead_feature_tokens": 5_000}
    settings = recipe(architecture, **(common | {"matmul_dtype": matmul_dtype} | SETTINGS[architecture]))
    sae = load_sae(train(tmp_path, settings, stream))
    cosines = stream.dictionary @ sae.W_dec.T
    assert cosines.max(dim=1).values.mean() > 0.9  # mean of the maximal cosines
    held_out = look(sae, stream.rows(5 * 10**6, 4096))
    assert held_out.explained_variance > 0.9
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64), rtol=0, atol=1e-5)
    if settings.k or settings.target_l0:
        assert held_out.l0 == pytest.approx(settings.k or settings.target_l0, rel=0.1)
    else:
        assert held_out.l0 < 8


def test_the_first_latents_of_matryoshka_reconstruct_alone(tmp_path):
    """A quarter of the latents, which is the first group, explains more than any quarter of batch_topk's does."""
    stream = PlantedStream(batch_size=256)
    rows = stream.rows(5 * 10**6, 2048)

    def explained_by(architecture):
        settings = recipe(architecture, steps=300, lr=1e-2, **_THRESHOLD)
        sae = load_sae(train(tmp_path / architecture, settings, stream))
        variance = (rows - rows.mean(dim=0)).square().sum()
        shares = []
        for start in range(0, 64, 16):
            latents = torch.zeros(len(rows), 64)
            latents[:, start : start + 16] = sae.encode(rows)[:, start : start + 16]
            shares.append(1 - ((rows - sae.decode(latents)).square().sum() / variance).item())
        return shares

    nested, flat = explained_by("matryoshka_batch_topk"), explained_by("batch_topk")
    assert nested[0] > max(flat) + 0.1
    assert nested[0] > max(nested[1:]) + 0.1


def test_bfloat16_rows_train_as_well(tmp_path):
    stream = PlantedStream(batch_size=512, dtype=torch.bfloat16)
    sae = load_sae(train(tmp_path, recipe(steps=400, batch_size=512, decay_start=300), stream))
    assert look(sae, stream.rows(5 * 10**6, 1024)).explained_variance > 0.9


def test_curves_and_card_are_complete(tmp_path):
    folder = train(tmp_path, recipe("batch_topk"), PlantedStream(batch_size=256))
    curves = pd.read_parquet(folder / "training.parquet")
    assert sorted(set(curves["step"])) == [10, 20, 30, 40]
    assert list(curves["split"][:3]) == ["train", "in_sample", "oos"]
    assert (curves["tokens"] == curves["step"] * 256).all()
    train_rows = curves[curves["split"] == "train"]
    assert train_rows["threshold"].isna().tolist() == [True, False, False, False]
    assert train_rows["lr"].tolist() == [3e-3] * 4
    assert train_rows["l0"].tolist() == [3.0] * 4
    assert not train_rows[["loss", "squared_error", "gradient_norm", "dead_latents"]].isna().any().any()
    card = yaml.safe_load((folder / "run_card.yaml").read_text())
    assert card["sae"]["threshold"] == load_sae(folder).threshold
    assert card["tokens"]["rows_drawn"] == 40 * 256
    assert set(card["outcomes"]) == {"train", "in_sample", "oos"}
    assert not (tmp_path / "state").exists()


def test_reruns_give_the_same_bytes_and_seeds_differ(tmp_path):
    stream = PlantedStream(batch_size=256)
    first, again, other = (train(tmp_path / n, recipe(), stream, seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    for name in ("sae_weights.safetensors", "cfg.json", "training.parquet"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
        if name != "cfg.json":
            assert (first / name).read_bytes() != (other / name).read_bytes()


def test_the_scale_of_the_rows_does_not_matter(tmp_path):
    """Normalisation is folded: rows 64 times as large give the same decoder and biases 64 times as large."""
    small, large = PlantedStream(scale=1.0, batch_size=256), PlantedStream(scale=64.0, batch_size=256)
    settings = recipe("batch_topk")
    one, many = (load_sae(train(tmp_path / str(s.scale), settings, s)) for s in (small, large))
    assert torch.equal(one.W_enc, many.W_enc) and torch.equal(one.W_dec, many.W_dec)
    torch.testing.assert_close(many.b_dec, 64 * one.b_dec)
    torch.testing.assert_close(many.b_enc, 64 * one.b_enc)
    assert many.threshold == pytest.approx(64 * one.threshold, rel=1e-6)
    rows = small.rows(77, 100)
    torch.testing.assert_close(many.encode(64 * rows), 64 * one.encode(rows), rtol=1e-4, atol=1e-4)


def test_without_normalisation_rows_are_trained_on_as_they_are(tmp_path):
    stream = PlantedStream(scale=3.0, batch_size=256)
    folder = train(tmp_path, recipe(normalise_activations=False), stream)
    card = yaml.safe_load((folder / "run_card.yaml").read_text())
    assert card["sae"]["normalisation"]["rows_divided_by"] == 1.0
    curves = pd.read_parquet(folder / "training.parquet")
    assert curves["loss"].iloc[0] > 1.0  # squared error in the rows' own units, far above unit scale
