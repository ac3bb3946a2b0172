"""Secrets of the environment do not reach what a job writes, whoever quotes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atlas.redaction import redacted

LIBRARY = Path(__file__).parents[1] / "workflow"
BODY = """
import logging, sys
sys.path.insert(0, sys.argv[1])
from atlas.job import job
with job("log"):
    logging.getLogger("atlas").info("asked with %s", "hf_0123456789")
    raise ValueError("401 for hf_0123456789")
"""


def test_logs_and_tracebacks_name_the_variable_instead(tmp_path):
    call = [sys.executable, "-c", BODY, str(LIBRARY)]
    environment = os.environ | {"MY_HUB_TOKEN": "hf_0123456789"}
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    for text in (done.stderr, (tmp_path / "log").read_text()):
        assert "hf_0123456789" not in text
        assert "asked with <MY_HUB_TOKEN>" in text
        assert "ValueError: 401 for <MY_HUB_TOKEN>" in text
        assert text.count("Traceback") == 1


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "db_password", "AWS_SECRET"])
def test_names_that_say_so_are_secret(monkeypatch, name):
    monkeypatch.setenv(name, "correct horse")
    assert redacted("with 'correct horse'") == f"with '<{name}>'"


@pytest.mark.parametrize(
    ("name", "value"), [("TOKENIZERS_PARALLELISM", "disabled"), ("SORT_KEY", "name"), ("HOME_KEY", "")]
)
def test_other_variables_and_short_values_stay(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert redacted(f"with {value}") == f"with {value}"
