"""Read only the files of those measures of usefulness that a study asks for."""

import copy

import pytest
import yaml

from atlas.config.load import load_config
from atlas.config.plan import StudyPlan
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows
from atlas.config.twins import expand_twins
from atlas.usefulness.study import MEASURE

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())
SAE_ID = "smollm2-135m/resid_post.10/chat/topk/seed-0"


def plan(**changes) -> StudyPlan:
    """One row of the default sweep, of two seeds."""
    raw = copy.deepcopy(RAW)
    rows = [{"hook": "resid_post.10"}]
    raw["studies"] = {"llama_sweep": raw["studies"]["llama_sweep"] | {"rows": rows, "usefulness": []} | changes}
    raw["frameworks"], raw["finance"] = None, {}  # they take studies of the default
    config = load_config(raw)
    twins = expand_twins(config).get("llama_sweep", {})
    return StudyPlan("llama_sweep", expand_rows(config)["llama_sweep"], config, twins)


def files(study: StudyPlan) -> list[str]:
    return MEASURE.inputs["stage_files"](study)


def test_without_a_measure_no_stage_is_computed_nor_a_figure_drawn():
    study = plan()
    assert files(study) == []
    assert MEASURE.studies(study) and not MEASURE.figure.drawn(study)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("coherence", [f"results/latents/{SAE_ID}/latents.json", f"results/latents/{SAE_ID}/planted.json"]),
        ("stability", ["results/stability/llama_sweep/smollm2-135m/resid_post.10/chat/topk/stability.json"]),
        ("labels", [f"results/autointerp/{SAE_ID}/told.json"]),
    ],
)
def test_each_measure_has_its_files(measure, expected):
    study = plan(usefulness=[measure], seeds=[0])
    assert files(study) == expected
    assert [sae for _, sae in MEASURE.params["asked"](study)] == [SAE_ID] * len(expected)
    assert MEASURE.figure.drawn(study)


def test_twins_are_read_where_the_study_holds_the_stage_against_them():
    asked = {"usefulness": ["coherence", "labels"], "twins": ["near_decoder"], "seeds": [0]}
    twin = SAE_ID.replace("/topk/", "/topk.near_decoder/")
    of_twins = [path for path in files(plan(**asked, twin_stages=["latents"])) if twin in path]
    assert of_twins == [f"results/latents/{twin}/latents.json"]
    of_twins = [path for path in files(plan(**asked, twin_stages=["labels"])) if twin in path]
    assert of_twins == [f"results/autointerp/{twin}/told.json"]
    assert not [path for path in files(plan(**asked, twin_stages=[])) if twin in path]
    assert MEASURE.params["twins"](plan(**asked)) == {SAE_ID: {"near_decoder": twin}}


def test_rows_under_a_shift_are_left_out():
    study = plan(rows=[{"hook": "resid_post.10"}, {"hook": "resid_post.10", "shift": "at-layer-19"}], seeds=[0])
    assert MEASURE.params["metrics_by"](study) == [SAE_ID]
