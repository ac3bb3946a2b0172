"""Checkpoints as they are found: quantised weights, tensors without a place, shapes that are not the declared ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import source_logits, tiny_gguf
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer, RobertaConfig, RobertaModel

from atlas.errors import AtlasError, SourceError
from atlas.models import prepare as prepare_module
from atlas.models.audit import audit_model
from atlas.models.checkpoint import read_config
from atlas.models.dequantise import dequantised
from atlas.models.forward import final_hidden, logits
from atlas.models.survival import Outcome, require_same
from tiny import VOCABULARY, prepare_and_load, tiny_bert, tiny_llama, tiny_tokenizer

BLOCK = 16
LARGEST = 448.0  # of float8_e4m3fn


@pytest.fixture
def source(tmp_path) -> Path:
    return tiny_llama(tmp_path / "source")


def by_block(weight: torch.Tensor) -> torch.Tensor:
    rows, columns = weight.shape
    return weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).abs().amax((1, 3)) / LARGEST


def spread(scale: torch.Tensor) -> torch.Tensor:
    return scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)


def quantise(folder: Path, kind: str, config: dict | None) -> dict[str, torch.Tensor]:
    """Store the projections of a tiny model in float8 (or int8); returns what each stands for, computed here."""
    weights, stored, meant = load_file(folder / "model.safetensors"), {}, {}
    for key, value in weights.items():
        if "proj" not in key:
            stored[key] = meant[key] = value
            continue
        if kind == "block":
            scale = by_block(value)
            wide, name = spread(scale), f"{key}_scale_inv"
        elif kind == "row":
            scale = value.abs().amax(1, keepdim=True) / LARGEST
            wide, name = scale, f"{key}_scale"
        else:
            scale = value.abs().max() / (127 if kind == "int8" else LARGEST)
            wide, name = scale, f"{key}_scale"
            stored[key.replace("weight", "input_scale")] = torch.tensor(0.5)
        small = (value / wide).round().to(torch.int8) if kind == "int8" else (value / wide).to(torch.float8_e4m3fn)
        stored |= {key: small, name: scale.clone()}
        meant[key] = small.float() * wide
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    say(folder, quantization_config=config)
    return meant


def say(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= fields
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


FP8 = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8"}


@pytest.mark.parametrize(
    ("kind", "config"),
    [("block", FP8), ("tensor", MODELOPT), ("row", MODELOPT), ("tensor", FP8 | {"weight_block_size": None})],
)
def test_float8_weights_are_multiplied_by_their_scales(source, tmp_path, contexts, kind, config):
    meant = quantise(source, kind, config)
    loaded = prepare_and_load(source, tmp_path / "prepared", 4)
    found = loaded.model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in meant.items())
    assert "quantization_config" not in json.loads((tmp_path / "prepared" / "config.json").read_text())
    report = audit_model(loaded, contexts, torch.ones_like(contexts, dtype=torch.bool), ["resid_post.1"], torch.float32)
    assert report["status"] == "pass"


def test_block_scales_mean_what_the_library_takes_them_for(source, tmp_path, contexts):
    quantise(source, "block", FP8)
    loaded = prepare_and_load(source, tmp_path / "prepared", 4)
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in loaded.model.state_dict().items())


def test_scales_in_another_file_than_their_weight_are_found(source, tmp_path):
    meant = quantise(source, "block", FP8)
    stored = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    parts = {
        "model-00001-of-00002.safetensors": {k: v for k, v in stored.items() if not k.endswith("_scale_inv")},
        "model-00002-of-00002.safetensors": {k: v for k, v in stored.items() if k.endswith("_scale_inv")},
    }
    for name, part in parts.items():
        save_file(part, source / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    found = prepare_and_load(source, tmp_path / "prepared", 4).model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in meant.items())


def test_blocks_at_the_edge_may_be_cut():
    weight = torch.arange(1, 16.0).reshape(3, 5)
    scale = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    expected = weight * torch.tensor([[1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [10, 10, 20, 20, 30]])
    assert torch.equal(dequantised(weight.to(torch.float8_e4m3fn), scale, [2, 2]), expected)
    with pytest.raises(ValueError, match=r"\(3, 5\) with scales \(2, 2\) and weight_block_size \[2, 2\]"):
        dequantised(weight, torch.ones(2, 2), [2, 2])


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("tensor", {"quant_method": "mystery"}, "quant_method 'mystery'.*F8_E4M3"),
        ("tensor", {"quant_method": "gptq", "bits": 4}, "quant_method 'gptq'"),
        ("tensor", {"load_in_8bit": True}, "quant_method 'bitsandbytes'"),
        ("block", None, "no quantization_config, for example .*down_proj.weight as F8_E4M3"),
        ("int8", None, "no quantization_config, for example .*down_proj.weight as I8"),
        ("int8", MODELOPT, "quant_method 'modelopt', for example .*down_proj.weight as I8"),
    ],
)
def test_other_quantised_weights_are_refused_by_the_name_of_their_method(source, tmp_path, kind, config, message):
    quantise(source, kind, config)
    with pytest.raises(SourceError, match=rf"{source} holds quantised weights \({message}.*Give the unquantised model"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_a_method_that_is_stated_in_a_file_of_its_own_is_read(source, tmp_path):
    meant = quantise(source, "tensor", None)
    quantization = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}}
    (source / "hf_quant_config.json").write_text(json.dumps(quantization))
    found = prepare_and_load(source, tmp_path / "prepared", 4).model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in meant.items())


def test_a_weight_without_its_scale_is_refused(source, tmp_path):
    quantise(source, "block", FP8)
    stored = load_file(source / "model.safetensors")
    del stored["model.layers.1.mlp.up_proj.weight_scale_inv"]
    save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"layers\.1\.mlp\.up_proj\.weight is stored in float8 with the scales \[\]"):
        prepare_and_load(source, tmp_path / "prepared", 4)


@pytest.mark.parametrize("extra", ["model.layers.0.mlp.up_proj.lora_A.weight", "model.layers.4.mlp.up_proj.weight"])
def test_tensors_that_the_model_has_no_place_for_are_refused(source, tmp_path, extra):
    weights = load_file(source / "model.safetensors")
    save_file(weights | {extra: torch.ones(2, 2)}, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=rf"holds 1 tensors that a model .* does not use, .*{extra}"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_fixed_tables_and_heads_of_other_objectives_are_left_out(tmp_path):
    source = tiny_bert(tmp_path / "source", objective="masked_lm")
    weights = load_file(source / "model.safetensors")
    tables = {"bert.embeddings.position_ids": torch.arange(512)[None], "cls.seq_relationship.bias": torch.zeros(2)}
    save_file(weights | tables, source / "model.safetensors", metadata={"format": "pt"})
    prepare_and_load(source, tmp_path / "masked", 3, objective="masked_lm")
    prepare_and_load(source, tmp_path / "embedding", 3, objective="embedding")


def test_the_saved_model_is_compared_with_the_loaded_one(source, tmp_path, monkeypatch):
    """Weights that another hand changes after they were saved, and a setting that the saved config does not have."""
    original = prepare_module.load_model

    def altered(folder, device):
        loaded = original(folder, device)
        loaded.base.layers[1].mlp.up_proj.weight[0, 0] += 1
        return loaded

    monkeypatch.setattr(prepare_module, "load_model", altered)
    with pytest.raises(SourceError, match=r"1 weights changed .*'model\.layers\.1\.mlp\.up_proj\.weight'"):
        prepare_and_load(source, tmp_path / "prepared", 4)
    assert not (tmp_path / "prepared").exists()

    def turned(folder, device):
        loaded = original(folder, device)
        for layer in loaded.base.layers:
            layer.self_attn.scaling *= 3
        return loaded

    monkeypatch.setattr(prepare_module, "load_model", turned)
    with pytest.raises(SourceError, match="gives other outputs on a probe text"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_a_model_is_itself(llama):
    require_same("m", Outcome.of(llama, "a text"), Outcome.of(llama, "a text"))


@pytest.mark.parametrize("packed", [True, False])
def test_a_wrong_shape_is_found_before_a_weight_is_read(source, tmp_path, monkeypatch, packed):
    place = tiny_gguf(source, tmp_path / "gguf" / "model.gguf") if packed else source
    assert read_config("m", place).num_hidden_layers == 4

    def never(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(prepare_module, "_load_weights", never)
    monkeypatch.setattr(prepare_module, "plain_weights", never)
    with pytest.raises(SourceError, match=r"n_layers is 9, but the model's own config says 4"):
        prepare_and_load(place, tmp_path / "prepared", 9)


def test_a_folder_that_holds_a_gguf_file_names_it(source, tmp_path):
    path = tiny_gguf(source, tmp_path / "gguf" / "model.gguf")
    with pytest.raises(SourceError, match=rf"name the \.gguf file itself, {path}"):
        prepare_and_load(path.parent, tmp_path / "prepared", 4)
    part = path.rename(path.with_name("model-00001-of-00002.gguf"))
    with pytest.raises(SourceError, match="one part of a split model; merge the parts"):
        prepare_and_load(part, tmp_path / "prepared", 4)


def test_what_lies_beside_a_gguf_file_is_not_read(source, tmp_path, contexts):
    path = tiny_gguf(source, tmp_path / "gguf" / "model.gguf")
    tiny_tokenizer(frame=True).save_pretrained(path.parent)
    (path.parent / "chat_template.jinja").write_text("wrong")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (path.parent / name).write_text(json.dumps({"chat_template": "wrong", "hidden_act": "relu", "eos_token_id": 7}))
    loaded = prepare_and_load(path, tmp_path / "prepared", 4)
    torch.testing.assert_close(
        logits(loaded, final_hidden(loaded, contexts)), source_logits(source, contexts), atol=1e-4, rtol=1e-4
    )
    assert loaded.tokenizer.chat_template is None
    assert loaded.tokenizer("fox").input_ids == tiny_tokenizer()("fox").input_ids
    assert loaded.model.generation_config.eos_token_id != 7


def test_tensors_that_the_reader_of_gguf_leaves_out_are_refused(source, tmp_path):
    path = tiny_gguf(source, tmp_path / "gguf" / "model.gguf", {"rope_freqs.weight": torch.ones(4).numpy()})
    with pytest.raises(SourceError, match=r"1 tensors that the reader .* leaves out, .* \['rope_freqs\.weight'\]"):
        prepare_and_load(path, tmp_path / "prepared", 4)


def with_token(folder: Path, token: AddedToken) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([token], special_tokens=token.special)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_special_token_beyond_the_embedding_is_allowed(source, tmp_path):
    """Gemma 3's stand-in for images: the tokenizer of the language model has it, the embedding does not."""
    with_token(source, AddedToken("<image>", special=True))
    loaded = prepare_and_load(source, tmp_path / "prepared", 4)
    assert loaded.tokenizer.get_vocab()["<image>"] == VOCABULARY == loaded.identity["vocabulary_size"]


