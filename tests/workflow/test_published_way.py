"""SAEs that were trained elsewhere, by the real workflow: what comes of a trained one that was published is its own."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from labelled_prompts import folder_of
from latent_scene import sentence_model
from project import REPOSITORY, copy_of, planned, read_config, snakemake, write_config
from safetensors.numpy import load_file

import atlas
from atlas.errors import ReadingError
from atlas.files import read_json

pytestmark = pytest.mark.slow

TRAINED = "llama/resid_post.1/chat/topk/seed-0"
JUDGED = "llama/resid_post.1/published-chat"
TABLE, HEALTH = "results/judged.csv", "results/judged_health.csv"
FIGURES = [f"results/figures/judged{kind}.png" for kind in ("", "_training", "_health")]
PROMPTS = "results/prompts/judged/mine.html"
EXPORT = f"results/exports/huggingface/{JUDGED}/theirs/seed-0/README.md"
DOWNSTREAM = ["results/moved_transfer.csv", "results/judged_autointerp.csv", "results/judged_probing.csv"]
DOWNSTREAM += ["results/figures/moved_transfer.png", "results/figures/judged_autointerp.png"]
DOWNSTREAM += ["results/judged_stability.csv", "results/judged_absorption.csv"]
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
    moved = [row | {"shift": "layer-before"} for row in rows]
    two = {"in_sample": "chat", "oos": ["news"]}
    config["studies"]["moved"] = study | {"rows": moved, "evaluation": two}
    config["shifts"] = {"layer-before": {"hook": "resid_post.0"}}
    spec = sentence_model(folder / "data/sentences")
    embedder = {"source": {"kind": "path", "path": "data/sentences"}} | spec.model_dump(include={"n_layers", "d_model"})
    config["latents"] = {"min_tokens": 512, "embedder": embedder}
    config["autointerp"] = {"scorers": ["embedding"], "window_tokens": 8, "min_examples": 5, "swaps": 2}
    texts = [f"{'river' if i % 2 else 'market'} number {i}" for i in range(60)]
    prompts = pd.DataFrame({"prompt": texts, "target": [i % 2 for i in range(60)]})
    folder_of(folder / "data/probes", {"place": prompts})
    config["probing"] = {"source": {"kind": "path", "path": "data/probes"}, "datasets": None, "ks": [1, 2]}
    config["prompts"] = {"mine": {"file": "data/mine.txt"}}
    (folder / "data/mine.txt").write_text("market river engine\n\n<script>alert(1)</script> letter\n")
    write_config(folder, config)
    return folder


@pytest.fixture(scope="module")
def judged(project) -> Path:
    snakemake(project, TABLE, HEALTH, *FIGURES, *CARDS, "results/atlas/index.html", PROMPTS, EXPORT)
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


@pytest.fixture(scope="module")
def downstream(judged) -> Path:
    snakemake(judged, *DOWNSTREAM)
    return judged


@pytest.mark.parametrize("table", [name for name in DOWNSTREAM if name.endswith("csv")])
def test_what_follows_is_the_same_as_of_the_trained_one(downstream, table):
    """Transfer, labels, probes, stability and absorption depend on weights and rows alone: both have the same."""
    frame = pd.read_csv(downstream / table, dtype=str)
    ours, theirs = (frame[frame.recipe == name].reset_index(drop=True) for name in ("topk", "theirs"))
    assert len(ours) == len(theirs) > 0 and len(frame) == 2 * len(ours)
    assert theirs["mix"].isna().all() and theirs.seed.isna().all()
    if table in ("results/moved_transfer.csv", "results/judged_stability.csv"):
        assert theirs.reasons.map(lambda text: "not stated by the release" in json.loads(text)["mix"]).all()
    differ = ("mix", "recipe", "seed", "reasons", "training_text")
    same = [name for name in frame if name not in differ]
    pd.testing.assert_frame_equal(ours[same], theirs[same])
    assert theirs[same].notna().any(axis=1).all()


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
    """A row that names a published SAE adds jobs of its own: what was there is neither trained nor harvested again."""
    assert planned(judged, TABLE, "results/llama_study.csv") == {}
    benchmarks = judged / "results/benchmarks"
    assert [path.name for path in benchmarks.glob("fetch_published/*")] == ["theirs.tsv"]
    assert [path.parent.name for path in benchmarks.rglob("publish/**/*.tsv")] == ["theirs"]
    assert all(path.stat().st_mtime < (judged / "config/config.yaml").stat().st_mtime for path in trainings(judged))


def trainings(project: Path) -> list[Path]:
    found = [*(project / "results/benchmarks/train").rglob("*.tsv"), *(project / "results/activations").rglob("*.h5")]
    assert found
    return found


def test_the_export_says_that_it_was_published(judged):
    text = (judged / EXPORT).read_text()
    assert "license: cc-by-4.0" in text and "## Release" in text and "Texts that the user calls in-sample" in text
    assert "not stated by the release" in text and "## Training" not in text


def test_a_page_of_sentences_shows_what_fires_on_them(judged):
    """The strongest latents of a sentence are those of the SAE's own encoder; text acts nowhere."""
    html = (judged / PROMPTS).read_text()
    assert "<script" not in html and "&lt;" in html and "unsafe-inline" in html
    sae = atlas.open_sae(f"{JUDGED}/theirs/seed-0", results=judged / "results")
    read = atlas.read_activations("llama", "market river engine", sae.hook, results=judged / "results")[0]
    strongest = int(sae.encode(read.rows)[read.counted].max(dim=0).values.argmax())
    assert f'href="../../atlas/saes/{JUDGED}/theirs/seed-0/latents/{strongest}.html"' in html
    linked = set(re.findall(r'href="([^"]+html)"', html))
    assert linked and all((judged / "results/prompts/judged" / link).is_file() for link in linked)


