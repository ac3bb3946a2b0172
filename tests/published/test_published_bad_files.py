"""Unreadable files are errors with file, key, value and expectation, before anything is computed."""

import io
import json
import math
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from atlas.errors import ReadingError
from atlas.published import FORMATS, read_published

NUMBERS = Path(__file__).parent / "numbers"


@pytest.fixture
def copied(tmp_path):
    """A committed case of a peer, to be damaged."""

    def copy(peer, name, place="sae"):
        shutil.copytree(NUMBERS / peer / name / place, tmp_path / place)
        return tmp_path / place

    return copy


def change_json(path, **keys):
    values = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))


def change_tensor(path, name, change):
    tensors = load_file(path)
    change(tensors[name])
    save_file(tensors, path)


def refused(place, format, match, stated=None):
    with pytest.raises(ReadingError, match=match) as raised:
        read_published(place, format, stated or {})
    return str(raised.value)


def test_unknown_formats_and_places(tmp_path):
    refused(tmp_path, "onnx", f"format is 'onnx', expected one of {', '.join(FORMATS)}")
    refused(tmp_path / "none", "saelens", "none: does not exist")
    refused(tmp_path, "saelens", r"expected one file cfg\.json, found none; the folder holds nothing")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"architecture": "abstopk"},
            r"architecture is 'abstopk': its latents may be negative.* expected one of standard",
        ),
        ({"architecture": "vae"}, r"architecture is 'vae'; expected one of standard, topk, jumprelu"),
        ({"architecture": "absent"}, r"has no key architecture.*state architecture in the configuration"),
        ({"normalize_activations": "zzz"}, r"normalize_activations is 'zzz', expected one of none, expected_average"),
        ({"normalize_activations": "expected_average_only_in"}, r"files do not say its number; state scale"),
        ({"normalize_activations": "covariance_whitening"}, r"is 'covariance_whitening', expected one of none"),
        ({"apply_b_dec_to_input": "yes"}, r"apply_b_dec_to_input is 'yes', expected true or false"),
        ({"d_in": 7}, r"cfg\.json: d_in is 7, but the tensors have 6"),
        ({"d_sae": 17}, r"cfg\.json: d_sae is 17, but the tensors have 16"),
        ({"dtype": "int8"}, r"dtype is 'int8', expected one of float32"),
        ({"k": 17}, r"cfg\.json: k is 17, expected 1 to 16, the number of latents"),
        ({"k": True}, r"k is True, expected a whole number"),
        ({"reshape_activations": "heads"}, r"reshape_activations is 'heads', expected one of 'none', 'hook_z'"),
    ],
)
def test_keys_of_saelens(copied, keys, said):
    folder = copied("saelens", "topk")
    change_json(folder / "cfg.json", **keys)
    refused(folder, "saelens", said)


def zero_row(tensor):
    tensor[3] = 0


def not_a_number(tensor):
    tensor.view(-1)[5] = math.nan


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("W_dec", zero_row, r"1 of 16 decoder rows are zero, the first is latent 3; .*zero_decoder_rows: accept"),
        ("W_enc", not_a_number, r"sae_weights\.safetensors: W_enc\[0, 5\] is nan, expected finite numbers"),
        ("b_dec", not_a_number, r"b_dec\[5\] is nan"),
    ],
)
def test_values_of_tensors(copied, name, change, said):
    folder = copied("saelens", "standard")
    change_tensor(folder / "sae_weights.safetensors", name, change)
    refused(folder, "saelens", said)
    if change is zero_row:
        assert read_published(folder, "saelens", {"zero_decoder_rows": "accept"}).sae.n_latents == 16


def test_missing_left_over_and_misshapen_tensors(copied):
    folder = copied("saelens", "standard")
    path = folder / "sae_weights.safetensors"
    whole = load_file(path)
    save_file({name: value for name, value in whole.items() if name != "b_enc"}, path)
    refused(folder, "saelens", r"has no tensor b_enc, it holds W_dec, W_enc, b_dec")
    save_file(whole | {"threshold": whole["b_enc"].clone()}, path)
    refused(folder, "saelens", r"holds threshold, which an SAE of this architecture does not have")
    save_file(whole | {"W_dec": whole["W_dec"].T.contiguous()}, path)
    refused(folder, "saelens", r"W_dec has shape \(6, 16\), expected \(16, 6\)")
    save_file(whole | {"b_enc": whole["b_enc"].int()}, path)
    refused(folder, "saelens", r"b_enc has the format torch\.int32, expected floating point numbers")
    path.write_bytes(path.read_bytes()[:100])
    refused(folder, "saelens", "truncated or not a safetensors file")
    (folder / "cfg.json").write_text("[1]")
    refused(folder, "saelens", "cfg.json: holds list, expected a mapping")


