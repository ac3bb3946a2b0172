"""Planted latents through the code of real ones: a dictionary of meanings is useful by its labels, noise is not."""

import numpy as np
import pytest
from label_scene import SPACED, LabelScene

from atlas.autointerp.by_context import FACTS
from atlas.autointerp.ceilings import score_planted
from atlas.autointerp.planted import ALL, RANDOM
from atlas.autointerp.told import shares_of_planted
from atlas.autointerp.tools import ScorerTools, Tools
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords
from atlas.twins.learnt import NO, YES
from atlas.usefulness.scale import Number, halfway

NARROW = 2


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """Return the share of planted latents of each class whose firing the word tells."""
    scene = LabelScene(tmp_path_factory.mktemp("scene"))
    windows = Windows.of({"chat": scene.codes}, NARROW)
    tools = Tools(windows, WindowWords.find(windows, SPACED), SPACED, scene.tools.tokenizer, None, 0)
    changed = {"window_tokens": NARROW, "scorers": ("words",), "test_examples": 50, "random_negatives": 50}
    settings = scene.settings.model_copy(update=changed)
    rows = score_planted([scene.codes], np.full(5, 0.2), ScorerTools(tools, None, None), settings, samples=50)
    return shares_of_planted(rows, dict.fromkeys(FACTS, 0.3) | {"words": 0.9}, "lexical")


def number(share: dict) -> Number:
    return Number.of(share["share"], share["interval"])


def test_planted_meanings_are_useful_and_random_firing_is_not(shares):
    floor, ceiling = number(shares[RANDOM]), number(shares[ALL])
    assert halfway(number(shares["frequent_word"]), floor, ceiling).word == YES
    assert halfway(floor, floor, ceiling).word == NO
