"""Two processes never make one output at the same time."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

from atlas.job_lock import RESULTS_LOCK, claim_results, only_one
from atlas.locks import read_holder

LIBRARY = Path(__file__).parents[1] / "workflow"
COUNT = """
import logging, sys, time; sys.path.insert(0, {library!r})
from pathlib import Path
from atlas.job_lock import only_one
logging.basicConfig(level=logging.INFO)
with only_one("job", Path({folder!r})):
    busy = Path({folder!r}, "busy")
    assert not busy.exists()
    busy.touch(); time.sleep(0.05); busy.unlink()
"""


def start(folder):
    script = COUNT.format(library=str(LIBRARY), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)


def test_processes_take_turns_and_leave_nothing(tmp_path):
    processes = [start(tmp_path) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert not list(tmp_path.iterdir())


def test_the_one_that_waits_says_for_whom(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with only_one("job", tmp_path):
        other = start(tmp_path)
        line = other.stderr.readline()
    assert "(end it with: scancel 17) makes job already; waiting" in line
    assert other.wait(60) == 0


def test_a_log_stays_whole_until_its_job_is_over(tmp_path, monkeypatch):
    """A second job of the same output says in the first one's log that it waits, and then begins it anew."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log"
    log.write_text("step 1\n")
    body = "import sys; sys.path.insert(0, sys.argv[1]); from atlas.job import job\nwith job(sys.argv[2]): print('on')"
    with only_one(str(log), tmp_path / ".snakemake/atlas-jobs"):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        second = subprocess.Popen([sys.executable, "-c", body, str(LIBRARY), str(log)], **pipes)
        assert "waiting for it to end" in second.stderr.readline()
        lines = log.read_text().splitlines()
        assert lines[0] == "step 1"
        assert "waiting for it to end" in lines[1]
    assert second.communicate(timeout=60)[0] == "on\n"
    assert log.read_text() == ""


def test_jobs_of_other_names_do_not_wait(tmp_path):
    with only_one("one", tmp_path), only_one("two", tmp_path):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path):
    killed = start(tmp_path)
    while not (tmp_path / "busy").exists():
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    (tmp_path / "busy").unlink()
    with only_one("job", tmp_path):
        pass
    assert not list(tmp_path.iterdir())


CLAIM = """
import sys, time; sys.path.insert(0, {library!r})
from pathlib import Path
from atlas.job_lock import claim_results
claim_results(Path({folder!r}))
print("mine", flush=True)
if sys.argv[1:]: time.sleep(600)
"""


def claim(folder, *arguments):
    script = CLAIM.format(library=str(LIBRARY), folder=str(folder))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], **pipes)


def test_checkouts_that_share_results_by_a_link_are_kept_apart(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results").symlink_to(shared)
    first = claim(tmp_path / "one/results", "stay")
    assert first.stdout.readline() == "mine\n"
    second = claim(tmp_path / "two/results")
    assert second.wait(60) == 1
    assert re.search(
        rf"AtlasError: {shared}: process {first.pid} on .* works on these results now; .* a results folder of its own",
        second.stderr.read(),
    )
    first.kill()  # the system frees the lock, and the text stays to say who was killed
    first.wait(60)
    assert read_holder(shared / RESULTS_LOCK).startswith(f"process {first.pid} on ")
    assert claim(tmp_path / "two/results").communicate(timeout=60)[0] == "mine\n"
    assert list(shared.iterdir()) == []


def test_a_results_folder_that_cannot_be_written_is_not_claimed(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", refuse)
    claim_results(tmp_path)
