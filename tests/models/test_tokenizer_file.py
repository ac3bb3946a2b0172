"""Text is cut as tokenizer.json says, whatever the class is that a model names."""

import json
import logging
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM

from atlas.corpora.encoding import make_encoder
from atlas.errors import SourceError
from atlas.models.tokenizer_file import PROBES
from tiny import CHAT_TEMPLATE, SPECIALS, prepare_and_load, tiny_llama

SIZE = 420
THREE_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_file(folder: Path, class_name: str | None) -> Tokenizer:
    """A byte-level tokenizer with a rule of its own, beside what names its class; returns what the file says."""
    own = Tokenizer(models.BPE())
    rule = pre_tokenizers.Split(Regex(THREE_DIGITS), behavior="isolated")
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [rule, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    own.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=alphabet, special_tokens=SPECIALS, show_progress=False, min_frequency=1
    )
    own.train_from_iterator([*PROBES, "year 2023 202 123 456"] * 3, trainer)
    own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    for old in ("tokenizer.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / old).unlink(missing_ok=True)
    own.save(str(folder / "tokenizer.json"))
    said = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": CHAT_TEMPLATE}
    said |= {} if class_name is None else {"tokenizer_class": class_name}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return own


def tiny_model(folder: Path, model_type: str) -> Path:
    source = tiny_llama(folder, vocab_size=SIZE)
    if model_type == "qwen2":
        config = json.loads((folder / "config.json").read_text())
        kept = {key: config[key] for key in Qwen2Config().to_dict() if key in config and key != "model_type"}
        Qwen2ForCausalLM(Qwen2Config(**kept)).save_pretrained(folder)
    return source


@pytest.mark.parametrize(
    ("class_name", "model_type"),
    [("GPT2Tokenizer", "llama"), ("Qwen2Tokenizer", "qwen2"), (None, "qwen2"), ("TokenizersBackend", "llama")],
)
def test_the_file_is_used_where_the_class_has_another_rule(tmp_path, caplog, class_name, model_type):
    source = tiny_model(tmp_path / "source", model_type)
    own = tokenizer_file(source, class_name)
    with caplog.at_level(logging.WARNING):
        loaded = prepare_and_load(source, tmp_path / "prepared", 4)
    assert loaded.tokenizer.tokenize("year 2023") == own.encode("year 2023", add_special_tokens=False).tokens
    assert any("the file is used" in line for line in caplog.messages) == (class_name != "TokenizersBackend")
    encoder = make_encoder(tmp_path / "prepared", "plain")
    assert encoder.prefix == (1,)  # as the file frames a text
    for text in PROBES:
        assert loaded.tokenizer(text).input_ids == own.encode(text).ids
        assert encoder.encode([text])[0][:-1] == own.encode(text, add_special_tokens=False).ids
        assert loaded.tokenizer.decode(own.encode(text).ids[1:]) == text
    assert (loaded.tokenizer.bos_token_id, loaded.tokenizer.eos_token_id, loaded.tokenizer.pad_token_id) == (1, 2, 0)
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATE


def test_an_unreadable_file_is_named(tmp_path):
    source = tiny_llama(tmp_path / "source")
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"models\.source: .*tokenizer"):
        prepare_and_load(source, tmp_path / "prepared", 4)
