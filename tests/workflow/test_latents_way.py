"""The tables of latents by the real workflow, on a tiny model; they are targets of their own."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from latent_scene import sentence_model
from llama_cpp import llama_cpp_server
from peer_environments import peer_python
from project import make_project, planned, read_config, snakemake, write_config

from atlas.autointerp.outcome import OUTCOMES
from atlas.files import read_json
from atlas.statistics.clusters import LEAST_CLUSTERS

pytestmark = pytest.mark.slow

HEALTH, TABLE = "results/llama_study_health.csv", "results/llama_study.csv"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("latents"), {"llama": "llama"})
    config = read_config(folder)
    spec = sentence_model(folder / "data/sentences")
    embedder = {"source": {"kind": "path", "path": "data/sentences"}} | spec.model_dump(include={"n_layers", "d_model"})
    config["latents"] = {"embedder": embedder, "min_tokens": 500, "top_contexts": 3}
    write_config(folder, config)
    snakemake(folder, HEALTH)
    return folder


def test_both_tables_hold_every_sae_corpus_and_dictionary(finished):
    health = pd.read_csv(finished / HEALTH)
    assert len(health) == 2 * 3
    assert health.coherence_z.notna().all()
    assert health.planted_random_firing_coherent_share.between(0, 1).all()
    assert health.random_coherence_z.notna().all()
    assert health[health.role != "in_sample"].drift_js_divergence_value.notna().all()
    latents = pd.read_parquet(finished / "results/llama_study_latents.parquet")
    assert len(latents) == (64 + 48) * 3 * 2
    assert set(latents.dictionary) == {"sae", "random"}
    assert latents.groupby(["hook", "corpus", "dictionary"]).n_firings.sum().min() > 0


def test_second_run_does_nothing_and_the_study_needs_no_latents(finished):
    assert planned(finished, HEALTH) == {}
    assert set(planned(finished, TABLE)) == {"study_table"}


def test_edited_latents_rerun_neither_codes_nor_evaluation(finished):
    path = finished / "workflow/atlas/latents/coherence.py"
    original = path.read_text()
    path.write_text(original + "EDITED = 1\n")
    try:
        assert set(planned(finished, HEALTH)) == {"latents", "planted_coherence", "study_latents"}
    finally:
        path.write_text(original)


def test_labels_of_a_study_with_their_controls(finished):
    table, figure = "results/llama_study_autointerp.csv", "results/figures/llama_study_autointerp.png"
    config = read_config(finished)
    asked = {"scorers": ["embedding", "intruder_embedding"], "window_tokens": 8, "min_examples": 5, "swaps": 2}
    write_config(finished, config | {"autointerp": asked})
    snakemake(finished, table, figure)
    assert planned(finished, table, figure) == {}
    rows = pd.read_csv(finished / table)
    intruders = rows[rows.scorer == "intruder_embedding"]
    assert intruders.explainer.isna().all()
    assert (intruders.failed_share == 0).all()
    assert (intruders.n_trials > 0).all()
    assert intruders[["score", "over_chance_interval_low", "random_score", "verdict"]].notna().all(axis=None)
    rows = rows[rows.scorer == "embedding"]
    assert len(rows) == len(intruders) == 2 * 2 * 2
    assert set(rows.dictionary) == {"sae", "random"}
    assert set(rows.negatives) == {"random", "hard"}
    assert (rows.coverage > 0.2).all()
    scored = rows[["score", "shuffled", "blind", "specificity_interval_low", "random_score"]]
    assert scored.notna().all(axis=None)
    assert rows.verdict.notna().all()
    latents = pd.read_parquet(next(finished.glob("results/autointerp/llama/resid_post.1/**/latents.parquet")))
    assert len(latents) == 48
    assert latents.outcome.isin(OUTCOMES).all()
    assert (finished / figure).stat().st_size > 10_000
    assert "autointerp" not in planned(finished, HEALTH)


def test_usefulness_is_shown_where_a_study_asks_for_it(finished):
    table, figure, printed, verdicts = (
        "results/llama_study_usefulness.csv",
        "results/figures/llama_study_usefulness.png",
        "results/tables/llama_study.md",
        "results/verdicts/llama_study.md",
    )
    config = read_config(finished)
    before = (finished / "config/config.yaml").read_text()
    config["autointerp"] = {"window_tokens": 8, "min_examples": 5, "swaps": 2}
    assert {"autointerp", "latents"}.isdisjoint(planned(finished, table, printed))
    config["studies"]["llama_study"]["usefulness"] = ["coherence", "stability", "labels"]
    write_config(finished, config)
    said = snakemake(finished, table, figure, printed, verdicts)
    assert planned(finished, table, figure, printed, verdicts) == {}
    assert (finished / verdicts).read_text().count("| **verdict** |") == 2
    assert "llama_study, verdicts: " in said and f"({verdicts} says why)" in said
    rows = pd.read_csv(finished / table)
    assert len(rows) == 2
    assert rows[["loss_word", "coherence_value", "labels_value", "labels_floor", "useful"]].notna().all(axis=None)
    assert (rows.stability_word == "untested").all()  # one seed
    assert (finished / printed).read_text().count(" · useful ") == 2
    assert (finished / figure).stat().st_size > 5_000
    (finished / "config/config.yaml").write_text(before)  # the other tests ask for none


def test_a_sheet_is_read_blind_and_compared_with_outcomes(finished):
    page, table = "results/llama_study_reading.html", "results/llama_study_reading.csv"
    asked = {"autointerp": {"scorers": ["embedding"], "window_tokens": 8, "min_examples": 5, "swaps": 2}}
    reading = {"latents": 6, "random_latents": 4, "contexts": 3, "window_tokens": 4}
    config = read_config(finished)
    write_config(finished, config | asked | {"reading": reading})
    snakemake(finished, page)
    with pytest.raises(AssertionError, match=r"reading\.votes names no file for study 'llama_study'"):
        snakemake(finished, table)
    key = read_json(finished / page.replace(".html", ".json"))
    assert len(key["items"]) == 10
    votes = {str(item["number"]): {"vote": "clear" if item["dictionary"] == "sae" else "none"} for item in key["items"]}
    for reader in ("ada", "ben"):
        saved = {"study": "llama_study", "sheet": key["sheet"], "reader": reader, "votes": votes}
        (finished / f"{reader}.json").write_text(json.dumps(saved))
    reading["votes"] = {"llama_study": ["ada.json", "ben.json"]}
    write_config(finished, config | asked | {"reading": reading})
    snakemake(finished, table)
    assert planned(finished, table) == {}
    rows = pd.read_csv(finished / table)
    assert rows.value[rows.measure == "kappa"].tolist() == [1]
    assert rows[rows.measure == "share_clear"].groupby("dictionary").value.unique().str[0].to_dict() == {
        "random": 0,
        "sae": 1,
    }


def test_effects_of_a_study_with_their_nulls(finished):
    table = "results/llama_study_effects.csv"
    config = read_config(finished)
    asked = {"autointerp": {"window_tokens": 8, "min_examples": 5, "swaps": 2}}
    asked["causal"] = {"latents": 6, "firings": 4, "horizon": 2, "clamps": [0, 4], "continuation_tokens": 2}
    write_config(finished, config | asked)
    snakemake(finished, table)
    assert planned(finished, table) == {}
    rows = pd.read_csv(finished / table)
    assert len(rows) == 2
    assert rows[["kl", "kl_random", "share_of_whole"]].notna().all(axis=None)
    assert (rows.n_latents == 6).all()
    assert (rows.silent_above_noise == 0).all()
    # How often latents fire, and whether any is like another, is of the training: nulls have to follow it.
    assert (rows.share_beyond_random.notna() == (rows.n_measured > 0)).all()
    for hook, row in rows.set_index("hook").iterrows():
        effects = pd.read_parquet(next(finished.glob(f"results/effects/llama/{hook}/**/effects.parquet")))
        assert len(effects) == 6
        assert row.n_measured == (effects.n_documents >= LEAST_CLUSTERS).sum()
        assert pd.notna(row.kl_other) == effects.kl_other.notna().any()
        assert effects.kl_twin_reason.notna().all()
    assert "effects" not in planned(finished, HEALTH)


def test_another_palette_draws_again_and_does_nothing_else(finished):
    few = {"autointerp": {"window_tokens": 8, "min_examples": 5, "swaps": 2}}
    write_config(finished, read_config(finished) | few)
    snakemake(finished, "figures")
    assert planned(finished, "figures") == {}
    drawn = [f"results/figures/llama_study{name}" for name in ("", "_training", "_health", "_autointerp")]
    files = [f"{name}.{suffix}" for name in drawn for suffix in ("pdf", "png", "txt")]
    files += ["results/tables/llama_study.md", "results/tables/llama_study.tex"]
    assert all((finished / file).stat().st_size > 100 for file in files)
    health, style = finished / "results/figures/llama_study_health.png", finished / "workflow/atlas/figures/style.py"
    before, original = health.read_bytes(), style.read_text()
    style.write_text(original.replace("#0072B2", "#0000FF"))
    try:
        figures = ("study_figure", "training_figure", "health_figure", "autointerp_figure")
        assert planned(finished, "figures") == dict.fromkeys((*figures, "figures"), 1)
        snakemake(finished, str(health.relative_to(finished)))
        assert health.read_bytes() != before
    finally:
        style.write_text(original)


def test_labels_by_a_real_server(finished, tmp_path_factory):
    """llama.cpp's server with a real chat model, named by `base_url`: every answer parses, and has a probability.

    Whether the labels of so small a model are any good is not asked; the lexical ones are what it judges.
    """
    asking = {"explainers": ["lexical", "max_activation"], "scorers": ["detection", "intruder"], "seeds": [0]}
    few = {"sample": 2, "intruder_windows": 3, "window_tokens": 8, "min_examples": 4, "swaps": 1}
    few |= dict.fromkeys(("test_examples", "random_negatives", "hard_negatives"), 5)
    config = read_config(finished)
    with llama_cpp_server(peer_python("llama_cpp", tmp_path_factory)) as base_url:
        client = {"kind": "openai", "model": "smollm2", "base_url": base_url, "structured": True, "concurrency": 2}
        write_config(finished, config | {"autointerp": asking | few | {"client": client}})
        snakemake(finished, "results/llama_study_autointerp.csv")
    rows = pd.read_csv(finished / "results/llama_study_autointerp.csv")
    trials = rows[(rows.scorer == "intruder") & (rows.n_scored > 0)]
    assert (trials.n_trials >= trials.n_scored).all()
    assert (trials.failed_share == 0).all()
    rows = rows[(rows.explainer == "lexical") & (rows.n_scored > 0)]
    assert set(rows.dictionary) == {"sae", "random"}
    assert (rows.failed_share == 0).all()
    assert rows[["score", "shuffled", "blind", "verdict"]].notna().all(axis=None)
    answers = pd.concat(map(pd.read_parquet, finished.glob("results/autointerp/**/answers.parquet"))).answer
    assert answers.between(0, 1).all()
    assert answers.nunique() > 5
    labels = pd.concat(map(pd.read_parquet, finished.glob("results/autointerp/**/labels.parquet")))
    assert (labels.explainer == "max_activation").sum() == 2 * 2 * 2


LENGTHS = '''
"""Lengths of encoder rows: an example of a measure that computes something for each SAE."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

