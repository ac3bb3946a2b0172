"""Contexts about one thing score high, random latents at the null."""

import numpy as np
import pytest
from latent_scene import LENGTH, FakeTokenizer, random_firings, text_of, write_codes

from atlas.latents.coherence import coherence_null, mean_cosine, measure_coherence, null_rows, random_tuples
from atlas.latents.contexts import top_contexts
from atlas.latents.embedded_windows import EmbeddedWindows, Grid, window_texts


def embed(texts):
    """Bag of words, unit length: texts about one word are alike."""
    words = sorted({word for text in texts for word in text.split()} | set("abcdefghijklmnop"))
    place = {word: index for index, word in enumerate(words)}
    vectors = np.zeros((len(texts), 200), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            vectors[row, place[word]] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def measured(tmp_path):
    """60 documents of two contexts, each context about one of ten words; latent w < 10 fires in contexts of word w."""
    generator = np.random.default_rng(0)
    topics = generator.integers(6, 16, 120)
    tokens = np.where(generator.random((120, LENGTH)) < 0.6, topics[:, None], generator.integers(6, 16, (120, LENGTH)))
    about = (topics[:, None] == np.arange(6, 16)).repeat(LENGTH, 0)
    dense = about * (1 + generator.random(about.shape))
    tokens = tokens.reshape(-1)
    rare = np.zeros((len(tokens), 3))
    rare[5, 0] = 1  # one latent fires in one document, one never, one in three
    rare[[5, 205, 605], 2] = 1
    dense = np.concatenate([dense, random_firings(tokens, [0.05] * 30, seed=1), rare], axis=1)
    codes = write_codes(tmp_path / "c.h5", dense, tokens)
    text = text_of(codes)
    top, random = top_contexts(codes, text, 8), null_rows(text)
    grid = Grid.of(text.document, LENGTH, 6)
    embedded = EmbeddedWindows(embed(window_texts(grid, tokens, text.counted, FakeTokenizer())), grid.window)
    null = coherence_null(embedded, random_tuples(text, random, 8))
    return top, text, embedded, null


def test_planted_topics_are_coherent_and_random_latents_are_at_the_null(measured):
    found = measure_coherence(*measured, 200)
    topical, random = found.z[:10], found.z[10:40]
    assert topical.min() > 5
    assert abs(random.mean()) < 4 / np.sqrt(30)
    assert np.abs(random).max() < 4
    assert 0.6 < random.std() < 1.5
    low, high = found.mean_interval
    assert low < np.nanmean(found.value) < high


def test_latent_in_fewer_than_two_documents_has_no_coherence(measured):
    found = measure_coherence(*measured, 100)
    assert np.isnan(found.value[40:42]).all() and np.isnan(found.z[40:42]).all()
    assert measured[0].n_contexts[40:].tolist() == [1, 0, 3]


def test_few_contexts_are_held_against_as_few(measured):
    found, null = measure_coherence(*measured, 100), measured[3]
    assert (found.null_mean[42], found.null_sd[42]) == (null.mean[3], null.sd[3])
    assert found.null_sd[42] > found.null_sd[0] == null.sd[8]
    assert found.z[42] == pytest.approx((found.value[42] - null.mean[3]) / null.sd[3])


def test_null_depends_on_the_number_of_contexts(measured):
    null = measured[3]
    assert np.isnan(null.mean[:2]).all()
    assert np.ptp(null.mean[2:]) < 0.05  # one mean
    assert (np.diff(null.sd[2:]) < 0).all()  # fewer contexts scatter more


def test_tuples_are_of_different_documents(measured):
    text = measured[1]
    tuples = random_tuples(text, null_rows(text), 8)
    documents = np.sort(text.document[tuples], axis=1)
    assert (np.diff(documents, axis=1) > 0).all()
    assert text.counted[tuples].all()
    wide = random_tuples(text, null_rows(text), 70)
    assert (wide[:, 60:] == -1).all()


def test_long_documents_are_drawn_more_often(tmp_path):
    tokens = np.full(40 * LENGTH, 6)
    codes = write_codes(tmp_path / "c.h5", np.ones((len(tokens), 1)), tokens, contexts_per_document=1)
    text = text_of(codes)
    text.document[: 20 * LENGTH] = 0  # half of the text is one document
    first = text.document[random_tuples(text, null_rows(text), 2)][:, 0]
    assert abs((first == 0).mean() - 0.5) < 0.07


def test_mean_cosine_of_pairs():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(5, 7))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.array([vectors[i] @ vectors[j] for i in range(5) for j in range(i)])
    assert mean_cosine(vectors, np.ones(5)) == pytest.approx(pairs.mean())
    doubled = np.array([vectors[0] @ vectors[1]] * 2 + [vectors[0] @ vectors[2]] * 2 + [vectors[1] @ vectors[2]])
    assert mean_cosine(vectors[:3], np.array([2, 1, 1])) == pytest.approx(doubled.mean())
    assert mean_cosine(np.ones((3, 1)), np.ones(3)) == pytest.approx(1)
    assert np.isnan(mean_cosine(vectors[:1], np.ones(1)))
