"""Settings of the whole test run."""

import os
import re
import sys
from functools import cache
from pathlib import Path

import faults
import hypothesis
import pytest
import shapes

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Read when torch is imported. Threads of several processes wait for each other in loops: on two busy cores the tests of
# an update took more than ten minutes instead of one. Jobs of a workflow set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Here, not in a hook: conftest.py of a folder that is named in the call imports the library before any hook runs.
if not os.environ.get("ATLAS_TEST_WITHOUT_SHAPES"):
    shapes.install()

# How long a draw of inputs takes says how busy the machine is.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

# What tests compare computed arrays by.
_COMPARISON = re.compile(r"\b(assert_close|assert_allclose|isclose|allclose|torch\.equal)\(")


@cache
def compares_numbers(path):
    """Return true for a file that compares results of kernels; `make test-kernels` runs such files."""
    return _COMPARISON.search(path.read_text(encoding="utf-8")) is not None


@pytest.fixture(autouse=True)
def _same_draws_in_any_order():
    """A test that draws from torch's global generator draws the same, whatever ran before it in the process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_addoption(parser):
    parser.addoption("--fault-table", type=Path, help="page whose table of faults is written anew from what passed")


def pytest_configure(config):
    if config.getoption("--fault-table") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--fault-table is written by one process: without -n")
    config.addinivalue_line("markers", "fault(stage, kind, outcome): a row of docs/reliability.md, see tests/faults.py")


def pytest_ignore_collect(collection_path, config):
    """Do not even import other files where numerical tests alone are asked for: that takes longer than the tests."""
    asked = config.getoption("markexpr").startswith("numerics")
    return True if asked and collection_path.suffix == ".py" and not compares_numbers(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the numerical tests, before -m selects by marks. Files with slow tests first, so that at the end no process
    works alone (it needs --no-loadscope-reorder).
    """
    for item in items:
        if compares_numbers(item.path):
            item.add_marker(pytest.mark.numerics)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_sessionfinish(session, exitstatus):
    page = session.config.getoption("--fault-table")
    if page is None:
        return
    if exitstatus:
        raise pytest.UsageError(f"{page} stays as it is: a test of a fault did not pass")
    faults.write_table(page, [row for item in session.items for row in faults.rows_of(item)])
