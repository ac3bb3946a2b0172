"""Planted latents as the measure of coherence sees them: topics at its upper end, random firing at its lower."""

import numpy as np
import pytest
from label_scene import bag_of_words
from latent_scene import LENGTH, FakeTokenizer, text_of, write_codes

from atlas.autointerp.planted import ALL, RANDOM, Planted, PlantedCodes
from atlas.autointerp.planted_coherence import densities_of, planted_coherence
from atlas.latents.embedded_windows import EmbeddedWindows, Grid, window_texts

N_CONTEXTS, TOPICS = 160, np.arange(6, 16)


@pytest.fixture
def scene(tmp_path):
    """Each context is about one of ten words; codes of a dictionary whose first latent fires on each fourth row."""
    generator = np.random.default_rng(0)
    topics = generator.choice(TOPICS, N_CONTEXTS)
    mixed = generator.random((N_CONTEXTS, LENGTH)) < 0.6
    tokens = np.where(mixed, topics[:, None], generator.choice(TOPICS, (N_CONTEXTS, LENGTH))).reshape(-1)
    dense = np.zeros((len(tokens), 3))
    dense[::4, 0] = dense[::10, 1] = 1
    codes = write_codes(tmp_path / "chat.h5", dense, tokens)
    text = text_of(codes)
    grid = Grid.of(text.document, LENGTH, 6)
    embedded = EmbeddedWindows(bag_of_words(window_texts(grid, tokens, text.counted, FakeTokenizer())), grid.window)
    return codes, text, embedded, np.repeat(topics, LENGTH)


def planted(codes, topic) -> Planted:
    """Latents of all topics, alone and dense, then as many that fire at random."""
    generator = np.random.default_rng(1)
    parts = [(topic == each) * (1 + generator.random(len(topic))) for each in TOPICS]
    weak = [np.where(part > 0, part, 0.3 * (generator.random(len(topic)) < 0.3)) for part in parts]
    random = [(generator.random(len(topic)) < 0.1) * (1 + generator.random(len(topic))) for _ in TOPICS]
    values = [np.asarray(part, np.float32) for part in (*parts, *weak, *random)]
    rows = [np.flatnonzero(part) for part in values]
    fires = [part[part > 0] for part in values]
    n = len(TOPICS)
    return Planted(
        ["topic"] * 2 * n + [RANDOM] * n,
        ["meaning"] * 3 * n,
        [False] * n + [True] * n + [False] * n,
        [PlantedCodes(codes.counted, codes.massive, rows, fires)],
    )


def test_topics_reach_the_upper_end_and_random_firing_the_lower(scene):
    codes, text, embedded, topic = scene
    found = planted_coherence(planted(codes, topic), 0, text, embedded, 8)
    assert set(found) == {"topic", RANDOM, ALL}
    # Where the meaning is the activation is strongest: weak firing elsewhere changes no top context.
    for name in ("topic", ALL):
        assert found[name]["coherent_share"] == 1
        assert found[name]["n_tested"] == len(TOPICS)
    assert found[RANDOM]["coherent_share"] <= 0.1
    assert abs(found[RANDOM]["coherence_z"]) < 1.5
    low, high = found[ALL]["coherent_share_interval"]
    assert low == pytest.approx(0.025 ** (1 / len(TOPICS)))
    assert high == 1


def test_densities_are_those_of_latents_that_fire(scene):
    codes, *_ = scene
    assert densities_of([codes, codes]) == pytest.approx([1 / 4, 1 / 10])


def test_without_planted_latents_there_are_no_ends(scene):
    codes, text, embedded, _ = scene
    nothing = Planted([], [], [], [PlantedCodes(codes.counted, codes.massive, [], [])])
    assert planted_coherence(nothing, 0, text, embedded, 8) == {}
