"""A study with twins by the real workflow, on a tiny model."""

from pathlib import Path

import pytest
from project import make_project, planned, read_config, snakemake, write_config

from atlas.config.recipe import TWINS
from atlas.files import read_json
from atlas.tables import read_csv, read_parquet

pytestmark = pytest.mark.slow

TABLE, PRINTED, FIGURE = "results/llama_study.csv", "results/tables/llama_study.md", "results/figures/llama_study.png"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("twins"), {"llama": "llama"})
    config = read_config(folder)
    config["recipes"]["topk"] |= {"steps": 60}
    config["studies"]["llama_study"] |= {"rows": [{"hook": "resid_post.0"}], "twins": list(TWINS)}
    config["studies"]["llama_study"]["twin_stages"] = []
    config["causal"] = {"latents": 8, "firings": 4, "horizon": 2, "continuation_tokens": 2}
    config["causal"] |= {"labels": False, "twins": True}
    write_config(folder, config)
    snakemake(folder, TABLE, PRINTED, FIGURE, "results/llama_study_learnt.csv")
    return folder


def test_every_measure_stands_beside_the_best_twin(finished):
    table = read_csv(finished / TABLE)
    assert len(table) == 3
    for row in table.to_dict("records"):
        assert row["learnt"] == row["learnt_explained_variance_regular"] in ("yes", "no", "unresolved")
        values = [row[f"twin_{kind}_explained_variance_regular"] for kind in TWINS]
        assert row["best_twin_value_explained_variance_regular"] == max(values)
        better_by = row["atlas_explained_variance_regular"] - max(values)
        assert row["over_twin_explained_variance_regular"] == pytest.approx(better_by, abs=1e-9)
        assert row["over_twin_kl"] == pytest.approx(row["best_twin_value_kl"] - row["atlas_kl"], abs=1e-9)
    printed = (finished / PRINTED).read_text()
    assert all(f"· learnt {word}" in printed for word in table.learnt)
    learnt = read_csv(finished / "results/llama_study_learnt.csv")
    assert len(learnt) == 3 * 9 and set(learnt.over) == {"documents"}


def test_effects_of_an_sae_stand_beside_its_twins(finished):
    folder = finished / "results/effects/llama/resid_post.0/chat/topk/seed-0"
    snakemake(finished, str((folder / "effects.json").relative_to(finished)))
    effects, summary = read_parquet(folder / "effects.parquet"), read_json(folder / "effects.json")
    measured = effects[effects.n_measured > 0]
    assert measured.kl_twin.notna().all() and measured.kl_twin_reason.isna().all()
    assert set(measured.twin) <= set(TWINS) and summary["twin"] in TWINS
    assert "kl_twin" not in summary["reasons"]


def test_a_second_run_does_nothing_and_twins_are_no_rows(finished):
    assert planned(finished, TABLE, "results/llama_study_learnt.csv") == {}
    assert planned(finished, "--forcerun", "compare_twins", "--", TABLE) == {"compare_twins": 1, "study_table": 1}


def test_a_study_without_twins_trains_none(finished):
    config = read_config(finished)
    try:
        write_config(finished, config | {"studies": {"llama_study": config["studies"]["llama_study"] | {"twins": []}}})
        assert planned(finished, TABLE) == {"study_table": 1}
        said = snakemake(
            finished, "--dry-run", "results/twins/llama/resid_post.0/chat/topk/seed-0/twins.json", fails=True
        )
        assert "has no twins" in said
    finally:
        write_config(finished, config)
