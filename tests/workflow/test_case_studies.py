"""Every case study is planned from nothing, on the embedded model and at the guide's scale. Nothing is run."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from project import REPOSITORY, counted, planned, snakemake

from atlas.config.load import read_config
from atlas.config.rows import expand_rows

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
    """The repository as it is cloned, without results, and without the messages in whose place resources are shown."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Snakefile", "config", "envs", "profiles"):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    for rules in (folder / "workflow/rules").glob("*.smk"):
        rules.write_text(re.sub(r"^ +message:\n.*\n", "", rules.read_text(), flags=re.MULTILINE))
    return folder


def requests(text: str) -> list[tuple[str, dict[str, float]]]:
    """Rule and resources of every job that is sent to a cluster, from a printed plan."""
    found = []
    for block in re.split(r"^ *\[", text, flags=re.MULTILINE):  # each job begins with a time
        rule = re.search(r"^ *rule (\w+):$", block, re.MULTILINE)
        if rule:
            asked = re.search(r"^ +resources: (.*)$", block, re.MULTILINE)[1] + ","
            numbers = {key: float(value) for key, value in re.findall(r"(\w+)=(\d+),", asked)}
            threads = re.search(r"^ +threads: (\d+)$", block, re.MULTILINE)
            found.append((rule[1], {"threads": int(threads[1]) if threads else 1, **numbers}))
    return found


def unplaceable(asked: list[tuple[str, dict[str, float]]]) -> list[tuple[str, dict[str, float]]]:
    """Those that no partition of profiles/slurm holds."""
    partitions = yaml.safe_load((REPOSITORY / "profiles/slurm/partitions.yaml").read_text())["partitions"]
    keys = {"runtime": "max_runtime", "mem_mb": "max_mem_mb", "threads": "max_threads"}

    def held(job: dict[str, float], limits: dict) -> bool:
        fits = all(job[key] <= limits[limit] for key, limit in keys.items())
        return fits and job.get("gpu", 0) <= limits.get("max_gpu", 0)

    return [(rule, job) for rule, job in asked if not any(held(job, limits) for limits in partitions.values())]


@pytest.mark.parametrize("scale", ["embedded", "paper"])
@pytest.mark.parametrize("study", ENDS)
def test_study_is_planned(empty, study, scale):
    paper = f"config/paper/{study}.yaml"
    name, files = (study, []) if scale == "embedded" else (f"{study}_paper", [paper])
    ends = ["{study}.csv", "figures/{study}.pdf", *ENDS[study]]
    targets = [f"results/{end}".format(study=name) for end in ends]
    there = ["--configfile", *files, "--workflow-profile", "profiles/slurm"] if files else []
    text = snakemake(empty, "--dry-run", *there, "--", *targets)
    jobs = counted(text)
    if files:
        asked = requests(text)
        on_gpus = {rule for rule, job in asked if job.get("gpu")}
        assert on_gpus >= {"audit_model", "harvest", "train", "references", "evaluate"}
        # The time of check_apart follows the size of its inputs, which a plan does not know.
        unknown = {rule for rule, job in asked if "runtime" not in job}
        assert unknown <= {"check_apart"}
        # Twice the time must fit too: a second attempt gets it.
        twice = [(rule, job | {"runtime": 2 * job.get("runtime", 0)}) for rule, job in asked]
        assert unplaceable(twice) == []
    config = read_config(empty / "config/config.yaml", *(empty / file for file in files))
    rows = expand_rows(config)[name]
    assert jobs["train"] == len({row.sae_id for row in rows})
    assert jobs["evaluate"] + jobs.get("evaluate_shifted", 0) == len({row.judged_id for row in rows})
    assert jobs["prepare_model"] == len({row.model for row in rows})
    # The embedded scale needs packages alone; at the guide's scale the only packages are those of the label scorer.
    sources = {config.models[row.model].source.kind for row in rows}
    sources |= {config.corpora[corpus].source.kind for row in rows for corpus in row.judged.roles}
    assert sources == {"package" if scale == "embedded" else "hub"}


