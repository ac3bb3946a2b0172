"""`atlas.open_sae` and `atlas.read_activations`."""

from pathlib import Path

import pytest
import torch
from trained import random_sae, write_trained

import atlas
from atlas.errors import ReadingError
from atlas.models.forward import capture
from atlas.published import read_published
from tiny import prepare_and_load, tiny_llama

NUMBERS = Path(__file__).parent / "numbers"


@pytest.mark.parametrize(
    ("place", "architecture"),
    [
        ("saelens/gated/sae", "gated"),
        ("sparsify/topk/layers.3", "topk"),
        ("dictionary_learning/BatchTopKSAE/sae", "batch_topk"),
        ("llamascopium/relu/sae", "relu"),
        ("circuit_tracer/gemma_scope_1/sae", "jumprelu"),
    ],
)
def test_the_names_of_files_tell_the_format(place, architecture):
    assert atlas.open_sae(NUMBERS / place).architecture == architecture


def test_our_own_are_opened_as_they_were_trained(tmp_path):
    sae = random_sae("batch_topk")
    opened = atlas.open_sae(write_trained(tmp_path / "sae", sae))
    assert opened.architecture == "batch_topk" and opened.threshold == sae.threshold
    # SAELens has no batch_topk: the same files, read as its format, are a jumprelu that computes the same.
    foreign = read_published(tmp_path / "sae", "saelens").sae
    rows = torch.randn(40, 24)
    assert foreign.architecture == "jumprelu"
    torch.testing.assert_close(foreign.encode(rows), opened.encode(rows))


def test_what_is_assumed_is_said(caplog):
    atlas.open_sae(NUMBERS / "dictionary_learning/JumpReluAutoEncoder/sae")
    assert "apply_b_dec_to_input is missing; taken as False" in caplog.text


def test_a_folder_of_no_known_format(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ReadingError, match=r"its files \(weights\.bin\) do not tell its format; give format, one of"):
        atlas.open_sae(tmp_path)


def test_activations_are_those_of_the_hook(tmp_path):
    loaded = prepare_and_load(tiny_llama(tmp_path / "source"), tmp_path / "model", n_layers=4)
    texts = ["a b c", "b"]
    found = atlas.read_activations(loaded, texts, "resid_post.1")
    for text, rows in zip(texts, found, strict=True):
        ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
        assert torch.equal(rows, capture(loaded, ids, ["resid_post.1"])["resid_post.1"][0].float())
    assert torch.equal(atlas.read_activations(tmp_path / "model", texts, "resid_post.1")[0], found[0])
    with pytest.raises(ValueError, match="hook point 'layer 1'"):
        atlas.read_activations(loaded, texts, "layer 1")


def test_other_names_are_missing():
    with pytest.raises(AttributeError, match="no attribute 'close_sae'"):
        atlas.close_sae  # noqa: B018
