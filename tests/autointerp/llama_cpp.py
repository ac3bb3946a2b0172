"""A real server of llama.cpp in a process of its own, with a real if small chat model."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def llama_cpp_server(python: Path) -> Iterator[str]:
    """Its base URL while it runs; `python` is that of the environment llama_cpp."""
    script = Path(__file__).parents[2] / "workflow" / "peers" / "llama_server.py"
    process = subprocess.Popen(
        [str(python), "-I", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), f"no address but {address!r}: {process.poll()}"
        yield f"{address}/v1"
    finally:
        process.kill()
        process.communicate()
