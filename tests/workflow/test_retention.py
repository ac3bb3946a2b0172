"""Activation files that are declared temporary: gone when the last SAE that reads them is done."""

from pathlib import Path

import pytest
from project import copy_of, digests, make_project, planned, read_config, snakemake, write_config
from test_whole_way import TABLE

pytestmark = pytest.mark.slow


def shards(project: Path, split: str) -> list[Path]:
    return sorted(project.glob(f"results/activations/llama/*/{split}-*.h5"))


def keep_train(project: Path, keep: bool) -> None:
    config = read_config(project)
    config["models"]["llama"]["harvest"]["keep_train"] = keep
    write_config(project, config)


def test_temporary_train_shards(finished_once, tmp_path):
    kept = copy_of(finished_once, tmp_path / "kept")
    temporary = make_project(tmp_path / "temporary", {"llama": "llama"})
    assert len(shards(kept, "train")) == 2
    expected = digests(kept)

    # A switch changes no result: what is there stays, and nothing runs.
    keep_train(kept, False)
    assert planned(kept, TABLE) == {}

    keep_train(temporary, False)
    text = snakemake(temporary, TABLE)
    assert digests(temporary) == expected
    assert shards(temporary, "train") == []
    assert len(shards(temporary, "eval")) == len(shards(kept, "eval")) == 3

    # Each is deleted once, after every training and every evaluation: both read it.
    assert text.count("Removing temporary output results/activations/llama/chat/train-000.h5") == 1
    before = text[: text.index("Removing temporary output results/activations/llama/chat/train-000.h5")]
    assert before.count("Evaluating topk on llama") == 2

    # A finished study is finished, though its inputs are gone. An SAE that is asked for later brings them back, and
    # Snakemake then makes anew whatever else in the call was made from them: the price of not keeping.
    assert planned(temporary, TABLE) == {}
    config = read_config(temporary)
    config["studies"]["llama_study"]["rows"].append({"hook": "resid_post.1", "seeds": [1]})
    write_config(temporary, config)
    assert planned(temporary, TABLE) == {
        "harvest_temporary": 2,
        "train": 3,
        "evaluate": 3,
        "study_table": 1,
    }
