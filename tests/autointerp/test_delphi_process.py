"""The process that runs Delphi, without Delphi: what it is given, and what its failure says."""

from types import SimpleNamespace

import pytest

from atlas.autointerp.clients import WordsClient
from atlas.autointerp.delphi import run_delphi
from atlas.errors import EvaluationError


def test_no_key_reaches_the_process_and_its_last_words_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nenv >&2\nexit 3\n")
    python.chmod(0o755)
    tools = SimpleNamespace(delphi=python, client=WordsClient(), seed=0)
    with pytest.raises(EvaluationError, match="Delphi failed with status 3") as error:
        run_delphi("explain", [{"train": []}], tools)
    assert "PATH=" in str(error.value)
    assert "sk-very-secret" not in str(error.value)
