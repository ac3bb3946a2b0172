"""A published SAE is saved and loaded like any other; Gemma Scope and Llama Scope follow their formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peer_cases import cases_of, read_case
from safetensors.torch import load_file, save_file

from atlas.errors import TrainingError
from atlas.export.formats import FORMATS as EXPORTS
from atlas.files import write_plain_json
from atlas.published import FORMATS, read_published
from atlas.published.hooks import hook_of
from atlas.training.sae import load_sae, save_sae

NUMBERS = Path(__file__).parent / "numbers"
CASES = [(folder.name, name) for folder in sorted(NUMBERS.iterdir()) for name in cases_of(folder)]


@pytest.mark.parametrize(("peer", "name"), CASES)
def test_what_was_read_is_kept_by_our_own_files(tmp_path, peer, name):
    sae = read_case(NUMBERS / peer, name).sae
    hooks = {"hook_name": "resid_post.3"} | ({"target_hook_name": "mlp_out.4"} if sae.is_transcoder else {})
    save_sae(sae, tmp_path, {"model_name": "tiny", **hooks})
    again = load_sae(tmp_path)
    rows = load_file(NUMBERS / peer / name / "numbers.safetensors")["rows"]
    latents = sae.encode(rows)
    assert torch.equal(again.encode(rows), latents)
    assert torch.equal(again.decode(latents, rows), sae.decode(latents, rows))
    assert (again.architecture, again.centres, again.needs_rows) == (sae.architecture, sae.centres, sae.needs_rows)


def test_latents_alone_are_not_decoded_where_rows_are_needed():
    for peer, name in (("saelens", "layer_norm"), ("sparsify", "skip")):
        sae = read_case(NUMBERS / peer, name).sae
        with pytest.raises(TrainingError, match="cannot be decoded from latents alone"):
            sae.decode(torch.zeros(1, 16))


def test_gemma_scope_is_its_published_formula(tmp_path):
    """arXiv 2408.05147, section 3: JumpReLU of x W + b with a threshold per latent; b_dec is added at the end alone."""
    held = {
        name: value.numpy() for name, value in load_file(NUMBERS / "sparsify/topk/layers.3/sae.safetensors").items()
    }
    weights = {
        "W_enc": held["encoder.weight"].T.astype(np.float16),
        "W_dec": held["W_dec"],
        "b_enc": held["encoder.bias"],
        "b_dec": held["b_dec"],
        "threshold": np.linspace(0, 1, 16, dtype=np.float32),
    }
    np.savez(tmp_path / "params.npz", **weights)
    sae = read_published(tmp_path, "gemma_scope", {"hook": "resid_post.3"}).sae
    rows = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    rows[0] = 0
    pre = rows.astype(np.float64) @ weights["W_enc"].astype(np.float64) + weights["b_enc"]
    latents = np.where((pre > weights["threshold"]) & (pre > 0), pre, 0)
    found = sae.encode(torch.from_numpy(rows))
    np.testing.assert_allclose(found, latents, atol=1e-5)
    expected = latents @ weights["W_dec"] + weights["b_dec"]
    np.testing.assert_allclose(sae.decode(found), expected, atol=1e-5)


def test_a_value_at_its_threshold_does_not_fire(tmp_path):
    eye = np.eye(3, dtype=np.float32)
    zeros = np.zeros(3, np.float32)
    np.savez(tmp_path / "params.npz", W_enc=eye, W_dec=eye, b_enc=zeros, b_dec=zeros, threshold=eye[0] * 0 + 0.5)
    sae = read_published(tmp_path, "gemma_scope").sae
    above = np.nextafter(np.float32(0.5), np.float32(1))
    assert sae.encode(torch.tensor([[0.5, above, 0.25]])).tolist() == [[0, above, 0]]


def llama_scope(folder, **keys):
    """Files of Llama Scope: nn.Linear's matrices, one threshold, and the norms of the data."""
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "encoder.weight": torch.randn(16, 4, generator=generator),
        "encoder.bias": torch.randn(16, generator=generator),
        "decoder.weight": torch.nn.functional.normalize(torch.randn(4, 16, generator=generator), dim=0),
        "decoder.bias": torch.randn(4, generator=generator),
    }
    (folder / "checkpoints").mkdir(parents=True)
    save_file(tensors, folder / "checkpoints/final.safetensors")
    settings = {
        "d_model": 4,
        "d_sae": 16,
        "hook_point_in": "blocks.3.hook_resid_post",
        "hook_point_out": "blocks.3.hook_resid_post",
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.25,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 4.0, "out": 4.0},
        "top_k": 50,
    }
    write_plain_json(folder / "hyperparams.json", settings | keys)
    return tensors


