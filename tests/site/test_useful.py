"""Usefulness on pages: the row of the SAE, and each measure between its ends."""

import pandas as pd
import pytest

from atlas.site.useful import row_of, scales_of, word_of
from atlas.usefulness.scale import MEASURES

SAE_ID = "m/resid_post.4/chat/topk/seed-0"
PUBLISHED_ID = "m/resid_post.4/published-chat/theirs/seed-0"


@pytest.fixture
def table(tmp_path):
    ends = ("_value", "_interval_low", "_interval_high", "_floor", "_threshold", "_ceiling")
    numbers = {f"{name}{end}": place / 10 for name in MEASURES for place, end in enumerate(ends)}
    row = {"model": "m", "hook": "resid_post.4", "target_hook": None, "mix": "chat", "recipe": "topk", "seed": 0}
    row |= numbers | {f"{name}_word": "yes" for name in MEASURES} | {"useful": "yes", "untested": None}
    other = row | {"recipe": "theirs", "mix": None, "seed": None, "useful": "yes", "untested": "stability"}
    other |= {"stability_value": None, "stability_interval_low": None, "stability_word": "untested"}
    path = tmp_path / "s_usefulness.csv"
    pd.DataFrame([row, other]).to_csv(path, index=False)
    return path


def test_each_sae_has_its_row(table):
    assert word_of(row_of(table, SAE_ID)) == "yes"
    assert word_of(row_of(table, PUBLISHED_ID)) == "yes (stability untested)"
    assert row_of(table, SAE_ID.replace("seed-0", "seed-1")) is None
    assert word_of(None) is None
    assert scales_of(None) == []


def test_every_measure_is_shown_with_its_ends(table):
    lines = scales_of(row_of(table, PUBLISHED_ID))
    assert len(lines) == len(MEASURES)
    by_name = {line["name"]: line for line in lines}
    assert by_name["share of coherent latents"]["value"] == "0 [0.100, 0.200]"
    assert by_name["share of coherent latents"]["ceiling"] == "0.500"
    assert by_name["share found by another seed"]["value"] == "–"
    assert by_name["share found by another seed"]["word"] == "untested"
