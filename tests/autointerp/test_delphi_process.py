"""The process that runs Delphi, without Delphi: what it is given, and what its failure says."""

import asyncio
import importlib.util
import json
import queue
import sys
import time
import types
from types import SimpleNamespace

import pytest

from atlas.autointerp.clients import WordsClient
from atlas.autointerp.delphi import SCRIPT, run_delphi
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


def test_a_reply_that_comes_at_once_is_not_lost(monkeypatch):
    """Kept replies are there before the peer's process has begun to wait for them."""
    place = importlib.util.spec_from_file_location("delphi_bridge", SCRIPT)
    bridge = importlib.util.module_from_spec(place)
    place.loader.exec_module(bridge)
    peer = types.ModuleType("delphi.clients.client")
    peer.Client = type("Client", (), {"__init__": lambda self, name: None})
    peer.Response = SimpleNamespace
    monkeypatch.setitem(sys.modules, "delphi.clients.client", peer)
    lines = queue.SimpleQueue()
    monkeypatch.setattr(sys, "stdin", iter(lines.get, ""))

    async def ask():
        client = bridge.bridge_client()(asyncio.get_running_loop())

        def say(message):
            lines.put(json.dumps({"ask": message["ask"], "text": "gamma", "probabilities": None}))
            while client.asked:  # until the thread that listens has taken the reply
                time.sleep(0.001)

        monkeypatch.setattr(bridge, "say", say)
        found = await asyncio.wait_for(client.generate([]), 10)
        lines.put("")
        return found.text

    assert asyncio.run(ask()) == "gamma"