class Spy:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("peer", [("dictionary_learning", "AutoEncoderTopK", "ae.pt"), ("openai", "topk", "sae.pt")])
def test_a_pickle_of_anything_but_tensors_is_refused_unrun(copied, tmp_path, peer):
    name, case, file = peer
    folder, mark = copied(name, case), tmp_path / "ran"
    state = torch.load(folder / file, weights_only=True)
    torch.save(dict(state) | {"spy": Spy(mark)}, folder / file)
    refused(folder, name, rf"{file}: not a torch file of tensors alone .*ask its author for safetensors")
    assert not mark.exists()
    torch.save(dict(state) | {"note": "a text"}, folder / file)
    refused(folder, name, r"note is a str, expected a tensor")


def test_arrays_of_objects_are_refused_unrun(tmp_path):
    mark, held = tmp_path / "ran", {"W_enc": np.zeros((2, 3), np.float32)}
    np.savez(tmp_path / "params.npz", **held, spy=np.array([Spy(mark)], dtype=object))
    refused(tmp_path, "gemma_scope", r"params\.npz: not an npz file of plain arrays .*nothing is unpickled")
    assert not mark.exists()
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as file:
        file.writestr("W_enc.npy", b"no array")
    refused(tmp_path, "gemma_scope", "not an npz file of plain arrays")


def test_keys_of_the_other_formats(copied, tmp_path):
    folder = copied("sparsify", "groupmax", "layers.3")
    change_json(folder / "cfg.json", k=5)
    refused(folder, "sparsify", "k is 5, expected a divisor of 16, because groupmax makes k equal groups")
    change_json(folder / "cfg.json", activation="relu")
    refused(folder, "sparsify", "activation is 'relu', expected one of 'topk', 'groupmax'")
    folder = copied("llamascopium", "topk")
    change_json(folder / "config.json", act_fn="batchtopk")
    refused(folder, "llamascopium", "act_fn is 'batchtopk', which takes the largest of a whole batch")
    shutil.rmtree(folder)
    folder = copied("dictionary_learning", "AutoEncoderTopK")
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    change_json(folder / "config.json", trainer=trainer | {"k": 3})
    refused(folder, "dictionary_learning", r"ae\.pt: k is 4, but 3 is stated by you or by config\.json")
    (folder / "config.json").unlink()
    refused(folder, "dictionary_learning", "has no key dict_class, expected one of 'AutoEncoder'.*state dict_class")
    stated = {"dict_class": "AutoEncoderTopK", "hook": "resid_post.3"}
    assert read_published(folder, "dictionary_learning", stated).sae.k == 4


def test_a_norm_that_was_never_set_is_refused(copied):
    folder = copied("llamascopium", "topk_dataset_wise")
    name = "dataset_average_activation_norm.blocks.3.hook_resid_post"
    change_tensor(folder / "sae_weights.safetensors", name, lambda norm: norm.fill_(-4.8e-35))
    refused(folder, "llamascopium", rf"{name} is -4\.8e-35, expected 1e-06 to 1e\+09: it was never set")


def test_a_transcoder_is_not_read_as_an_sae(copied, tmp_path):
    folder = copied("circuit_tracer", "gemma_scope_2")
    refused(folder, "gemma_scope", "has affine_skip_connection, so this is a transcoder")
    (folder / "config.json").write_text(json.dumps({"hf_hook_point_out": "model.layers.3.output"}))
    refused(folder, "gemma_scope", "hf_hook_point_out is 'model.layers.3.output', so this is a transcoder")


@pytest.mark.parametrize(
    ("case", "format", "name"),
    [
        ("jumprelu", "circuit_tracer", "activation_function.threshold"),
        ("gemma_scope_2", "gemma_scope_transcoder", "threshold"),
    ],
)
def test_thresholds_below_0_are_refused_where_no_relu_follows(copied, case, format, name):
    """circuit-tracer 0.5.0 computes x · (x > θ): a value between θ and 0 passes."""
    folder = copied("circuit_tracer", case)
    path = next(folder.iterdir())
    change_tensor(path, name, lambda thresholds: thresholds[2].fill_(-0.25))
    refused(folder, format, rf"{name}\[2\] is -0\.25, expected 0 or more")


def test_the_layer_of_a_folder_and_the_stated_hook_must_agree(tmp_path):
    folder = tmp_path / "layer_20/width_16/average_l0_71"
    shutil.copytree(NUMBERS / "circuit_tracer/gemma_scope_1/sae", folder)
    refused(folder, "gemma_scope", "is of layer 20, but hook is resid_post.12", {"hook": "resid_post.12"})
    found = read_published(folder, "gemma_scope", {"hook": "resid_post.20"})
    assert (found.hook, found.l0, found.sae.centres) == ("resid_post.20", 71, False)


def test_two_files_of_one_kind(copied):
    folder = copied("openai", "relu")
    buffer = io.BytesIO((folder / "sae.pt").read_bytes())
    (folder / "other.pt").write_bytes(buffer.getvalue())
    refused(folder, "openai", r"expected one file \*\.pt, found 2 files, other\.pt, sae\.pt")
    assert read_published(folder / "sae.pt", "openai", {}).sae.architecture == "relu"
