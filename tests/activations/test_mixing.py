"""How many documents the rows of a batch come from."""

import numpy as np
import pytest
from activations.shards import make_shard

from atlas.activations.mixing import measure_mixing
from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.config.mixes import Mix

N_ROWS = 80 * 32
ONE = Mix(phases=[{"until": 1.0, "weights": {"chat": 1.0}}])


def stream(folder, documents: dict[str, np.ndarray], mix: Mix = ONE) -> BatchStream:
    shards = {}
    for name, numbers in documents.items():
        make_shard(folder / f"{name}.h5", documents=numbers, corpus=name, corpus_fingerprint=name)
        shards[name] = open_shards([folder / f"{name}.h5"])
    return BatchStream(shards, "resid_post.0", mix, seed=0, batch_size=128, steps=100)


@pytest.mark.parametrize(("documents", "number"), [(np.zeros(N_ROWS, int), 1.0), (np.arange(N_ROWS), 128.0)])
def test_one_document_and_a_document_per_row(tmp_path, documents, number):
    found = measure_mixing(stream(tmp_path, {"chat": documents}))
    assert (found.effective_documents, found.uniform_documents, found.batches) == (number, number, 64)


def test_shuffled_rows_are_mixed_as_well_as_uniform_sampling_would(tmp_path):
    documents = np.random.default_rng(0).permutation(np.repeat(np.arange(80), 32))
    found = measure_mixing(stream(tmp_path, {"chat": documents}))
    assert found.effective_documents == pytest.approx(found.uniform_documents, rel=0.03)
    assert 45 < found.uniform_documents < 55


def test_rows_that_were_not_shuffled_are_found_out(tmp_path):
    """Eight blocks of 16 rows, most of which lie within one document of about 29 trainable rows."""
    found = measure_mixing(stream(tmp_path, {"chat": np.repeat(np.arange(80), 32)}))
    assert 6 < found.effective_documents < 16
    assert found.uniform_documents > 45


def test_uniform_number_is_that_of_a_simulation(tmp_path):
    generator = np.random.default_rng(1)
    sizes = generator.geometric(0.02, 500)
    documents = generator.permutation(np.repeat(np.arange(500), sizes))[:N_ROWS]
    s = stream(tmp_path, {"chat": documents})
    rows = s.trainable_documents()["chat"]
    drawn = [np.unique(generator.choice(rows, 128, replace=False), return_counts=True)[1] for _ in range(4000)]
    expected = 128**2 / np.mean([(counts**2).sum() for counts in drawn])
    assert measure_mixing(s).uniform_documents == pytest.approx(expected, rel=0.01)


def test_documents_of_two_corpora_are_different_documents(tmp_path):
    half = Mix(phases=[{"until": 1.0, "weights": {"chat": 0.5, "news": 0.5}}])
    nothing = np.zeros(N_ROWS, int)
    found = measure_mixing(stream(tmp_path, {"chat": nothing, "news": nothing}, half))
    assert found.effective_documents == found.uniform_documents
    assert 1.9 < found.effective_documents <= 2.0  # of eight blocks three to five are of each corpus
