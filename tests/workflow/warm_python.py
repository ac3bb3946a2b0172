"""A Python that has its libraries loaded already, for jobs of workflows in tests.

A job of a tiny study computes for a tenth of a second and imports torch and transformers for five. One process imports
them, and each job is a fork of it: `executable` names a program that Snakemake takes for Python, which hands script,
environment, folder and streams over and ends as the job ends. Snakemake itself is started in the same way. Only
libraries of others are loaded beforehand; code of a project is read by each job. Tests of whole runs that are killed
use the plain Python too, and what comes out of both is compared to the bit (test_whole_way.py, tests/slurm).
"""

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

LIBRARIES = """
h5py matplotlib.figure pandas pyarrow.parquet pydantic safetensors.torch scipy.stats sklearn.linear_model tokenizers
torch transformers.modeling_utils transformers.models.auto.modeling_auto transformers.models.bert.modeling_bert
transformers.models.llama.modeling_llama yaml
snakemake.api snakemake.cli snakemake.dag snakemake.executors.local snakemake.parser snakemake.script snakemake.workflow
""".split()
CLIENT = """\
#!{python} -IS
import array, json, os, signal, socket, sys

if not sys.argv[1].endswith(".py"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
job = json.dumps({{"cwd": os.getcwd(), "environ": dict(os.environ), "argv": sys.argv[1:]}}).encode()
streams = array.array("i", [0, 1, 2]).tobytes()
connection.sendmsg([len(job).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
connection.sendall(job)
answers = connection.makefile()
process = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(process, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@cache
def executable() -> str:
    """The program, whose server lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(folder / "socket")
    # Its standard input ends with this process, however that ends.
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    program = folder / "python"
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    executable.server = server
    return str(program)


def serve(address: str) -> list[str]:
    """Fork for each job that is asked for, and tell how it ended; returns in the fork, with script and arguments."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    waiting: dict[int, socket.socket] = {}

    def tell(*_) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process in waiting:
                with contextlib.suppress(BrokenPipeError), waiting.pop(process) as connection:
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())

    signal.signal(signal.SIGCHLD, tell)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        job, streams = read_job(connection)
        # A job that ends at once must not be told of before it is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (listener, connection, *waiting.values()):
                each.close()
        else:
            waiting[process] = connection
            with contextlib.suppress(BrokenPipeError):  # who asked was killed meanwhile
                connection.sendall(f"{process}\n".encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        if process == 0:
            return begin(job, streams)
        for stream in streams:
            os.close(stream)


def read_job(connection: socket.socket) -> tuple[dict, array.array]:
    length, sent, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(sent[0][2][: 3 * streams.itemsize])
    return json.loads(connection.makefile("rb").read(int.from_bytes(length, "big"))), streams


def begin(job: dict, streams: array.array) -> list[str]:
    """Take over streams, folder and environment of the one who asked; returns script and arguments."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environ"])
    return job["argv"]


def end_with(script: str) -> None:
    """Run the script and end as Python would, except that nothing is freed: that copies what the fork shares."""
    status = 0
    try:
        if "HALT_BEFORE" in os.environ:
            runpy.run_path(str(Path(__file__).with_name("halting") / "sitecustomize.py"))
        runpy.run_path(script, run_name="__main__")
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def load_libraries() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a fork that searches these for garbage copies their pages


def watch_for_the_end() -> None:
    """End the server with the process that started it: a fork that waits for the end of its standard input."""
    server = os.getpid()
    if os.fork() == 0:
        os.read(0, 1)
        os.kill(server, signal.SIGKILL)
        os._exit(0)


if __name__ == "__main__":
    watch_for_the_end()
    load_libraries()
    sys.argv = serve(sys.argv[1])
    script = sys.argv[0]
    # As Python does at its start: the script's folder, then PYTHONPATH, in place of this script's folder.
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [str(Path(script).parent), *paths]
    end_with(script)
