"""This workflow as a module of another: from git or a path, with and without a prefix, with its own configuration."""

import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from project import REPOSITORY, counted, digests, read_config, snakemake

pytestmark = pytest.mark.slow

SNAKEFILE = """
configfile: "own.yaml"

module atlas:
    snakefile: "{snakefile}"
    config: config["atlas"]
    {prefix}

use rule * from atlas as atlas_*

rule mine:
    input: "{results}/llama_study.csv"
    default_target: True
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A clone with what is in the working tree, in a folder of a larger repository."""
    top = tmp_path_factory.mktemp("repository")
    for name in ("workflow", "envs"):
        shutil.copytree(REPOSITORY / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(top), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "--quiet", "-b", "main"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *arguments], check=True)
    return top


def use(folder: Path, project: Path, snakefile: str, prefix: str = "") -> str:
    """Make a workflow that uses this one on a project's data and configuration; returns its folder of results."""
    shutil.copytree(project / "data", folder / "data")
    (folder / "own.yaml").write_text(yaml.safe_dump({"atlas": read_config(project)}))
    results = f"{prefix}/results" if prefix else "results"
    line = f'prefix: "{prefix}"' if prefix else ""
    (folder / "Snakefile").write_text(SNAKEFILE.format(snakefile=snakefile, prefix=line, results=results))
    return results


@pytest.mark.parametrize("prefix", ["", "part/sae"])
@pytest.mark.parametrize("place", ["git", "path"])
def test_a_module_plans_the_study(finished_once, repository, tmp_path, place, prefix):
    snakefile = f"{'git+file://' if place == 'git' else ''}{repository}/workflow/Snakefile"
    use(tmp_path, finished_once, snakefile + ("@main" if place == "git" else ""), prefix)
    text = snakemake(tmp_path, "--dry-run")
    jobs = counted(text)
    assert jobs["atlas_train"] == jobs["atlas_evaluate"] == 2
    assert jobs["atlas_study_table"] == jobs["mine"] == 1
    assert "No number of GPUs is given" in text


def test_a_module_from_git_trains_and_judges_below_its_prefix(finished_once, repository, tmp_path):
    """The same bits as without; nothing is written beside the prefix, and checkpoints and logs are below it too."""
    results = use(tmp_path, finished_once, f"git+file://{repository}/workflow/Snakefile@main", "sae")
    shutil.copytree(finished_once / "results", tmp_path / results)
    for path in (tmp_path / results).glob("*/llama/resid_post.1/**/*"):
        path.unlink() if path.is_file() else None
    (tmp_path / results / "llama_study.csv").unlink()
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump({"atlas": read_config(finished_once) | {"tracking": {"tensorboard": True}}})
    )
    snakemake(tmp_path, "--rerun-triggers", "mtime")
    assert digests(tmp_path / "sae") == digests(finished_once)
    assert list((tmp_path / results / "tracking/llama/resid_post.1").rglob("events.*"))
    assert {path.name for path in tmp_path.iterdir()} == {".snakemake", "Snakefile", "data", "own.yaml", "sae"}


def test_a_single_file_behind_an_address_is_refused(finished_once, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(REPOSITORY))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        use(tmp_path, finished_once, f"http://127.0.0.1:{server.server_port}/workflow/Snakefile")
        text = snakemake(tmp_path, "--dry-run", fails=True)
        server.shutdown()
    assert "this workflow needs its whole repository, and a single address has one file" in text
