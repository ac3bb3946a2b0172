"""A labelling job is killed while it asks: what it has been told is not asked for again."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from label_job import label_and_score
from loopback_server import Server, said

from atlas.autointerp.clients import WordsClient
from atlas.autointerp.protocol import Request

pytestmark = pytest.mark.slow

PATHS = os.pathsep.join(path for path in sys.path if path)


def start(folder: Path, url: str, concurrency: int) -> subprocess.Popen:
    command = [sys.executable, str(Path(__file__).with_name("label_job.py")), str(folder), url, str(concurrency)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": PATHS})


class Model:
    """Answers by the rule over words; from request number `hold_from` on it lets `held` requests wait for ever."""

    def __init__(self, hold_from: int, held: int):
        self.hold_from, self.held = hold_from, held
        self.answered, self.waiting, self.unpaid = [], threading.Semaphore(0), 0
        self._lock, self.release = threading.Lock(), threading.Event()

    def __call__(self, body):
        with self._lock:
            self.unpaid += (hold := len(self.answered) >= self.hold_from and self.unpaid < self.held)
            if not hold:
                self.answered.append(json.dumps(body))
        if hold:
            self.waiting.release()
            self.release.wait(600)
            return "hang up", ""
        messages = tuple((each["role"], each["content"]) for each in body["messages"])
        choices = ("1", "0") if body.get("logprobs") else ()
        # An empty reply would be none, and be asked for again; this one is read as no label.
        return said(WordsClient().complete(Request(messages, 0, choices=choices)).text or "none:")


def test_a_killed_job_pays_for_no_reply_twice(tmp_path, concurrency=3):
    server, model = Server(), Model(hold_from=30, held=concurrency)
    server.script = [model]
    try:
        job = start(tmp_path, server.url, concurrency)
        for _ in range(concurrency):
            assert model.waiting.acquire(timeout=300)
        # All its threads wait for the server now: what was answered before, they have.
        job.kill()
        job.communicate()
        before = list(model.answered)
        model.release.set()
        job = start(tmp_path, server.url, concurrency)
        printed, _ = job.communicate(timeout=300)
    finally:
        job.kill()
        job.wait()
        model.release.set()
        server.stop()
    assert job.returncode == 0
    assert len(before) == 30
    assert len(model.answered) > len(before)
    assert set(Counter(model.answered).values()) == {1}
    assert printed.strip() == json.dumps(label_and_score(WordsClient()))
