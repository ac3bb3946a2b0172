"""What each format holds, read back as its definition says; what is refused, and why."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from trained import random_sae, write_trained

from atlas.config.recipe import Recipe
from atlas.errors import ExportError
from atlas.export.dictionary_learning import CLASSES, group_sizes
from atlas.export.formats import FORMATS, export_sae, verify_files
from atlas.export.layout import FILES, READERS, files_of
from atlas.export.source import read_trained
from atlas.runcard import public_card, read_run_card
from atlas.training.architectures import ARCHITECTURES
from atlas.training.architectures.matryoshka_batch_topk import group_sizes as training_group_sizes
from atlas.training.sae import load_sae


def rows_for(sae, n=50):
    return 3 * torch.randn(n, sae.d_model, generator=torch.Generator().manual_seed(1))


def test_every_format_is_in_every_table():
    assert set(FORMATS) == set(FILES) == set(READERS)
    assert set(CLASSES) == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("format_name", ["saelens", "huggingface"])
def test_saelens_layout_is_our_own_files(tmp_path, architecture, format_name):
    sae = random_sae(architecture)
    source = write_trained(tmp_path / "sae", sae)
    export_sae(source, format_name, tmp_path / "export")
    folder = tmp_path / "export" / ("resid_post.3" if format_name == "huggingface" else "")
    for name in ("sae_weights.safetensors", "cfg.json"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    rows = rows_for(sae)
    assert torch.equal(load_sae(folder).encode(rows), sae.encode(rows))


def read_state(folder):
    return torch.load(folder / "ae.pt", weights_only=True)


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_dictionary_learning_topk_and_batch_topk(tmp_path, architecture):
    sae = random_sae(architecture)
    export_sae(write_trained(tmp_path / "sae", sae), "dictionary_learning", tmp_path / "export")
    state = read_state(tmp_path / "export")
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "encoder.weight": (60, 24),
        "encoder.bias": (60,),
        "decoder.weight": (24, 60),
        "b_dec": (24,),
        "k": (),
        "threshold": (),
    }
    assert (state["k"].dtype, state["k"].item()) == (torch.int32, 20)
    assert state["threshold"].dtype == torch.float32
    rows = rows_for(sae)
    passed = torch.relu((rows - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"])
    if architecture == "topk":
        assert state["threshold"] == -1
        values, indices = passed.topk(20)
        latents = torch.zeros_like(passed).scatter(1, indices, values)
    else:
        latents = passed * (passed > state["threshold"])
    torch.testing.assert_close(latents, sae.encode(rows))
    torch.testing.assert_close(latents @ state["decoder.weight"].T + state["b_dec"], sae.decode(sae.encode(rows)))


def test_dictionary_learning_matryoshka_has_the_groups_of_training(tmp_path):
    source = write_trained(tmp_path / "sae", random_sae("matryoshka_batch_topk", n_latents=61))
    export_sae(source, "dictionary_learning", tmp_path / "export")
    sizes = read_state(tmp_path / "export")["group_sizes"].tolist()
    recipe = Recipe(
        architecture="matryoshka_batch_topk",
        n_latents=61,
        k=20,
        group_fractions=(0.1, 0.25, 0.65),
        steps=100,
        warmup_steps=10,
        threshold_start_step=10,
    )
    assert tuple(sizes) == training_group_sizes(recipe) == (6, 15, 40)
    assert (
        json.loads((tmp_path / "export/config.json").read_text())["trainer"]["dict_class"] == "MatryoshkaBatchTopKSAE"
    )
    withheld = dataclasses.replace(read_trained(source), card=public_card(read_run_card(source / "run_card.yaml")))
    with pytest.raises(ExportError, match="group_fractions"):
        group_sizes(withheld)


def test_dictionary_learning_jumprelu_subtracts_nothing_from_its_rows(tmp_path):
    sae = random_sae("jumprelu")
    export_sae(write_trained(tmp_path / "sae", sae), "dictionary_learning", tmp_path / "export")
    state, rows = read_state(tmp_path / "export"), rows_for(sae)
    pre = rows @ state["W_enc"] + state["b_enc"]
    latents = torch.relu(pre * (pre > state["threshold"]))
    torch.testing.assert_close(latents, sae.encode(rows), rtol=1e-5, atol=1e-5)


def test_dictionary_learning_config_says_what_it_is_of(tmp_path):
    export_sae(write_trained(tmp_path / "sae", random_sae("relu")), "dictionary_learning", tmp_path / "export")
    assert json.loads((tmp_path / "export/config.json").read_text()) == {
        "trainer": {
            "dict_class": "AutoEncoder",
            "activation_dim": 24,
            "dict_size": 60,
            "k": None,
            "layer": 3,
            "submodule_name": "resid_post_layer_3",
            "lm_name": "tiny",
        },
        "atlas": {"model": "tiny", "hook": "resid_post.3"},
    }


@pytest.mark.parametrize("d_target", [None, 24])
def test_sparsify(tmp_path, d_target):
    sae = random_sae("topk", d_target=d_target)
    export_sae(write_trained(tmp_path / "sae", sae), "sparsify", tmp_path / "export")
    config = json.loads((tmp_path / "export/cfg.json").read_text())
    assert (config["transcode"], config["k"], config["num_latents"], config["d_in"]) == (bool(d_target), 20, 60, 24)
    state, rows = load_file(tmp_path / "export/sae.safetensors"), rows_for(sae)
    centred = rows if config["transcode"] else rows - state["b_dec"]
    passed = torch.relu(centred @ state["encoder.weight"].T + state["encoder.bias"])
    values, indices = passed.topk(config["k"])
    torch.testing.assert_close(torch.zeros_like(passed).scatter(1, indices, values), sae.encode(rows))
    assert torch.equal(state["W_dec"], sae.W_dec)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "topk"])
def test_sparsify_is_refused_all_but_topk(tmp_path, architecture):
    source = write_trained(tmp_path / "sae", random_sae(architecture))
    with pytest.raises(
        ExportError, match=f"no sparsify export: .*always takes the k largest.*{architecture} keeps all"
    ):
        export_sae(source, "sparsify", tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("format_name", "architecture", "d_target", "reason"),
    [
        ("dictionary_learning", "topk", 24, "has no transcoder"),
        ("sparsify", "topk", 17, "one width; these have 24 and 17"),
        ("saelens", "topk", 17, "no topk transcoder; .*24 and 17"),
        ("huggingface", "topk", 17, "no topk transcoder; .*24 and 17"),
    ],
)
def test_transcoders_that_a_format_cannot_hold(tmp_path, format_name, architecture, d_target, reason):
    source = write_trained(tmp_path / "sae", random_sae(architecture, d_target=d_target))
    with pytest.raises(ExportError, match=reason):
        export_sae(source, format_name, tmp_path / "export")


def test_relu_whose_decoder_the_peer_would_rescale_is_refused(tmp_path):
    sae = random_sae("relu")
    source = write_trained(tmp_path / "sae", dataclasses.replace(sae, W_dec=2 * sae.W_dec))
    with pytest.raises(ExportError, match=r"norms from 2 to 2; the loader .* change the latents"):
        export_sae(source, "dictionary_learning", tmp_path / "export")


def test_unknown_format(tmp_path):
    with pytest.raises(ExportError, match="'onnx'; expected one of saelens, dictionary_learning"):
        export_sae(tmp_path, "onnx", tmp_path / "export")


def remove_weights(folder):
    (folder / "sae_weights.safetensors").unlink()


def truncate_weights(folder):
    data = (folder / "sae_weights.safetensors").read_bytes()
    (folder / "sae_weights.safetensors").write_bytes(data[:-100])


def not_a_number(folder):
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors["W_enc"][0, 0] = float("nan")
    save_file(tensors, folder / "sae_weights.safetensors")


def foreign_config(folder):
    config = json.loads((folder / "cfg.json").read_text())
    del config["metadata"]["atlas"]
    (folder / "cfg.json").write_text(json.dumps(config))


def remove_card(folder):
    (folder / "run_card.yaml").unlink()


def cut_card(folder):
    lines = (folder / "run_card.yaml").read_text().splitlines()
    (folder / "run_card.yaml").write_text("\n".join(line for line in lines if not line.startswith("seed:")))


def card_is_a_list(folder):
    (folder / "run_card.yaml").write_text("- 1\n")


def card_of_another_hook(folder):
    text = (folder / "run_card.yaml").read_text()
    (folder / "run_card.yaml").write_text(text.replace("hook: resid_post.3", "hook: resid_post.4"))


def card_of_another_size(folder):
    text = (folder / "run_card.yaml").read_text()
    (folder / "run_card.yaml").write_text(text.replace("n_latents: 60", "n_latents: 61"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove_weights, "sae_weights.safetensors: missing"),
        (truncate_weights, "sae_weights.safetensors: missing, truncated"),
        (not_a_number, "W_enc has values that are not finite"),
        (foreign_config, "cfg.json: is not the configuration of an SAE of this project"),
        (remove_card, "run_card.yaml: there is no such file"),
        (cut_card, "run_card.yaml: the run card lacks seed"),
        (card_is_a_list, "run_card.yaml: holds list"),
        (card_of_another_hook, "run_card.yaml: hook is 'resid_post.4', but the SAE beside it has 'resid_post.3'"),
        (card_of_another_size, "run_card.yaml: sae.n_latents is 61, but the SAE beside it has 60"),
    ],
)
def test_damaged_source(tmp_path, damage, said):
    source = write_trained(tmp_path / "sae", random_sae())
    damage(source)
    with pytest.raises(ExportError, match=said):
        export_sae(source, "saelens", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_folder_of_another_sae_or_of_other_things_is_kept(tmp_path):
    first = write_trained(tmp_path / "first", random_sae(seed=0))
    second = write_trained(tmp_path / "second", random_sae(seed=1))
    export_sae(first, "saelens", tmp_path / "export")
    before = (tmp_path / "export/sae_weights.safetensors").read_bytes()
    with pytest.raises(ExportError, match="export of another SAE"):
        export_sae(second, "saelens", tmp_path / "export")
    with pytest.raises(ExportError, match="which is no part of a sparsify export"):
        export_sae(first, "sparsify", tmp_path / "export")
    (tmp_path / "export/notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"holds notes\.txt"):
        export_sae(first, "saelens", tmp_path / "export")
    assert (tmp_path / "export/sae_weights.safetensors").read_bytes() == before


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_export_can_be_made_again(tmp_path, format_name):
    source = write_trained(tmp_path / "sae", random_sae())
    export_sae(source, format_name, tmp_path / "export")
    first = verify_files(tmp_path / "export")
    (tmp_path / "export/export.json").unlink()  # as when it was killed before the end
    export_sae(source, format_name, tmp_path / "export")
    export_sae(source, format_name, tmp_path / "export")
    assert verify_files(tmp_path / "export") == first
    assert set(first["files"]) == set(files_of(format_name, "resid_post.3"))


def test_an_altered_export_is_noticed(tmp_path):
    export_sae(write_trained(tmp_path / "sae", random_sae()), "saelens", tmp_path / "export")
    copy = shutil.copytree(tmp_path / "export", tmp_path / "copy")
    (copy / "cfg.json").write_text("{}")
    with pytest.raises(ExportError, match=r"cfg\.json: missing, or altered"):
        verify_files(copy)
    (copy / "export.json").write_text("{}")
    with pytest.raises(ExportError, match=r"export\.json: lacks files, format"):
        verify_files(copy)
    (copy / "export.json").unlink()
    with pytest.raises(ExportError, match=r"export\.json: missing"):
        verify_files(copy)
