import numpy as np
import pytest
import torch
from latent_scene import MODULES, sentence_model

from atlas.errors import SourceError
from atlas.latents.embedder import SentenceEmbedder, prepare_embedder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder")
    prepare_embedder(sentence_model(folder / "source"), None, folder / "ready", folder / "lock.yaml")
    return SentenceEmbedder.load(folder / "ready", torch.device("cpu"))


def test_mean_over_tokens_of_unit_length(embedder):
    """A byte is a token here; 12 tokens are kept, <s> and </s> among them."""
    (found,) = embedder(["a longer text than twelve"])
    ids = embedder.loaded.tokenizer("a longer t")["input_ids"]
    assert len(ids) == 12
    with torch.inference_mode():
        mean = embedder.loaded.model(torch.tensor([ids])).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(found, (mean / mean.norm()).numpy(), rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)


def test_neighbours_and_batches_are_immaterial(embedder):
    texts = [f"text {i} " + "x" * (i % 9) for i in range(150)]
    together, alone = embedder(texts), np.concatenate([embedder([text]) for text in texts[:10]])
    np.testing.assert_allclose(together[:10], alone, atol=1e-5)
    np.testing.assert_allclose(embedder(texts[::-1])[::-1], together, atol=1e-5)


def test_empty_texts_have_a_vector(embedder):
    assert np.isfinite(embedder(["", "\n"])).all()
    assert embedder([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("modules", "mode"),
    [(MODULES, "pooling_mode_cls_token"), (["Transformer", "Pooling"], "pooling_mode_mean_tokens")],
)
def test_another_pooling_is_refused(tmp_path, modules, mode):
    spec = sentence_model(tmp_path / "source", modules, mode)
    with pytest.raises(SourceError, match=r"has modules .* and pools by .*choose another sentence encoder"):
        prepare_embedder(spec, None, tmp_path / "ready", tmp_path / "lock.yaml")
    assert not (tmp_path / "ready").exists()


def test_a_model_that_says_nothing_of_pooling_is_refused(tmp_path):
    spec = sentence_model(tmp_path / "source")
    (tmp_path / "source/1_Pooling/config.json").unlink()
    with pytest.raises(SourceError, match="must be a sentence-transformers folder"):
        prepare_embedder(spec, None, tmp_path / "ready", tmp_path / "lock.yaml")


def test_folder_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"pooling\.json is missing"):
        SentenceEmbedder.load(tmp_path, torch.device("cpu"))
