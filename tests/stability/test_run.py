"""From files: copies of one SAE, seeds that differ, one seed, latents that never fire."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.codes.encode import sae_sha256
from atlas.codes.layout import IDENTITY
from atlas.codes.writer import CodeRows, CodesWriter
from atlas.config.downstream import Stability
from atlas.errors import EvaluationError
from atlas.stability.run import ONE_SEED, SeedFiles, run_stability
from atlas.stability.study_table import write_stability_table
from atlas.training.sae import Sae, save_sae

CPU = torch.device("cpu")
N_ROWS = 300


def sae_of(seed: int, n_latents: int = 40, d_model: int = 16) -> Sae:
    W_dec = torch.nn.functional.normalize(
        torch.randn(n_latents, d_model, generator=torch.Generator().manual_seed(seed)), dim=1
    )
    return Sae("topk", W_dec.T.contiguous(), torch.zeros(n_latents), W_dec, torch.zeros(d_model), k=4)


def permuted(sae: Sae, order: torch.Tensor) -> Sae:
    return dataclasses.replace(sae, W_enc=sae.W_enc[:, order].contiguous(), W_dec=sae.W_dec[order].contiguous())


def files_of(folder, sae: Sae, seed: int, silent: int = 0, n_rows: int = N_ROWS) -> SeedFiles:
    """An SAE, its codes on random rows (the last `silent` latents never fire), and the part of its metrics used."""
    folder = folder / f"seed-{seed}"
    folder.mkdir()
    save_sae(sae, folder, {"model_name": "tiny", "hook_name": "resid_post.1"})
    rows = torch.randn(n_rows, sae.d_model, generator=torch.Generator().manual_seed(99))
    dense = sae.encode(rows).numpy()
    if silent:
        dense[:, -silent:] = 0
    order = CodeRows(np.arange(n_rows), np.arange(n_rows) // 20, np.arange(n_rows) % 5 > 0, np.zeros(n_rows, bool))
    writer = CodesWriter(folder / "chat.h5", sae.n_latents, order, 64)
    for first in range(0, n_rows, 64):
        row, latent = np.nonzero(dense[first : first + 64])
        writer.write(latent, row + first, dense[first + row, latent])
    writer.finish(dict.fromkeys(IDENTITY, "x") | {"sae_sha256": sae_sha256(folder), "dictionary": "sae"})
    value = 0.5 + 0.1 * seed
    metrics = {"explained_variance_regular": value, "explained_variance_regular_interval": [value - 0.1, value + 0.1]}
    metrics["explained_variance_regular_clusters"] = 20
    (folder / "metrics.json").write_text(json.dumps({"corpora": {"chat": {"atlas": metrics}}}))
    return SeedFiles(folder, folder / "chat.h5", folder / "metrics.json")


def run(folder, files) -> tuple[dict, pd.DataFrame]:
    run_stability(files, "chat", Stability(), CPU, folder / "stability.json", folder / "latents.parquet")
    return json.loads((folder / "stability.json").read_text()), pd.read_parquet(folder / "latents.parquet")


def test_permuted_copies_are_stable_in_every_respect(tmp_path):
    sae, order = sae_of(0), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    files = {0: files_of(tmp_path, sae, 0), 1: files_of(tmp_path, permuted(sae, order), 1)}
    result, table = run(tmp_path, files)
    for own in result["saes"].values():
        for which in ("firing", "all"):
            for measure in own[which].values():
                assert measure["value"] == pytest.approx(1, abs=1e-6)
                assert measure["interval"] == pytest.approx([1, 1], abs=1e-6)
                assert measure["null_mean"] < 0.8
        assert own["firing_jaccard_partners"] == pytest.approx(1)
        assert own["firing_spearman_partners"] == pytest.approx(1)
        assert own["firing_jaccard_random"] < 0.2
    first = table[table.seed == 0].set_index("latent")
    assert np.array_equal(order[first.partner.to_numpy(dtype=int)], first.index)
    assert first.shared.all()
    assert first.firings.sum() > 0


def test_independent_seeds_are_at_their_null(tmp_path):
    result, table = run(tmp_path, {seed: files_of(tmp_path, sae_of(seed), seed) for seed in range(3)})
    own = result["saes"]["1"]
    assert own["other_seeds"] == [0, 2]
    assert abs(own["firing"]["pw_mcc"]["null_z"]) < 6
    assert own["firing"]["shared"]["value"] < 0.2
    low, high = own["firing"]["pw_mcc"]["interval"]
    assert low < own["firing"]["pw_mcc"]["value"] < high
    assert len(table) == 3 * 2 * 40
    assert result["noise"]["seed_sd"] == pytest.approx(0.1)
    student = 2.093  # of 20 documents
    assert result["noise"]["document_sd"] == pytest.approx(0.2 / (2 * 1.5 * student), rel=1e-3)


def test_one_seed_is_null_with_the_reason(tmp_path):
    result, table = run(tmp_path, {0: files_of(tmp_path, sae_of(0), 0)})
    own = result["saes"]["0"]
    assert own["firing"] is own["all"] is own["matching"] is None
    assert own["reasons"] == {"stability": ONE_SEED}
    assert own["firing_spearman_halves"] is not None
    assert len(table) == 0
    write_stability_table("s", {"tiny/resid_post.1/chat/topk/seed-0": tmp_path / "stability.json"}, tmp_path / "t.csv")
    row = pd.read_csv(tmp_path / "t.csv").iloc[0]
    assert row.other_seeds != row.other_seeds  # empty
    assert ONE_SEED in row.reasons
    published = "tiny/resid_post.1/published-chat/theirs/seed-0"
    write_stability_table("s", {published: tmp_path / "stability.json"}, tmp_path / "t.csv")
    row = pd.read_csv(tmp_path / "t.csv").iloc[0]
    assert pd.isna(row.seed) and ONE_SEED in row.reasons and "its seed is not stated by the release" in row.reasons


def test_latents_that_never_fire_enter_all_but_not_firing(tmp_path):
    """The same SAE twice, but ten of its latents never fire in one of the two."""
    sae = sae_of(0)
    result, table = run(tmp_path, {0: files_of(tmp_path, sae, 0, silent=10), 1: files_of(tmp_path, sae, 1)})
    first, second = result["saes"]["0"], result["saes"]["1"]
    assert (first["n_firing"], second["n_firing"]) == (30, 40)
    assert first["firing"]["shared"]["value"] == pytest.approx(1)
    assert second["firing"]["shared"]["value"] == pytest.approx(0.75)
    assert second["all"]["shared"]["value"] == pytest.approx(1)
    silent = table[(table.seed == 0) & (table.firings == 0)]
    assert len(silent) == 10
    assert silent.partner.isna().all()


def test_table_has_a_row_per_sae(tmp_path):
    run(tmp_path, {seed: files_of(tmp_path, sae_of(seed), seed) for seed in (0, 1)})
    ids = [f"tiny/resid_post.1/chat/topk/seed-{seed}" for seed in (0, 1)]
    write_stability_table("s", dict.fromkeys(ids, tmp_path / "stability.json"), tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table.seed) == [0, 1]
    for name in ("firing_pw_mcc_value", "firing_pw_mcc_interval_low", "firing_shared_null_mean", "all_mmcs_null_z"):
        assert table[name].notna().all()
    assert (table.explained_variance_regular_seed_sd > 0).all()


def test_other_rows_and_other_shapes_are_refused(tmp_path):
    files = {0: files_of(tmp_path, sae_of(0), 0), 1: files_of(tmp_path, sae_of(1), 1, n_rows=280)}
    with pytest.raises(EvaluationError, match=r"rows are not those of seed 0"):
        run(tmp_path, files)
    files[2] = files_of(tmp_path, sae_of(2, n_latents=30), 2)
    with pytest.raises(EvaluationError, match=r"seed-2: encoder directions are \(30, 16\)"):
        run(tmp_path, {0: files[0], 2: files[2]})
