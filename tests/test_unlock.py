"""`make` takes away the lock of a call that is surely dead, and no other."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atlas import unlock
from atlas.job_lock import RESULTS_LOCK
from atlas.locks import read_holder

LIBRARY = Path(__file__).parents[1] / "workflow"
HOLD = """
import sys, time; sys.path.insert(0, {library!r})
from pathlib import Path
from atlas.job_lock import claim_results
claim_results(Path("results"))
print("mine", flush=True); time.sleep(600)
"""


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder that Snakemake locked, and a stand-in for Snakemake that notes what it is told."""
    monkeypatch.chdir(tmp_path)
    unlock.LOCKS.mkdir(parents=True)
    (unlock.LOCKS / "0.input.lock").touch()
    (tmp_path / "snakemake.py").write_text("import sys; open('told', 'w').write(' '.join(sys.argv[1:]))")
    return tmp_path


def unlocked() -> bool:
    assert unlock.main([sys.executable, "snakemake.py"]) == 0
    told = Path("told")
    assert not told.exists() or told.read_text() == "--unlock --quiet all"
    return told.exists()


@pytest.fixture
def holder(locked):
    script = HOLD.format(library=str(LIBRARY))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "mine\n"
        yield process
        process.kill()


def test_the_lock_of_a_killed_call_is_taken_away(holder):
    holder.kill()
    holder.wait()
    assert unlocked()


def test_the_lock_of_a_call_that_works_stays(holder, capsys):
    assert not unlocked()
    assert f"process {holder.pid} on {socket.gethostname()}" in (said := capsys.readouterr().err)
    assert "still works on" in said
    assert read_holder(Path("results") / RESULTS_LOCK).startswith(f"process {holder.pid} ")


@pytest.mark.parametrize("change", [("elsewhere", 0), ("/another/checkout", 1)])
def test_a_call_of_another_machine_or_checkout_is_not_judged(holder, capsys, change):
    holder.kill()
    holder.wait()
    path = Path("results") / RESULTS_LOCK
    text = path.read_text()
    text = text.replace(socket.gethostname(), change[0]) if change[1] == 0 else text.replace(str(Path.cwd()), change[0])
    path.write_text(text)
    assert not unlocked()
    assert "run: snakemake --unlock" in (said := capsys.readouterr().err)
    assert text.strip() in said
    assert path.read_text() == text


def test_nothing_is_known_without_the_name_of_the_call(locked, capsys):
    assert not unlocked()
    assert "does not name the call" in capsys.readouterr().err


def test_an_unlocked_folder_is_left_alone(locked, capsys):
    (unlock.LOCKS / "0.input.lock").unlink()
    assert not unlocked()
    assert capsys.readouterr().err == ""


def test_a_call_that_ends_leaves_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", HOLD.format(library=str(LIBRARY)).replace("600", "0")], capture_output=True, text=True
    )
    assert done.stdout == "mine\n"
    assert list(Path("results").iterdir()) == []
