"""Environments of the peers for tests, made once."""

import os
from pathlib import Path

from atlas.export.environments import build_environment
from atlas.job_lock import only_one

REPOSITORY = Path(__file__).parents[2]


def peer_python(peer: str, tmp_path_factory) -> Path:
    """Python of a peer's environment.

    Below the folder that ATLAS_TEST_ENVIRONMENTS names, where results/environments of a checkout serves as well, or in
    a temporary folder. What is not there is installed, by one process of a test run, while others that need it wait; a
    machine that cannot install it fails the test.
    """
    cache = os.environ.get("ATLAS_TEST_ENVIRONMENTS")
    root = Path(cache) if cache else tmp_path_factory.getbasetemp() / "environments"
    with only_one(peer, root / "locks"):
        return build_environment(peer, REPOSITORY / "envs" / "peers" / f"{peer}.txt", root / peer)
