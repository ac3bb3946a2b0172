"""Choose the environment of peers' processes."""

import os

# No variable that may hold a key; no settings of Python or of threads, which a job names itself.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


def peer_environment(**own: str) -> dict[str, str]:
    """Environment of a peer's process: what it needs to run, and `own`."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | own