@pytest.mark.parametrize(("units", "threshold"), [(None, 0.125), ("rows", 0.125), ("normalised", 0.25)])
def test_llama_scope_multiplies_rows_and_says_in_what_units_its_threshold_was_taken(tmp_path, units, threshold):
    w = llama_scope(tmp_path)
    found = read_published(tmp_path, "llama_scope", {"threshold_units": units})
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(1)).double()
    scaled = rows * 2 / 4  # √4 / 4
    pre = scaled @ w["encoder.weight"].T.double() + w["encoder.bias"]
    latents = torch.where(pre > threshold, pre, 0)
    torch.testing.assert_close(found.sae.encode(rows).double(), latents, atol=1e-5, rtol=1e-5)
    expected = (latents @ w["decoder.weight"].T.double() + w["decoder.bias"]) * 2
    torch.testing.assert_close(found.sae.decode(latents.float()).double(), expected, atol=1e-5, rtol=1e-5)
    assert any("threshold_units" in note for note in found.assumed) == (units is None)
    assert (found.hook, found.l0, set(found.alternatives)) == ("resid_post.3", 50, {"threshold_units the other one"})


def test_a_transcoder_of_llama_scope_has_two_norms(tmp_path):
    out = {"hook_point_out": "blocks.3.hook_mlp_out", "dataset_average_activation_norm": {"in": 4.0, "out": 0.5}}
    w = llama_scope(tmp_path, **out)
    found = read_published(tmp_path, "llama_scope", {})
    assert found.target_hook == "mlp_out.3" and found.sae.is_transcoder
    decoded = found.sae.decode(torch.zeros(1, 16))
    torch.testing.assert_close(decoded[0], w["decoder.bias"] * 0.5 / 2)  # ÷ (√4 / 0.5)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("blocks.3.hook_resid_post", "resid_post.3"),
        ("blocks.12.hook_mlp_out", "mlp_out.12"),
        ("blocks.3.mlp.hook_in", "mlp_in.3"),
        ("blocks.3.hook_mlp_in", None),  # before the norm
        ("blocks.3.attn.hook_z", None),
        ("layers.3", "resid_post.3"),
        ("layers.3.mlp", "mlp_out.3"),
        ("model.layers.3.output", "resid_post.3"),
        ("model.layers.3.pre_feedforward_layernorm.output", "mlp_in.3"),
        ("model.layers.3.self_attn.o_proj.input", None),
        ("transformer.h.3.attn", "attn_out.3"),
        ("resid_pre.4", "resid_pre.4"),
        (None, None),
    ],
)
def test_names_of_hooks(name, ours):
    assert hook_of(name) == ours


def test_every_format_says_what_it_holds_and_what_to_download():
    for name, entry in FORMATS.items():
        assert entry.name == name and entry.description and entry.patterns and entry.versions


def test_exports_refuse_what_their_format_does_not_hold():
    for peer, name in (("saelens", "layer_norm"), ("sparsify", "skip"), ("saelens", "standard_not_subtracted")):
        sae = read_case(NUMBERS / peer, name).sae
        for export in ("dictionary_learning", "sparsify"):
            assert EXPORTS[export].refusal(sae) is not None, (name, export)
    for peer, name in (("sparsify", "groupmax"), ("llamascopium", "topk_dataset_wise")):
        assert "no selection like" in EXPORTS["saelens"].refusal(read_case(NUMBERS / peer, name).sae)
