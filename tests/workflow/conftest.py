"""One finished project for all tests that need one; each works on a copy."""

from pathlib import Path

import pytest
from project import make_project, snakemake

TABLE = "results/llama_study.csv"


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory) -> Path:
    """A project after an uninterrupted run of the Llama study. Not to be written to: copy it with `project.copy_of`."""
    folder = make_project(tmp_path_factory.mktemp("finished_once"), {"llama": "llama"})
    snakemake(folder, TABLE)
    return folder
