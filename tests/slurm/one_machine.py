"""A SLURM on this machine: Debian's munge, slurmctld and slurmd, two partitions, and two GPUs that are device files.

The node claims more processors than the machine has, so that jobs overlap on a small one. Memory is watched by the
daemon itself (no cgroups in a container), and a job above what it asked for is ended.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atlas.job_lock import only_one

SETTINGS = Path("/etc/slurm")  # the step executor drops SLURM_CONF: no other place is found inside a job
LOCKS = Path("/run/sae-atlas-tests")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
REMEDY = "apt-get install --no-install-recommends slurm-wlm munge, and run as root"
MARK = "# Written by the tests of SAE Atlas.\n"

SLURM_CONF = """\
ClusterName=atlas
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
# Without this a requeued job waits two minutes for its credential to expire.
AuthInfo=cred_expire=5
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
# A job above its memory is ended at the next look, each second.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill,UsePss
JobAcctGatherFrequency=task=1
MinJobAge=3600
KillWait=5
InactiveLimit=0
# A partition of higher tier takes its processors from a lower one; what ran there is queued again.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=60000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES State=UP PriorityTier=1
PartitionName=gpu Nodes=ALL State=UP PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes=ALL State=UP PriorityTier=10
# Takes GPUs as generic resources alone (JOB_SUBMIT), as some clusters do.
PartitionName=gresonly Nodes=ALL State=UP PriorityTier=1
JobSubmitPlugins=lua
"""
JOB_SUBMIT = """\
function slurm_job_submit(job, partitions, user)
    if job.partition == "gresonly" and job.tres_per_job ~= nil then
        slurm.log_user("this partition takes --gres=gpu:N, not --gpus")
        return slurm.ERROR
    end
    return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user)
    return slurm.SUCCESS
end
"""


@dataclass(frozen=True)
class Slurm:
    """A SLURM that runs; its logs are in `folder`."""

    folder: Path

    def jobs(self) -> list[dict[str, str]]:
        """Every job that SLURM remembers, ended ones too, as the fields of `scontrol show job`."""
        text = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True).stdout
        rows = [line.split() for line in text.splitlines() if line.startswith("JobId=")]
        return [dict(field.split("=", 1) for field in row if "=" in field) for row in rows]

    def running(self, comment: str) -> list[str]:
        """Ids of running jobs whose comment (rule and wildcards) contains `comment`."""
        return [
            job["JobId"]
            for job in self.jobs()
            if comment in job.get("Comment", "") and job["JobState"] in ("RUNNING", "COMPLETING")
        ]

    def cancel_all(self) -> None:
        """End what a test left behind, and wait until it is gone."""
        subprocess.run(["scancel", "--user", "root"], check=False)
        wait_for(lambda: all(job["JobState"] not in ("RUNNING", "PENDING", "COMPLETING") for job in self.jobs()))


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start munge, the controller and the node; end all three, and whatever they run, at the end.

    The settings are the machine's, so a second test run on it waits for the first.
    """
    host = socket.gethostname().split(".")[0]
    devices = [Path(f"/dev/fakegpu{number}") for number in (0, 1)]
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    with only_one("slurm", LOCKS), contextlib.ExitStack() as stack:
        for device in devices:
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))  # the null device: only its name matters
                stack.callback(device.unlink)
        for name, text in {
            "slurm.conf": MARK + SLURM_CONF.format(host=host, folder=folder),
            "gres.conf": f"{MARK}NodeName={host} Name=gpu File=/dev/fakegpu[0-1]\n",
            "cgroup.conf": f"{MARK}IgnoreSystemd=yes\n",
            "job_submit.lua": JOB_SUBMIT,
        }.items():
            (SETTINGS / name).write_text(text)
            stack.callback((SETTINGS / name).unlink)
        run = Path("/run/munge")
        run.mkdir(exist_ok=True, mode=0o755)
        shutil.chown(run, "munge", "munge")
        start(stack, "runuser", "-u", "munge", "--", "munged", "--foreground", log=folder / "munged.log")
        wait_for(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0)
        start(stack, "slurmctld", "-D", "-c", log=folder / "slurmctld.out")
        wait_for(lambda: "UP" in subprocess.run(["scontrol", "ping"], capture_output=True, text=True).stdout)
        start(stack, "slurmd", "-D", "-c", log=folder / "slurmd.out")
        machine = Slurm(folder)
        try:
            wait_for(
                lambda: "idle" in subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True).stdout
            )
        except TimeoutError as error:
            logs = "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in folder.glob("slurm*.*"))
            raise TimeoutError(logs) from error
        stack.callback(machine.cancel_all)
        yield machine


def start(stack: contextlib.ExitStack, *command: str, log: Path) -> None:
    """A daemon in a session of its own, ended with the stack."""
    stream = stack.enter_context(log.open("w"))
    process = subprocess.Popen(
        command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=end_with_parent
    )

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def end_with_parent() -> None:
    """A test run that is killed leaves no daemon behind: prctl(PR_SET_PDEATHSIG, SIGTERM)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def wait_for(ready, seconds: float = 60, pause: float = 0.2):
    """What `ready` returns, once that is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(pause)
    raise TimeoutError(f"not within {seconds} s")


def lacking() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"not installed, or not in PATH: {', '.join(missing)} ({REMEDY})"
    if os.geteuid() != 0:
        return f"not root ({REMEDY})"
    settings = SETTINGS / "slurm.conf"
    if settings.exists() and not settings.read_text().startswith(MARK):
        return f"this machine belongs to a cluster: {settings}"
    return None


def require() -> None:
    """Skip with the reason where SLURM is lacking; in CI that is a failure."""
    if reason := lacking():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no SLURM on this machine: {reason}")