@pytest.mark.parametrize(("study", "n_trained", "n_published"), [("gemma_scope", 0, 2), ("llama_scope", 1, 1)])
def test_a_study_of_published_saes_is_planned(empty, study, n_trained, n_published):
    """Nothing is trained for them, every later stage is the same, and what they take from a network is made apart."""
    paper, name = f"config/paper/{study}.yaml", f"{study}_paper"
    targets = [f"results/{end}" for end in (f"{name}.csv", f"figures/{name}.pdf", f"{name}_health.csv")]
    call = ("--dry-run", "--configfile", paper, "--workflow-profile", "profiles/slurm")
    text = snakemake(empty, *call, "--", *targets)
    jobs, asked = counted(text), requests(text)
    assert jobs.get("train", 0) == n_trained
    assert jobs["fetch_published"] == jobs["publish"] == n_published
    assert jobs["evaluate"] == jobs["latents"] == n_trained + n_published
    unknown = {rule for rule, job in asked if "runtime" not in job}
    assert unknown <= {"check_apart"}
    twice = [(rule, job | {"runtime": 2 * job.get("runtime", 0)}) for rule, job in asked]
    assert unplaceable(twice) == []
    apart = planned(empty, "--configfile", paper, "--", f"results/sources/{name}.txt")
    assert apart["fetch_published"] == n_published and "audit_model" not in apart
    drawn = planned(empty, "--configfile", paper, "--", "figures")
    assert drawn["fetch_published"] == n_published


@pytest.mark.parametrize("target", ["results/llama_sweep_stability.csv", "results/atlas/index.html"])
def test_a_study_trains_no_seed_of_another_study(empty, target):
    """Another study has more seeds of a recipe of the sweep."""
    rows = expand_rows(read_config(empty / "config/config.yaml"))
    own = {row.sae_id for row in rows["llama_sweep"]}
    others = {row.sae_id for study in rows.values() for row in study} - own
    assert {sae.rpartition("/")[0] for sae in own} & {sae.rpartition("/")[0] for sae in others}
    jobs = planned(empty, target)
    assert jobs["train"] == len(own) == 8
    assert jobs["stability"] == 4


def test_gpus_are_asked_for_by_gres_on_request(empty):
    """Every job that would have `gpu` has `gres` in its place: the plugin refuses both, and some clusters the first."""
    call = ("--dry-run", "--workflow-profile", "profiles/slurm")
    table = "results/llama_sweep.csv"
    asked = {}
    for name, own in (("gpu", ()), ("gres", ("--default-resources", "gpu_request=gres"))):
        lines = re.findall(r"^ +resources: (.*)$", snakemake(empty, *call, *own, "--", table), re.MULTILINE)
        asked[name] = [dict(part.split("=", 1) for part in line.split(", ")) for line in lines]
    by_gpu = [job for job in asked["gpu"] if job.get("gpu") == "1"]
    by_gres = [job for job in asked["gres"] if job.get("gres") == "gpu:1"]
    assert len(by_gpu) == len(by_gres) > 0
    assert not any("gpu" in job for job in asked["gres"])
    one = ("--set-resources", "train:gres=gpu:a100:1", "--", table)
    assert "gres=gpu:a100:1" in snakemake(empty, *call, *one)
    both = ("--set-resources", "train:gres=gpu:1", "train:gpu=1", "--", table)
    assert "--set-resources train has gpu=1 and gres=gpu:1: both mean GPUs" in snakemake(
        empty, *call, *both, fails=True
    )


@pytest.mark.parametrize("study", ENDS)
def test_what_needs_a_network_is_made_apart(empty, study):
    """For nodes without one: models and text by one target, where there is a network."""
    jobs = planned(empty, "--configfile", f"config/paper/{study}.yaml", "--", f"results/sources/{study}_paper.txt")
    assert set(jobs) <= {"study_sources", "prepare_model", "build_documents", "prepare_embedder", "download_wheel"}
    rows = expand_rows(read_config(empty / "config/config.yaml", empty / f"config/paper/{study}.yaml"))[
        f"{study}_paper"
    ]
    assert jobs["prepare_model"] == len({model for row in rows for model in (row.model, row.judged.model)})
