"""Hub repositories, against a small hub on this machine: resolved once, locked, downloaded without pickles."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pyarrow.parquet
import pytest
import yaml
from faults import fault

from atlas.config.sources import HubSource
from atlas.errors import SourceError
from atlas.sources.hub import download_model, resolve_revision, without_queries

SAID_AND_RESTARTED = "an error that says what to check, after the client's own attempts; nothing is kept; run again"
COMMIT, LATER = "a" * 40, "b" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "pytorch_model.bin": b"pickle",
    "original/params.json": b"{}",
    "consolidated.safetensors": b"x",
    "modeling_evil.py": b"print('run me')",
}


class Hub(BaseHTTPRequestHandler):
    """Just enough of the protocol for repository 'org/name'; `server.commit` is what main points to."""

    def do_GET(self, body: bool = True):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        parts = self.path.strip("/").removeprefix("datasets/").split("/")
        if parts[0] == "api" and "/".join(parts[2:4]) == "org/name":
            revision = parts[5].split("?")[0] if len(parts) > 5 else "main"
            if self.server.trouble == "busy" and parts[4:5] != ["tree"] and revision == "main":
                return self._answer(503, b"", body, {})
            if parts[4:5] == ["tree"] and len(parts) > 6:
                return self._answer(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
            if parts[4:5] == ["tree"]:
                listing = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in self.server.files.items()
                ]
                return self._answer(200, json.dumps(listing).encode(), body, {"Content-Type": "application/json"})
            if revision in ("main", COMMIT):
                sha = self.server.commit if revision == "main" else revision
                answer = {"id": "org/name", "sha": sha}
                return self._answer(200, json.dumps(answer).encode(), body, {"Content-Type": "application/json"})
            return self._answer(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
        if parts[:3] == ["org", "name", "resolve"] and (name := "/".join(parts[4:])) in self.server.files:
            data = self.server.files[name]
            if body and name.endswith((".safetensors", ".jsonl")) and (trouble := self.server.trouble):
                if trouble == "busy":
                    return self._answer(503, b"", body, {})
                if trouble == "silent":
                    self.server.patience.wait(20)
                data = data[: len(data) // 2]
                self.send_response(200)
                self.send_header("Content-Length", str(2 * len(data)))
                self.send_header("ETag", f'"{hashlib.sha1(self.server.files[name]).hexdigest()}"')
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = True
                return None
            etag = hashlib.sha1(data).hexdigest()
            return self._answer(200, data, body, {"ETag": f'"{etag}"', "X-Repo-Commit": parts[3]})
        if parts[:3] == ["org", "name", "resolve"]:
            return self._answer(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
        return self._answer(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self):
        self.do_GET(body=False)

    def _answer(self, status: int, data: bytes, body: bool, headers: dict[str, str]):
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.commit, server.files, server.seen = COMMIT, dict(FILES), []
    server.trouble, server.patience = None, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield server
    server.shutdown()
    server.server_close()


def source(**changes) -> HubSource:
    return HubSource(**({"kind": "hub", "id": "org/name", "licence": "apache-2.0"} | changes))


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_branch_is_resolved_once_and_stays(hub, tmp_path, repo_type):
    lock = tmp_path / "config" / "revisions.lock.yaml"
    assert resolve_revision(source(), lock, repo_type) == COMMIT
    assert yaml.safe_load(lock.read_text()) == {f"{repo_type}s/org/name@main": COMMIT}
    asked = len(hub.seen)
    hub.commit = LATER
    assert resolve_revision(source(), lock, repo_type) == COMMIT
    assert len(hub.seen) == asked


def test_commit_passes_through_without_lock_or_network(tmp_path):
    assert resolve_revision(source(revision=COMMIT), tmp_path / "lock.yaml", "model") == COMMIT
    assert not (tmp_path / "lock.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "nosuch"}, "no such revision; correct 'revision'"),
        ({"id": "org/other"}, "no such repository, or it is private; check 'id' and token_env"),
    ],
)
def test_what_the_hub_lacks_is_named(hub, tmp_path, changes, message):
    with pytest.raises(SourceError, match=message):
        resolve_revision(source(**changes), tmp_path / "lock.yaml", "model")
    assert not (tmp_path / "lock.yaml").exists()


def test_offline_without_lock_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(SourceError, match=r"'org/name'.*cannot resolve model revision 'main'.*check the network"):
        resolve_revision(source(), tmp_path / "lock.yaml", "model")


def test_network_down_is_an_error_with_a_remedy(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="check the network, HF_ENDPOINT"):
        resolve_revision(source(), tmp_path / "lock.yaml", "model")


def test_token_comes_from_the_named_variable_and_is_not_logged(hub, tmp_path, monkeypatch, caplog):
    gated = source(token_env="MY_HUB_TOKEN")
    monkeypatch.delenv("MY_HUB_TOKEN", raising=False)
    with pytest.raises(SourceError, match="'MY_HUB_TOKEN', named by token_env, is not set"):
        resolve_revision(gated, tmp_path / "lock.yaml", "model")
    monkeypatch.setenv("MY_HUB_TOKEN", "hf_secret")
    with caplog.at_level("INFO"):
        resolve_revision(gated, tmp_path / "lock.yaml", "model")
    assert [token for _, token in hub.seen] == ["Bearer hf_secret"]
    assert "hf_secret" not in caplog.text + (tmp_path / "lock.yaml").read_text()


@pytest.mark.parametrize("content", ["models/org/name@main: main\n", "[1, 2]\n", "{unclosed"])
def test_malformed_lock_is_named(tmp_path, content):
    lock = tmp_path / "lock.yaml"
    lock.write_text(content)
    with pytest.raises(SourceError, match=r"lock\.yaml"):
        resolve_revision(source(), lock, "model")


def _resolve_many(lock, names, answers):
    import atlas.sources.hub as module

    module._ask_hub = lambda source, repo_type: hashlib.sha1(source.id.encode()).hexdigest()
    for name in names:
        answers.put((name, resolve_revision(source(id=name), lock, "model")))


def test_concurrent_writers_lose_nothing(tmp_path):
    lock, context = tmp_path / "lock.yaml", multiprocessing.get_context("fork")
    answers = context.Queue()
    groups = [[f"org/{writer}-{number}" for number in range(10)] for writer in range(4)]
    writers = [context.Process(target=_resolve_many, args=(lock, names, answers)) for names in groups]
    for writer in writers:
        writer.start()
    found = dict(answers.get(timeout=30) for _ in range(40))
    for writer in writers:
        writer.join()
    assert yaml.safe_load(lock.read_text()) == {f"models/{name}@main": commit for name, commit in found.items()}


def test_download_takes_safetensors_and_configuration_only(hub, tmp_path):
    download_model(source(), COMMIT, tmp_path / "model")
    found = {path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*")}
    assert found == {"config.json", "model.safetensors"}
    assert (tmp_path / "model/model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not any("pytorch_model.bin" in path for path, _ in hub.seen)


def test_download_without_safetensors_is_refused(hub, tmp_path):
    del hub.files["model.safetensors"], hub.files["consolidated.safetensors"]
    with pytest.raises(SourceError, match=r"no \*\.safetensors; pickled weights are refused"):
        download_model(source(), COMMIT, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_offline_an_existing_folder_is_not_taken_for_the_model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.safetensors").write_bytes(b"another model")
    with pytest.raises(SourceError, match=f"cannot download commit {COMMIT}"):
        download_model(source(), COMMIT, tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old.safetensors"]


def test_a_busy_hub_resolves_nothing(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.trouble = "busy"
    with pytest.raises(SourceError, match="check the network"):
        resolve_revision(source(), tmp_path / "lock.yaml", "model")
    assert not (tmp_path / "lock.yaml").exists()


def test_addresses_of_other_programs_lose_their_signatures():
    text = "403 for url 'https://me:pass@cdn.org/a/b?Signature=abc&Key-Id=1': see http://hub.org/docs#top now"
    assert without_queries(text) == "403 for url 'https://cdn.org/a/b': see http://hub.org/docs now"


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("half", marks=fault("text of a hub", "the network ends in the middle", SAID_AND_RESTARTED)),
        pytest.param("busy", marks=fault("text of a hub", "the server answers 503", SAID_AND_RESTARTED)),
        pytest.param("silent", marks=fault("text of a hub", "the server falls silent", SAID_AND_RESTARTED)),
    ],
)
def test_interrupted_text_is_an_error_and_never_a_shorter_corpus(hub, tmp_path, trouble):
    hub.files = {"data.jsonl": "".join(f'{{"text": "{f"document {n} " * 40}"}}\n' for n in range(500)).encode()}
    hub.trouble = trouble
    done = build_from(hub, tmp_path)
    assert "SourceError: hub dataset 'org/name'" in done.stderr, done.stderr[-3000:]
    assert "cannot be read" in done.stderr and "the network" in done.stderr
    assert any("data.jsonl" in path for path, _ in hub.seen), done.stderr[-1000:]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    hub.trouble = None
    hub.patience.set()
    done = build_from(hub, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert pyarrow.parquet.read_metadata(tmp_path / "news/documents.parquet").num_rows == 500


BUILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import datasets
from pathlib import Path
from atlas.config.corpora import Corpus
from atlas.corpora.documents import build_documents
datasets.config.STREAMING_READ_MAX_RETRIES = 1
time.sleep = lambda seconds: None  # between the clients' own attempts
source = {"kind": "hub", "id": "org/name", "revision": sys.argv[2], "licence": "apache-2.0"}
build_documents("news", Corpus(source=source, eval_fraction=0.5), None, Path("news"), Path("lock.yaml"))
"""


def build_from(hub, folder) -> subprocess.CompletedProcess:
    """Build a corpus in a process of its own: the clients read their settings once, from its environment."""
    library = str(Path(__file__).parents[2] / "workflow")
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HOME": str(folder.parent / "home")}
    call = [sys.executable, "-c", BUILD, library, COMMIT]
    return subprocess.run(call, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("half", marks=fault("download of a model", "the network ends in the middle", SAID_AND_RESTARTED)),
        pytest.param("busy", marks=fault("download of a model", "the server answers 503", SAID_AND_RESTARTED)),
        pytest.param("silent", marks=fault("download of a model", "the server falls silent", SAID_AND_RESTARTED)),
    ],
)
def test_interrupted_download_leaves_nothing_and_the_next_call_is_whole(hub, tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
    hub.trouble = trouble
    with pytest.raises(
        SourceError, match=rf"'org/name'.*cannot download commit {COMMIT}.*check the network.*run again"
    ):
        download_model(source(), COMMIT, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    hub.trouble = None
    hub.patience.set()
    download_model(source(), COMMIT, tmp_path / "model")
    assert (tmp_path / "model/model.safetensors").read_bytes() == FILES["model.safetensors"]
