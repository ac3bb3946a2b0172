"""Settings of the whole test run."""

import os
from pathlib import Path

import faults
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Read when torch is imported. Threads of several processes wait for each other in loops: on two busy cores the tests of
# an update took more than ten minutes instead of one. Jobs of a workflow set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--fault-table", type=Path, help="page whose table of faults is written anew from what passed")


def pytest_configure(config):
    if config.getoption("--fault-table") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--fault-table is written by one process: without -n")
    config.addinivalue_line("markers", "fault(stage, kind, outcome): a row of docs/reliability.md, see tests/faults.py")


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that at the end no process works alone (it needs --no-loadscope-reorder)."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_sessionfinish(session, exitstatus):
    page = session.config.getoption("--fault-table")
    if page is None:
        return
    if exitstatus:
        raise pytest.UsageError(f"{page} stays as it is: a test of a fault did not pass")
    faults.write_table(page, [row for item in session.items for row in faults.rows_of(item)])
