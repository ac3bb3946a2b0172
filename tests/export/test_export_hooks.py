"""Names of hooks in exports: they mean to other tools what they mean here, or nothing."""

import json

import pytest
import torch
from peer_environments import REPOSITORY, peer_python
from safetensors.torch import load_file, save_file
from trained import MODEL, random_sae, write_trained
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from atlas.export.environments import run_isolated
from atlas.export.formats import export_sae, verify_files
from atlas.files import read_json, write_json
from atlas.models.adapters import find_adapter, find_place
from atlas.training.transformer_lens import transformer_lens_name
from tiny import tiny_bert, tiny_llama, tiny_nemotron_h

SCRIPT = REPOSITORY / "tests/export/transformer_lens_tensors.py"


def names_in(folder):
    metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
    return {key: metadata[key] for key in ("hook_name", "hook_name_out") if key in metadata}


@pytest.mark.parametrize("format_name", ["saelens", "huggingface"])
def test_a_transcoder_is_said_to_read_what_goes_into_the_mlp(tmp_path, format_name):
    source = write_trained(tmp_path / "sae", random_sae("batch_topk", d_target=17))
    export_sae(source, format_name, tmp_path / "export")
    inside = tmp_path / "export" / ("mlp_in.3-to-mlp_out.3" if format_name == "huggingface" else "")
    assert names_in(inside) == {"hook_name": "blocks.3.mlp.hook_in", "hook_name_out": "blocks.3.hook_mlp_out"}
    config = json.loads((inside / "cfg.json").read_text())
    assert (config["d_in"], config["d_out"]) == (24, 17)
    if format_name == "huggingface":
        card = (tmp_path / "export/README.md").read_text()
        assert "blocks.3.mlp.hook\\_in to blocks.3.hook\\_mlp\\_out" in card


def test_wrong_names_of_earlier_versions_are_not_exported(tmp_path):
    source = write_trained(tmp_path / "sae", random_sae(), hook="mlp_in.3")
    config = read_json(source / "cfg.json")
    config["metadata"]["hook_name"] = "blocks.3.hook_mlp_in"
    write_json(source / "cfg.json", config)
    export_sae(source, "saelens", tmp_path / "export")
    assert names_in(tmp_path / "export") == {"hook_name": "blocks.3.mlp.hook_in"}
    verify_files(tmp_path / "export")
    # A right one stays as it was, byte for byte.
    right = write_trained(tmp_path / "right", random_sae())
    export_sae(right, "saelens", tmp_path / "same")
    assert (tmp_path / "same/cfg.json").read_bytes() == (right / "cfg.json").read_bytes()


def test_a_model_that_transformer_lens_does_not_know_has_no_name(tmp_path):
    model = MODEL | {"architecture": "distilbert"}
    export_sae(write_trained(tmp_path / "sae", random_sae(), model=model), "huggingface", tmp_path / "export")
    assert names_in(tmp_path / "export/resid_post.3") == {"hook_name": None}
    assert "no such tensor" in (tmp_path / "export/README.md").read_text()


@pytest.mark.parametrize(
    ("hook", "layer", "submodule"),
    [
        ("resid_post.3", 3, "resid_post_layer_3"),
        ("resid_pre.3", 2, "resid_post_layer_2"),  # the same tensor
        ("resid_pre.0", None, "resid_pre_layer_0"),
        ("mlp_in.3", None, "mlp_in_layer_3"),
        ("mlp_out.3", None, "mlp_out_layer_3"),
        ("attn_out.3", None, "attn_out_layer_3"),
    ],
)
def test_a_layer_of_dictionary_learning_is_the_output_of_that_block(tmp_path, hook, layer, submodule):
    """SAELens reads its folders as of `hook_resid_post` of `layer`, whatever else they say."""
    export_sae(write_trained(tmp_path / "sae", random_sae(), hook=hook), "dictionary_learning", tmp_path / "export")
    config = json.loads((tmp_path / "export/config.json").read_text())
    assert (config["trainer"]["layer"], config["trainer"]["submodule_name"]) == (layer, submodule)
    assert config["atlas"]["hook"] == hook


def tensors_of(folder, masked, ids):
    """Return the tensors of our hooks of block 1 in a model."""
    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    found = {}
    for site in ("resid_pre", "resid_post", "mlp_in", "mlp_out", "attn_out"):
        try:
            place = find_place(model, find_adapter(model.config.model_type), f"{site}.1")
        except Exception:  # a block of Nemotron-H has no such place
            continue

        def keep(module, given, options, out, site=site, side=place.side):
            value = (given[0] if given else options["hidden_states"]) if side == "input" else out
            found[site] = value[0] if isinstance(value, tuple) else value

        handle = place.module.register_forward_hook(keep, with_kwargs=True)
        with torch.no_grad():
            model(ids)
        handle.remove()
    return model.config.model_type, found


@pytest.mark.slow
def test_names_of_hooks_are_those_of_the_same_tensors_in_transformer_lens(tmp_path, tmp_path_factory):
    ids = torch.arange(6, 20).view(2, 7)
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    models = {
        "llama": (tiny_llama(tmp_path / "llama"), False),
        "bert": (tiny_bert(tmp_path / "bert", objective="masked_lm"), True),
        "nemotron_h": (tiny_nemotron_h(tmp_path / "nemotron_h"), False),
    }
    jobs = [
        {
            "model": str(folder),
            "masked": masked,
            "ids": str(tmp_path / "ids.safetensors"),
            "target": str(tmp_path / f"{name}.safetensors"),
        }
        for name, (folder, masked) in models.items()
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    run_isolated(
        peer_python("saelens", tmp_path_factory), [str(SCRIPT), str(tmp_path / "jobs.json")], "TransformerLens"
    )
    compared = 0
    for name, (folder, masked) in models.items():
        architecture, ours = tensors_of(folder, masked, ids)
        theirs = load_file(tmp_path / f"{name}.safetensors")
        for site, tensor in ours.items():
            torch.testing.assert_close(theirs[transformer_lens_name(f"{site}.1", architecture)], tensor)
            compared += 1
    assert compared == 5 + 5 + 4
