"""Every profile plans the embedded sweep as it stands, and says why each of its lines is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import REPOSITORY

PROFILES = sorted(path.parent.name for path in (REPOSITORY / "profiles").glob("*/config.yaml"))
WORKFLOW = REPOSITORY / "workflow"
TABLE = "results/llama_sweep.csv"


def plan(*arguments: str, **environment: str) -> str:
    call = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--nolock", *arguments]
    done = subprocess.run(
        call, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=os.environ | environment
    )
    return done.stdout + done.stderr


def test_profiles_are_those_of_the_documents():
    assert PROFILES == ["cluster-generic", "default", "kubernetes", "slurm", "slurm-debug"]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_key_of_a_profile_has_its_reason(profile):
    """A comment stands above each key, or above the key before it on the line before."""
    lines = (REPOSITORY / "profiles" / profile / "config.yaml").read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if line[:1].isalpha()]
    bare = [lines[number] for number in keys if not lines[number - 1].startswith("#")]
    assert bare == []


def test_a_job_of_the_cluster_that_fails_asks_for_more():
    """Memory and time are functions of the attempt wherever a rule is no local one."""
    asked, local = {}, set()
    for path in sorted((WORKFLOW / "rules").glob("*.smk")):
        for rule, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
            asked[rule] = dict(re.findall(r"^ +(mem_mb|runtime)=(.*)", body, re.MULTILINE))
            local |= {rule} if re.search(r"^    localrule: True$", body, re.MULTILINE) else set()
    assert {"study_table", "download_wheel", "site_index"} <= local
    of_cluster = {rule: resources for rule, resources in asked.items() if rule not in local}
    assert [rule for rule, resources in of_cluster.items() if set(resources) != {"mem_mb", "runtime"}] == []
    sizes = [(rule, size) for rule, resources in of_cluster.items() for size in resources.values()]
    assert [(rule, size) for rule, size in sizes if re.fullmatch(r"\d+,", size)] == []


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["slurm", "slurm-debug", "cluster-generic"])
def test_profile_plans_the_sweep(profile):
    assert "study_table" in plan("--workflow-profile", f"profiles/{profile}", "--", TABLE)


@pytest.mark.slow
def test_kubernetes_profile_plans_the_sweep(tmp_path):
    """Its executor is not installed beside the others: it brings a dozen packages that nobody else needs."""
    cache = os.environ.get("ATLAS_TEST_ENVIRONMENTS")
    folder = (Path(cache) if cache else tmp_path) / "kubernetes"
    if not (folder / "snakemake_executor_plugin_kubernetes").exists():
        pins = REPOSITORY / "envs/kubernetes.txt"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*install, "--requirement", str(pins)], check=True, timeout=600)
    volume = tmp_path / "volume"
    volume.mkdir()
    arguments = ("--workflow-profile", "profiles/kubernetes", "--default-storage-prefix", str(volume))
    assert "study_table" in plan(*arguments, "--", TABLE, PYTHONPATH=str(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resources", "gpu=3"), "--resources gpu=3, but this machine shows 2 GPUs (0, 1)"),
        (("--resources", "gpu=1", "--set-resources", "train:gpu=2"), "train:gpu=2 exceeds --resources gpu=1"),
        (("--set-resources", "train:gpu=2"), "train:gpu=2 exceeds --resources gpu=0"),
        (
            ("--workflow-profile", "profiles/slurm", "--set-resources", "train:gpu=2"),
            "train:gpu=2 exceeds --resources gpu=1",
        ),
        ((), "2 GPUs (0, 1) lie idle"),
        (("--resources", "mem_mb=4000"), "No number of GPUs is given: jobs use the 2 of this machine (0, 1)"),
        (("--resources", "mem_mb=4000", "--set-resources", "train:gpu=3"), "train:gpu=3 exceeds --resources gpu=2"),
    ],
)
def test_gpus_are_neither_cut_down_nor_left_alone_in_silence(arguments, message):
    assert message in plan("--cores", "1", *arguments, "--", TABLE, CUDA_VISIBLE_DEVICES="0,1")


@pytest.mark.slow
def test_a_cpu_is_used_where_no_number_of_gpus_is_given():
    """--resources replaces the number of the profile, and a workflow that uses this one as a module has no profile."""
    plain = ("--cores", "1", "--resources", "mem_mb=4000")
    text = plan(*plain, "--", TABLE, CUDA_VISIBLE_DEVICES="")
    assert "No number of GPUs is given: everything runs on the CPU" in text
    asking = (*plain, "--set-resources", "train:gpu=1")
    assert "train:gpu=1 exceeds --resources gpu=0" in plan(*asking, "--", TABLE, CUDA_VISIBLE_DEVICES="")


def test_partitions_are_the_one_file_to_edit():
    """Both SLURM profiles name the same file, and no profile names a partition or an account."""
    named = set()
    for profile in ("slurm", "slurm-debug"):
        content = yaml.safe_load((REPOSITORY / "profiles" / profile / "config.yaml").read_text())
        named.add(content["slurm-partition-config"])
        assert not {"slurm_partition", "slurm_account"} & set(str(content.get("default-resources", "")).split("="))
        assert content["slurm-status-command"] == "squeue"
    assert named == {"profiles/slurm/partitions.yaml"}
    partitions = yaml.safe_load((REPOSITORY / "profiles/slurm/partitions.yaml").read_text())["partitions"]
    assert any(limits.get("max_gpu") for limits in partitions.values())