def test_a_token_of_text_beyond_the_embedding_is_refused(source, tmp_path):
    with_token(source, AddedToken("market", special=False))
    with pytest.raises(SourceError, match=r"token id 262, .* embeds only 262 tokens, and \['market'\] can occur"):
        prepare_and_load(source, tmp_path / "prepared", 4)


@pytest.mark.parametrize("padding", [1, 3])
def test_roberta_has_fewer_positions_than_it_says(tmp_path, padding):
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=20,
        pad_token_id=padding,
    )
    RobertaModel(config).save_pretrained(tmp_path / "source")
    tiny_tokenizer(frame=True).save_pretrained(tmp_path / "source")
    loaded = prepare_and_load(tmp_path / "source", tmp_path / "prepared", 2, objective="embedding")
    longest = loaded.identity["longest_context"]
    assert longest == 20 - padding - 1
    assert final_hidden(loaded, torch.full((1, longest), 9)).isfinite().all()
    with pytest.raises(AtlasError, match=rf"context of {longest + 1} tokens .* has positions for, {longest}"):
        final_hidden(loaded, torch.full((1, longest + 1), 9))
    with pytest.raises((IndexError, RuntimeError)):  # what the model itself says
        loaded.base(input_ids=torch.full((1, longest + 1), 9))


def test_a_source_is_not_changed(source, tmp_path):
    quantise(source, "block", FP8)
    shutil.copytree(source, tmp_path / "before")
    prepare_and_load(source, tmp_path / "prepared", 4)
    for path in source.iterdir():
        assert path.read_bytes() == (tmp_path / "before" / path.name).read_bytes()