def test_the_notebook_runs_and_finds_the_pages(judged, monkeypatch, capsys):
    monkeypatch.setenv("ATLAS_RESULTS", str(judged / "results"))
    monkeypatch.setenv("ATLAS_SAE", TRAINED)
    monkeypatch.setenv("ATLAS_RELEASE", str(judged / "data/release/layer_1"))
    notebook = json.loads((REPOSITORY / "docs/open_an_sae.ipynb").read_text())
    values = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), values)
    assert values["strongest"] and all(values["sae"].page(latent).is_file() for latent in values["strongest"])
    rows = values["text"].rows
    np.testing.assert_array_equal(values["theirs"].encode(rows), values["sae"].encode(rows))
    assert "48 latents; assumed" in capsys.readouterr().out


def test_an_unknown_id_names_those_that_there_are(judged):
    with pytest.raises(ReadingError, match=r"neither a folder nor an SAE in .* which has 3: llama/resid_post.0"):
        atlas.open_sae("llama/resid_post.1/chat/topk/seed-7", results=judged / "results")
    with pytest.raises(ReadingError, match="is not the configuration of an SAE of this project; for a published one"):
        atlas.open_sae(judged / "data/release/layer_1")


def test_what_does_not_fit_ends_in_the_first_job(project, tmp_path):
    """What is wrong is said before the model is run; what does not need the SAE goes on, as after any failed job."""
    folder = copy_of(project, tmp_path / "project")
    shutil.rmtree(folder / "results")
    config = read_config(folder)
    config["saes"]["theirs"]["n_latents"] = 64
    config["studies"] = {"judged": config["studies"]["judged"] | {"rows": [{"sae": "theirs"}]}}
    write_config(folder, config)
    text = snakemake(folder, TABLE, fails=True)
    fault = text.index("saes.theirs.n_latents is 64, but the files have 48")
    assert fault < text.index("Auditing the hooks of llama")
    config["saes"]["theirs"] |= {"n_latents": 48, "hook": "resid_post.0"}
    write_config(folder, config)
    text = snakemake(folder, TABLE, fails=True)
    fault = "hook is stated as 'resid_post.0', but the files say 'blocks.1.hook_resid_post'"
    (line,) = [line for line in text.split("What failed:")[1].splitlines() if "fetch_published" in line]
    assert line.startswith("  results/logs/fetch_published/theirs.log: ReadingError: ") and fault in line
