"""Jobs of one machine never share a GPU by accident; the CPU is used on purpose only. No GPU is needed here."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from atlas.errors import AtlasError
from atlas.gpu_lease import granted_gpus, lease, visible_gpus
from atlas.job import job

LIBRARY = Path(__file__).parents[1] / "workflow"
HOLD = """
import sys; sys.path.insert(0, {library!r})
from atlas.gpu_lease import lease
with lease({gpus}) as names:
    import os
    assert "torch" not in sys.modules
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine of two GPUs with locks of its own."""
    monkeypatch.setenv("ATLAS_GPU_LOCKS", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in ("SLURM_JOB_ID", "ATLAS_DEVICE"):
        monkeypatch.delenv(name, raising=False)


def holder(gpus=1, **environment):
    """A process that holds GPUs until it reads a line."""
    script = HOLD.format(library=str(LIBRARY), gpus=gpus)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script], env=os.environ | environment, **pipes)


def test_two_jobs_get_two_devices_and_a_third_waits_for_either():
    one, two = holder(), holder()
    seen = {one.stdout.readline().strip(), two.stdout.readline().strip()}
    assert seen == {"0", "1"}
    third = holder()
    assert not select.select([third.stdout], [], [], 1)[0]
    one.kill()  # the system frees the lock of a process that had no time to
    assert third.stdout.readline().strip() in seen
    for process in (one, two, third):
        process.communicate("\n")


def test_a_job_of_two_devices_takes_both_or_none():
    one = holder()
    one.stdout.readline()
    both = holder(gpus=2)
    assert not select.select([both.stdout], [], [], 1)[0]
    with lease(1) as names:  # the other device is free: the job that waits for two keeps none
        assert len(names) == 1
    one.communicate("\n")
    assert both.stdout.readline().strip() == "0,1"
    both.communicate("\n")


def test_jobs_of_different_allocations_do_not_wait_for_each_other():
    """Device 0 of one SLURM job is not device 0 of the next."""
    one = holder(SLURM_JOB_ID="1", CUDA_VISIBLE_DEVICES="0")
    two = holder(SLURM_JOB_ID="2", CUDA_VISIBLE_DEVICES="0")
    assert [process.stdout.readline().strip() for process in (one, two)] == ["0", "0"]
    for process in (one, two):
        process.communicate("\n")


def test_jobs_with_temporary_folders_of_their_own_still_meet(tmp_path):
    """Grid Engine gives each job another TMPDIR."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    holders = [holder(TMPDIR=str(folder)) for folder in folders]
    assert {process.stdout.readline().strip() for process in holders} == {"0", "1"}
    for process in holders:
        process.communicate("\n")


@pytest.mark.parametrize("allocation", [None, "17"])
def test_nothing_is_left_on_the_machine(tmp_path, monkeypatch, allocation):
    if allocation:
        monkeypatch.setenv("SLURM_JOB_ID", allocation)
    folder = tmp_path / f"sae-atlas-gpus-{os.getuid()}"
    with lease(2):
        assert len(list(folder.iterdir())) == 2
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_more_granted_than_there_are_is_refused():
    with (
        pytest.raises(AtlasError, match=r"granted 3 GPUs, but only 2 can be seen \(0, 1\).*--resources gpu=2"),
        lease(3),
    ):
        pass


def test_a_cpu_job_takes_nothing(tmp_path):
    with lease(0) as names:
        assert names == []
    assert not list(tmp_path.iterdir())


def test_lock_folder_of_somebody_else_is_refused(tmp_path):
    folder = tmp_path / f"sae-atlas-gpus-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(AtlasError, match="only you can write"), lease(1):
        pass


@pytest.mark.parametrize(("value", "expected"), [("", []), ("-1", []), ("GPU-ab, GPU-cd", ["GPU-ab", "GPU-cd"])])
def test_what_the_user_made_visible_counts(monkeypatch, value, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == expected


def test_else_the_driver_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus() == ["0", "1", "2"]


def test_granted_gpu_that_torch_cannot_use_stops_the_job(tmp_path, caplog):
    with pytest.raises(SystemExit), job(tmp_path / "log", gpus=1):
        pytest.fail("the job ran on the CPU in silence")
    text = (tmp_path / "log").read_text()
    assert "GPU 0 of 0,1 leased" in text
    assert "granted 1 GPU(s), but torch" in text


def test_cpu_on_purpose_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_DEVICE", "cpu")
    with job(tmp_path / "log", gpus=1) as device:
        assert device.type == "cpu"
    assert "ATLAS_DEVICE=cpu: the CPU is used, and the 1 GPU(s) granted lie idle" in (tmp_path / "log").read_text()


def test_other_devices_by_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_DEVICE", "cuda:3")
    with pytest.raises(SystemExit), job(tmp_path / "log", gpus=1):
        pass
    assert "ATLAS_DEVICE is 'cuda:3'; it may be 'cpu'" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({}, 0),
        ({"gpu": 2}, 2),
        ({"gpu": None, "gres": None}, 0),
        ({"gres": ""}, 0),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:2"}, 2),
        ({"gres": "gpu:a100:3"}, 3),
        ({"gres": "gpu:a100"}, 1),
        ({"gpu": 0, "gres": "nvme:1,gpu:1"}, 1),
        ({"gres": "lscratch:200G"}, 0),
    ],
)
def test_gpus_are_granted_by_either_resource(resources, gpus):
    assert granted_gpus(resources) == gpus
