"""SAEs that were trained elsewhere, by the real workflow: what comes of a trained one that was published is its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from project import copy_of, planned, read_config, snakemake, write_config
from safetensors.numpy import load_file

from atlas.files import read_json

pytestmark = pytest.mark.slow

TRAINED = "llama/resid_post.1/chat/topk/seed-0"
JUDGED = "llama/resid_post.1/published-chat"
TABLE, HEALTH = "results/judged.csv", "results/judged_health.csv"
FIGURES = [f"results/figures/judged{kind}.png" for kind in ("", "_training", "_health")]
CARDS = ["results/judged_runs.csv", "results/run_cards/judged.html", "results/run_cards/judged_public.html"]


def publish(sae: Path, folder: Path) -> None:
    """The files of SAELens for a trained SAE, without a trace of this project."""
    config = json.loads((sae / "cfg.json").read_text())
    config["metadata"] = {"sae_lens_version": "6.0.0", "hook_name": "blocks.1.hook_resid_post", "model_name": "tiny"}
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    shutil.copy(sae / "sae_weights.safetensors", folder)


@pytest.fixture(scope="module")
def project(finished_once, tmp_path_factory) -> Path:
    folder = copy_of(finished_once, tmp_path_factory.mktemp("published") / "project")
    publish(folder / "results/saes" / TRAINED, folder / "data/release/layer_1")
    config = read_config(folder)
    config["saes"] = {
        "theirs": {
            "source": {"kind": "path", "path": "data/release", "licence": "CC-BY-4.0"},
            "folder": "layer_1",
            "format": "saelens",
            "model": "llama",
            "hook": "resid_post.1",
            "n_latents": 48,
        }
    }
    study = config["studies"]["llama_study"]
    rows = [{"hook": "resid_post.1", "override": {"n_latents": 48}}, {"sae": "theirs"}]
    config["studies"]["judged"] = study | {"rows": rows}
    config["site"] = {"studies": ["judged"], "labels": False, "random_latents": 0}
    config["latents"] = {"min_tokens": 512}
    write_config(folder, config)
    return folder


@pytest.fixture(scope="module")
def judged(project) -> Path:
    snakemake(project, TABLE, HEALTH, *FIGURES, *CARDS, "results/atlas/index.html")
    return project


def test_a_published_sae_is_judged_as_the_one_it_is(judged):
    """The planted truth: the same weights, hence the same metrics, verdicts and random dictionary."""
    trained = read_json(judged / f"results/metrics/{TRAINED}/metrics.json")
    theirs = read_json(judged / f"results/metrics/{JUDGED}/theirs/seed-0/metrics.json")
    assert theirs.pop("sae_id") == f"{JUDGED}/theirs/seed-0" and trained.pop("sae_id") == TRAINED
    assert theirs == trained


def test_the_table_leaves_empty_what_only_training_knows(judged):
    table = pd.read_csv(judged / TABLE, dtype=str)
    ours, theirs = table[:3], table[3:].reset_index(drop=True)
    assert set(theirs.recipe) == {"theirs"} and theirs.seed.isna().all() and theirs.mix.isna().all()
    assert set(ours.seed) == {"0"} and set(ours["mix"]) == {"chat"}
    assert set(ours.training_text) == {"known"} and set(theirs.training_text) == {"stated by the user"}
    reasons = json.loads(theirs.reasons[0])
    assert "not stated by the release" in reasons["mix"] and "not stated by the release" in reasons["seed"]
    same = [name for name in table if name not in ("mix", "recipe", "seed", "training_text", "reasons")]
    pd.testing.assert_frame_equal(ours[same], theirs[same])
    health = pd.read_csv(judged / HEALTH)
    numbers = [name for name in health.select_dtypes("number") if name != "seed"]
    pd.testing.assert_frame_equal(health[:3][numbers], health[3:][numbers].reset_index(drop=True))


def test_the_run_card_says_what_is_known(judged):
    folder = judged / f"results/saes/{JUDGED}/theirs/seed-0"
    card = yaml.safe_load((folder / "run_card.yaml").read_text())
    assert card["optimisation"] == card["seed"] == card["corpora"] == "not stated by the release"
    assert set(card["published"]["files_sha256"]) == {"cfg.json", "sae_weights.safetensors"}
    assert card["published"]["licence"] == "CC-BY-4.0" and "chat" in card["stated_corpora"]
    assert card["reading_audit"] and card["evaluation_roles"] == {"chat": "in_sample", "wiki": "proxy", "news": "oos"}
    assert not (folder / "training.parquet").exists()
    page = (judged / "results/run_cards/judged.html").read_text()
    assert "published, trained elsewhere" in page
    ours, theirs = (
        load_file(judged / "results/saes" / each / "sae_weights.safetensors")
        for each in (TRAINED, f"{JUDGED}/theirs/seed-0")
    )
    assert set(ours) == set(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_pages_say_that_it_was_published(judged):
    page = (judged / f"results/atlas/saes/{JUDGED}/theirs/seed-0/index.html").read_text()
    assert "A published SAE, trained elsewhere" in page and "published · theirs" in page
    assert "published · theirs" in (judged / "results/atlas/index.html").read_text()


def test_nothing_of_trained_saes_is_made_again(judged):
    """A row that names a published SAE must not touch what is there: no training, harvest or audit."""
    assert planned(judged, TABLE, "results/llama_study.csv") == {}
    made = {path.parent.name for path in (judged / "results/logs").rglob("*.log")}
    assert "published-chat" in str(list((judged / "results/logs/publish").rglob("*.log")))
    assert made
