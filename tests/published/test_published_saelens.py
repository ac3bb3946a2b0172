"""SAELens' files mean what its own code computes."""

import json

import pytest
import torch
from safetensors.torch import save_file

from atlas.errors import ReadingError
from atlas.published import read_published

D, N = 8, 24


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def tensors(**more):
    return {
        "W_enc": draw(D, N),
        "b_enc": draw(N),
        "W_dec": draw(N, D, seed=1),
        "b_dec": draw(D, seed=2),
    } | more


def write(folder, config, weights=None):
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors() if weights is None else weights, folder / "sae_weights.safetensors")
    return folder


CONFIG = {
    "architecture": "standard",
    "d_in": D,
    "d_sae": N,
    "dtype": "float32",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "metadata": {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_name": "blocks.3.hook_resid_post"},
}


def test_what_the_files_state_is_on_the_card(tmp_path):
    found = read_published(write(tmp_path / "sae", CONFIG), "saelens", {})
    assert (found.hook, found.target_hook, found.assumed) == ("resid_post.3", None, ())
    assert found.facts["model"] == "gpt2" and found.facts["hook"] == "blocks.3.hook_resid_post"
    assert found.facts["context"]["context_size"] == "not stated by the release"
    assert set(found.facts["files_sha256"]) == {"cfg.json", "sae_weights.safetensors"}


def test_standard_subtracts_b_dec_unless_told_not_to(tmp_path):
    rows, held = draw(50, D, seed=5), tensors()
    for told in (True, False):
        sae = read_published(write(tmp_path / str(told), CONFIG | {"apply_b_dec_to_input": told}), "saelens", {}).sae
        expected = torch.relu((rows - held["b_dec"] * told) @ held["W_enc"] + held["b_enc"])
        torch.testing.assert_close(sae.encode(rows), expected)
        torch.testing.assert_close(sae.decode(expected), expected @ held["W_dec"] + held["b_dec"])


def test_a_missing_key_is_assumed_aloud(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key != "apply_b_dec_to_input"}
    found = read_published(write(tmp_path / "sae", config), "saelens", {})
    assert found.sae.centres
    assert found.assumed == ("cfg.json: apply_b_dec_to_input is missing; taken as True as sae-lens 6.54.12 does",)
    assert read_published(tmp_path / "sae", "saelens", {"apply_b_dec_to_input": False}).sae.centres is False


def test_what_is_stated_must_agree_with_the_files_and_mean_something(tmp_path):
    folder = write(tmp_path / "sae", CONFIG)
    with pytest.raises(ReadingError, match=r"cfg\.json: apply_b_dec_to_input is True, but the configuration states"):
        read_published(folder, "saelens", {"apply_b_dec_to_input": False})
    with pytest.raises(ReadingError, match=r"stated key 'kk' \(3\) means nothing to this SAE of format saelens"):
        read_published(folder, "saelens", {"kk": 3})
    with pytest.raises(ReadingError, match=r"hook is stated as 'resid_post\.4', but the files say 'blocks\.3"):
        read_published(folder, "saelens", {"hook": "resid_post.4"})
    assert read_published(folder, "saelens", {"hook": "resid_pre.4"}).hook == "resid_pre.4"  # the same tensor
