"""Every case study is planned from nothing, on the embedded model and at the guide's scale. Nothing is run."""

from pathlib import Path

import pytest
from project import REPOSITORY, planned

from atlas.config import expand_rows, read_config

pytestmark = pytest.mark.slow

# What a study ends in, beside its table and its figure.
ENDS = {
    "llama_sweep": [],
    "nemotron_clean": [],
    "bert_inversion": [],
    "finance_mix": ["{study}_finance.csv"],
    "failure_atlas": ["{study}_regimes.csv"],
    "width_sweep": ["figures/{study}_width.pdf"],
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """The repository as it is cloned: no results."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Snakefile", "workflow", "config", "envs", "profiles"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


@pytest.mark.parametrize("scale", ["embedded", "paper"])
@pytest.mark.parametrize("study", ENDS)
def test_study_is_planned(empty, study, scale):
    paper = f"config/paper/{study}.yaml"
    name, files = (study, []) if scale == "embedded" else (f"{study}_paper", [paper])
    ends = ["{study}.csv", "figures/{study}.pdf", *ENDS[study]]
    targets = [f"results/{end}".format(study=name) for end in ends]
    jobs = planned(empty, *(["--configfile", *files] if files else []), "--", *targets)
    config = read_config(empty / "config/config.yaml", *(empty / file for file in files))
    rows = expand_rows(config)[name]
    assert jobs["train"] == len({row.sae_id for row in rows})
    assert jobs["evaluate"] + jobs.get("evaluate_shifted", 0) == len({row.judged_id for row in rows})
    assert jobs["prepare_model"] == len({row.model for row in rows})
    # The embedded scale needs packages alone; at the guide's scale the only packages are those of the label scorer.
    sources = {config.models[row.model].source.kind for row in rows}
    sources |= {config.corpora[corpus].source.kind for row in rows for corpus in row.judged.roles}
    assert sources == {"package" if scale == "embedded" else "hub"}
