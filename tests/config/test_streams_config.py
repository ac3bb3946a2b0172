"""Windows and groups in the configuration: what fits nowhere is refused with its numbers, before anything runs."""

import copy
from pathlib import Path

import pytest
import yaml

from atlas.config.load import load_config
from atlas.config.rows import expand_rows
from atlas.config.streams import sae_bytes, stream_groups
from atlas.errors import ConfigError

RAW = yaml.safe_load((Path(__file__).parents[2] / "config" / "config.yaml").read_text())
STREAM = {"mode": "stream", "window_shards": 2, "shard_tokens": 24576}


def raw(*studies: str, **harvest) -> dict:
    """The embedded configuration with these studies alone, and settings of the model's harvest."""
    config = copy.deepcopy(RAW)
    config = {key: config[key] for key in ("models", "corpora", "mixes", "recipes", "studies")}
    config["studies"] = {name: config["studies"][name] for name in studies}
    config["models"]["smollm2-135m"]["harvest"] |= harvest
    return config


def groups(*studies: str, **harvest):
    config = load_config(raw(*studies, **STREAM | harvest))
    return stream_groups(config, [row for rows in expand_rows(config).values() for row in rows])


def test_a_study_of_one_mix_is_one_group_and_store_mode_has_none():
    (group,) = groups("llama_sweep")
    assert group.name == "smollm2-135m/llama_sweep/chat-0" and len(group.rows) == 8
    config = load_config(raw("llama_sweep"))
    assert stream_groups(config, expand_rows(config)["llama_sweep"]) == []


def test_saes_share_a_group_by_their_corpora_and_mixes_may_differ():
    found = {group.corpora: {row.mix for row in group.rows} for group in groups("finance_mix")}
    assert found[("chat", "finance")] == {"static", "curriculum"}
    assert found[("chat",)] == {"generic"} and found[("finance",)] == {"finance"}


def test_each_sae_is_in_one_group_and_studies_can_share_a_pass():
    by_study, by_model = groups("llama_sweep", "finance_mix"), groups("llama_sweep", "finance_mix", group_by="model")
    for found in (by_study, by_model):
        ids = [row.sae_id for group in found for row in group.rows]
        assert len(set(ids)) == len(ids)
    assert len(by_study) == 4 and len(by_model) == 3


def test_groups_are_limited_by_the_memory_of_their_saes():
    (one,) = groups("llama_sweep")
    sizes = [sae_bytes(row, 576) for row in one.rows]
    assert sizes == [16 * 2 * 1200 * 576] * 2 + [16 * 2 * 400 * 576] * 6
    found = groups("llama_sweep", group_memory_mb=45)
    assert [len(group.rows) for group in found] == [2, 6]
    with pytest.raises(
        ConfigError, match=r"seed-0' needs 22 MB for the weights.* of 1,200 latents, .*_mb is 21; raise"
    ):
        groups("llama_sweep", group_memory_mb=21)


@pytest.mark.parametrize(
    ("harvest", "said"),
    [
        ({"mode": "stream"}, "mode is 'stream': give window_shards"),
        (STREAM | {"keep_train": False}, "keep_train is for mode 'store'"),
        (STREAM | {"statistics_shards": 9}, "statistics_shards is 9, but train_tokens of 196,608 make 8 shards"),
        (
            {"window_shards": 1, "shard_tokens": 512},
            r"draws batches of 1,024 rows, but the window of shards 0 to 0 of corpus 'chat' has 512 tokens "
            r"\(window_shards 1, shard_tokens 512, train_tokens 196,608\); raise window_shards or shard_tokens",
        ),
        (
            {"window_shards": 1, "shard_tokens": 28_032},
            r"draws batches of 1,024 rows, but the window of shards 7 to 7 of corpus 'chat' has 384 tokens",
        ),
        (STREAM | {"train_tokens": 98304}, r"corpus 'chat' has 98,304 rows to train on, .* 15.6 epochs, max_epochs"),
    ],
)
def test_what_fits_nowhere_is_refused_with_its_numbers(harvest, said):
    if harvest.get("shard_tokens") == 28_032:  # 384 tokens are left over, and contexts are of 128
        harvest |= {"context_length": 128}
    config = raw("llama_sweep", **harvest)
    config["models"]["smollm2-135m"]["harvest"].pop("corpora")
    with pytest.raises(ConfigError, match=said):
        load_config(config)