from atlas.files import write_json
from atlas.folder import Folder
from atlas.tables import write_csv


def measure_lengths(sae: Folder, corpus: str, target: Path) -> None:
    """Write the mean length."""
    rows = load_file(sae / "sae_weights.safetensors")["W_enc"].T
    write_json(target, {"corpus": corpus, "length": rows.norm(dim=1).mean().item()})


def write_lengths(study: str, lengths: Mapping[str, Path], table: Path) -> None:
    """Write a row per SAE."""
    found = {sae: json.loads(path.read_text()) for sae, path in lengths.items()}
    write_csv(table, pd.DataFrame([{"study": study, "sae": sae} | row for sae, row in found.items()]))
'''
LENGTHS_STUDY = '''
"""Lengths of encoder rows of a study's SAEs."""

from atlas.measure import Measure, Stage

MEASURE = Measure(
    "lengths",
    writes="atlas.lengths.lengths.write_lengths",
    per_sae={"lengths": "results/lengths/{sae}/lengths.json"},
    stages=(
        Stage(
            "lengths",
            runs="atlas.lengths.lengths.measure_lengths",
            says="Measuring",
            inputs={"sae": lambda sae: sae.pair},
            params={"corpus": lambda sae: sae.corpus},
            outputs={"target": "results/lengths/{sae}/lengths.json"},
            holds=("codes",),
        ),
    ),
)
'''


def test_one_folder_and_one_line_add_a_measure_that_computes_something_for_each_sae(finished):
    package, registry = finished / "workflow/atlas/lengths", finished / "workflow/atlas/measures.py"
    package.mkdir()
    for name, text in (("__init__", '"""Lengths."""\n'), ("study", LENGTHS_STUDY), ("lengths", LENGTHS)):
        (package / f"{name}.py").write_text(text)
    before = registry.read_text()
    registry.write_text(before.replace('    "latents",\n', '    "latents",\n    "lengths",\n'))
    try:
        target = "results/llama_study_lengths.csv"
        snakemake(finished, HEALTH)  # under the settings that earlier tests left
        assert planned(finished, target) == {"lengths": 2, "study_lengths": 1}
        snakemake(finished, target)
        rows = pd.read_csv(finished / target)
        assert len(rows) == 2 and (rows.length > 0).all() and set(rows.corpus) == {"chat"}
        (package / "lengths.py").write_text(LENGTHS.replace("mean()", "max()"))
        assert planned(finished, target) == {"lengths": 2, "study_lengths": 1}, "its code is in its hash"
        assert planned(finished, HEALTH) == {}, "and in no other"
    finally:
        registry.write_text(before)
        shutil.rmtree(package)
