"""Peers' own trainers, in their own environments, on our rows: two of them make the very updates that ours makes."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from peer_environments import REPOSITORY, peer_python
from project import make_project, planned, read_config, snakemake, write_config

from atlas.config.frameworks import FRAMEWORKS, OURS
from atlas.config.recipe import Recipe
from atlas.files import read_json
from atlas.frameworks.job import RowsFile, write_job
from atlas.frameworks.launch import train_with
from atlas.frameworks.ours import Job, JobStream, Rows, card_of
from atlas.frameworks.weights import held_out_loss, sae_of
from atlas.training.initialise import unit_rows
from atlas.training.sae import Sae, load_sae
from atlas.training.train import train_sae

pytestmark = pytest.mark.slow

PEERS = [name for name in FRAMEWORKS if name != OURS]
D_MODEL, N_LATENTS, K, STEPS, BATCH, SCALE = 16, 96, 4, 120, 64, 3.0
# Until which rounding in products has changed at most a few of the kept latents, on any processor.
FEW_STEPS = 30
AGREE = {"rtol": 1e-3, "atol": 2e-4}
RUNS = [(peer, architecture) for peer in PEERS for architecture in FRAMEWORKS[peer]]


@pytest.fixture(scope="session")
def environments(tmp_path_factory):
    """Folder with the environments of all peers."""
    (folder,) = {peer_python(peer, tmp_path_factory).parents[2] for peer in PEERS}
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Sparse sums of planted directions in a file with something before them, and their places in the batches."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(1024, 48, generator=generator) * (torch.rand(1024, 48, generator=generator) < 0.08)
    values = codes @ torch.randn(48, D_MODEL, generator=generator)
    values = (SCALE * values / values.square().sum(dim=1).mean().sqrt()).to(torch.bfloat16)
    path = tmp_path_factory.mktemp("rows") / "rows.bin"
    path.write_bytes(b"12345678" + values.view(torch.uint16).numpy().tobytes())
    order = np.random.default_rng(0).integers(0, 960, (STEPS, BATCH))
    return RowsFile(str(path), 8, len(values)), order, values[960:]


def recipe(architecture: str, **changes) -> Recipe:
    own = {"threshold_start_step": 10, "threshold_beta": 0.9} if architecture == "batch_topk" else {}
    settings = {"n_latents": N_LATENTS, "k": K, "steps": STEPS, "batch_size": BATCH, "lr": 5e-3, "warmup_steps": 5}
    settings |= {"decay_start": 6, "max_epochs": None, "monitor_every": 1000, "dead_feature_tokens": 512}
    return Recipe(architecture=architecture, matmul_dtype="float32", **(settings | own | changes))


def job_of(folder, rows, recipe: Recipe):
    file, order, _ = rows
    target = folder / "job.json"
    write_job(target, recipe, [file], "bfloat16", D_MODEL, order[: recipe.steps], SCALE, 5, 1)
    return target


def ours(folder, job, recipe: Recipe) -> Sae:
    torch.set_num_threads(1)
    job = Job(**read_json(job))
    rows = Rows(job)
    train_sae(
        recipe, JobStream(rows), {"in_sample": rows.stored(0)}, 5, torch.device("cpu"), folder / "ours",
        folder / "state", card_of(job),
    )  # fmt: skip
    return load_sae(folder / "ours")


@pytest.mark.parametrize(("peer", "architecture"), RUNS)
def test_peer_trains_and_its_weights_are_an_sae_of_ours(environments, tmp_path, rows, peer, architecture):
    job = job_of(tmp_path, rows, recipe(architecture))
    result = train_with(peer, job, tmp_path / "out", environments)
    sae = sae_of(tmp_path / "out", architecture, K, SCALE)
    held_out = rows[2]
    latents = sae.encode(held_out)
    if architecture == "topk":
        assert (latents > 0).sum(dim=1).max() <= K
    else:
        assert sae.threshold > 0
    mean = held_out.float().mean(dim=0)
    spread = (held_out.float() - mean).square().sum(dim=1).mean().item() / SCALE**2
    assert held_out_loss(sae, held_out, SCALE, BATCH) < 0.9 * spread
    assert result["version"] in (REPOSITORY / "envs" / "peers" / f"{peer}.txt").read_text()
    assert (result["threads"], result["timed_steps"]) == (1, STEPS - 4)
    assert result["rows_per_second"] > 0


def agreeing_latents(theirs: Sae, mine: Sae) -> float:
    """The share of latents whose weights and bias agree. Another rule of the update would change every latent;
    rounding that decides which of two near values is kept, those two.
    """
    same = torch.isclose(theirs.W_enc, mine.W_enc, **AGREE).all(dim=0)
    same &= torch.isclose(theirs.W_dec, mine.W_dec, **AGREE).all(dim=1)
    same &= torch.isclose(theirs.b_enc, mine.b_enc, **AGREE)
    return same.double().mean().item()


@pytest.mark.parametrize("architecture", FRAMEWORKS["dictionary_learning"])
def test_dictionary_learning_makes_the_updates_of_ours(environments, tmp_path, rows, architecture):
    """The same start, batches, schedule and losses: weights agree after all updates, without any tuning."""
    settings = recipe(architecture, parity="dictionary_learning", steps=FEW_STEPS)
    job = job_of(tmp_path, rows, settings)
    train_with("dictionary_learning", job, tmp_path / "out", environments)
    theirs, mine = sae_of(tmp_path / "out", architecture, K, SCALE), ours(tmp_path, job, settings)
    assert agreeing_latents(theirs, mine) > 0.9
    torch.testing.assert_close(theirs.b_dec, mine.b_dec, rtol=1e-3, atol=2e-3)
    assert theirs.threshold == (None if mine.threshold is None else pytest.approx(mine.threshold, rel=1e-2))


def test_sparsify_makes_the_updates_of_ours(environments, tmp_path, rows):
    settings = recipe("topk", parity="sparsify", decay_start=5, steps=FEW_STEPS)
    job = job_of(tmp_path, rows, settings)
    train_with("sparsify", job, tmp_path / "out", environments)
    theirs, mine = sae_of(tmp_path / "out", "topk", K, SCALE), ours(tmp_path, job, settings)
    # It puts decoder rows back to unit norm before an update, ours after it.
    theirs = replace(theirs, W_dec=unit_rows(theirs.W_dec))
    assert agreeing_latents(theirs, mine) > 0.9
    torch.testing.assert_close(theirs.b_dec, mine.b_dec, rtol=1e-3, atol=2e-3)


def test_study_runs_the_whole_way(environments, tmp_path):
    folder = make_project(tmp_path, {"llama": "llama"})
    (folder / "results" / "environments").mkdir(parents=True)
    for peer in PEERS:
        (environments / peer / "ready").touch()  # newer than the copied pins, so that it is not made again
        (folder / "results" / "environments" / peer).symlink_to(environments / peer)
    config = read_config(folder)
    side = {"n_latents": 64, "k": 4, "steps": 40, "batch_size": 64, "lr": 1e-3, "warmup_steps": 5, "decay_start": 6}
    config["frameworks"] = {
        "study": "llama_study",
        "hook": "resid_post.0",
        "recipes": {"topk": side | {"architecture": "topk"}},
    }
    write_config(folder, config)
    targets = ["results/frameworks.csv", "results/figures/frameworks.pdf"]
    snakemake(folder, *targets)

    table = pd.read_csv(folder / "results/frameworks.csv")
    assert table.contender.tolist() == list(FRAMEWORKS)
    for peer in PEERS:
        pins = (folder / "envs" / "peers" / f"{peer}.txt").read_text()
        (version,) = table[table.framework == peer].version.unique()
        assert re.search(rf"(?m)^(sae-lens|dictionary-learning|eai-sparsify)=={re.escape(version)}$", pins)
    assert table[["explained_variance", "delta_loss", "l0", "absorption_guide", "rows_per_second"]].notna().all().all()
    assert (table.l0 <= 4).all()
    assert (table[table.contender == OURS].ours_times_rows_per_second == 1).all()
    assert (table.threads == 2).all()
    assert planned(folder, *targets) == {}
