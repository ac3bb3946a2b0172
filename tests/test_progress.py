"""What progress says in a log: of which job, how much of what, and how long still."""

import logging

import pytest

from atlas import progress as module
from atlas.progress import Progress, name_job, progress


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    monkeypatch.setattr(module, "_job", "")


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by the test's own word."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def last(caplog) -> str:
    return caplog.records[-1].getMessage()


def shown(caplog, clock, done, total, seconds, unit="latent") -> str:
    caplog.set_level(logging.INFO, "atlas.progress")
    clock[0] = 0.0
    own = Progress(total, "pages", unit)
    clock[0] = seconds
    own.update(done)
    return last(caplog) if seconds >= 15 else own.close() or last(caplog)


def test_a_slow_rate_has_digits_and_a_unit(caplog, clock):
    assert shown(caplog, clock, 30, 40, 60) == "pages: 30/40 latent  0.5 latent/s  ETA 20 s"
    assert shown(caplog, clock, 120_000, 200_000, 100) == "pages: 120,000/200,000 latent  1,200 latent/s  ETA 67 s"


@pytest.mark.parametrize("done", [40, 41])
def test_what_is_done_has_no_time_left(caplog, clock, done):
    assert shown(caplog, clock, done, 40, 20).endswith("latent/s  in 20 s")


def test_what_has_not_begun_has_no_known_end(caplog, clock):
    assert shown(caplog, clock, 0, 40, 20).endswith("0 latent/s  ETA not known")


def test_two_trainings_have_two_names(caplog, clock):
    caplog.set_level(logging.INFO, "atlas.progress")
    said = []
    for recipe in ("narrow", "wide"):
        name_job(f"/somewhere/results/logs/train/llama/resid_post.1/chat/{recipe}/seed-0.log")
        with progress(10, "train", "row") as own:
            own.update(10)
        said.append(last(caplog).split(":")[0])
    assert said == [f"train/llama/resid_post.1/chat/{recipe}/seed-0" for recipe in ("narrow", "wide")]


def test_what_is_counted_has_to_be_named():
    with pytest.raises(TypeError, match="unit"), progress(1, "pages"):
        pass
