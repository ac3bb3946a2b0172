import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atlas.errors import StoreError
from atlas.files import atomic_path, read_json, sha256_strings, write_json, write_text
from atlas.job import job


def test_failure_keeps_the_old_file_and_leaves_no_other(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_folder_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["two"]


def test_killed_writer_leaves_no_target(tmp_path):
    code = (
        f"import sys, os, signal; sys.path.insert(0, {str(Path('workflow').resolve())!r})\n"
        "from atlas.files import atomic_path\n"
        f"with atomic_path({str(tmp_path / 'a')!r}) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    write_text(tmp_path / "a", "whole")  # what was left behind is no obstacle
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_umask_decides_who_reads_weights(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "one.safetensors") as temporary:
            save_file({"x": torch.zeros(2)}, temporary)
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            save_file({"x": torch.zeros(2)}, temporary / "two.safetensors")
    finally:
        assert os.umask(before) == umask
    for path in (tmp_path / "one.safetensors", tmp_path / "folder/two.safetensors"):
        assert path.stat().st_mode & 0o777 == mode


def test_json_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.5, "y": None})
    assert read_json(tmp_path / "a.json") == {"x": 1.5, "y": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_hash_of_strings_cannot_be_shifted():
    assert sha256_strings(["ab", "c"]) != sha256_strings(["a", "bc"])


def test_job_prints_our_errors_without_a_traceback(tmp_path):
    with pytest.raises(SystemExit) as stopped, job(tmp_path / "log"):
        raise StoreError("shard.h5: altered; delete this file")
    assert stopped.value.code == 1
    text = (tmp_path / "log").read_text()
    assert "StoreError: shard.h5: altered; delete this file" in text
    assert "Traceback" not in text


def test_job_keeps_the_traceback_of_a_bug(tmp_path):
    with pytest.raises(SystemExit), job(tmp_path / "log"):
        1 / 0  # noqa: B018
    assert "Traceback" in (tmp_path / "log").read_text()
