"""Training text that is streamed: no activation file of it, one job for all SAEs, and the results of stored shards."""

from pathlib import Path

import pytest
from project import digests, make_project, planned, read_config, snakemake, write_config
from test_whole_way import TABLE

pytestmark = pytest.mark.slow


def set_harvest(project: Path, **settings) -> None:
    config = read_config(project)
    config["models"]["llama"]["harvest"] |= settings
    write_config(project, config)


def test_a_streamed_study_has_the_results_of_a_stored_one_with_its_window(tmp_path):
    stored, streamed = (make_project(tmp_path / name, {"llama": "llama"}) for name in ("stored", "streamed"))
    set_harvest(stored, window_shards=1)
    set_harvest(streamed, window_shards=1, mode="stream")
    plan = planned(streamed, TABLE)
    assert plan["train_group_0"] == 1 and plan["harvest_facts"] == 1
    assert "train" not in plan and "keep_facts" not in plan
    snakemake(streamed, TABLE)
    assert not list(streamed.glob("results/activations/llama/*/train-*.h5"))
    assert not [path for path in streamed.glob("results/state/**/*") if path.suffix in (".safetensors", ".h5")]

    plan = planned(stored, TABLE)
    assert plan["train"] == 2 and plan["keep_facts"] == 1 and "harvest_facts" not in plan
    snakemake(stored, TABLE)
    assert digests(streamed) == digests(stored)
    metrics = sorted(path.relative_to(stored) for path in stored.glob("results/metrics/**/metrics.json"))
    assert len(metrics) == 2
    for path in metrics:
        assert (stored / path).read_bytes() == (streamed / path).read_bytes(), path

    # How much lies in memory, and how SAEs are divided, changes no bit: nothing runs for it.
    set_harvest(streamed, window_memory_mb=1)
    assert planned(streamed, TABLE) == {}
    set_harvest(streamed, mode="store")
    assert planned(streamed, TABLE)["harvest"] == 2
