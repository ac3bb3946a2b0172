#!/usr/bin/env bash
# transformers 5.23.0 (tokenizers 0.23.3): the class of a tokenizer overrides the splitting rule of tokenizer.json.
#
# Guess: AutoTokenizer reads tokenizer.json, which holds the whole tokenizer, and the class adds methods alone. A folder
# whose tokenizer_config.json says TokenizersBackend, the class without a rule of its own, is certainly read as it is.
# Behaviour: classes such as GPT2Tokenizer and Qwen2Tokenizer take vocabulary and merges from the file and set their own
# pre-tokenizer. No warning is given. For model_type qwen2 even TokenizersBackend becomes Qwen2Tokenizer.
# Output seen:
#   file:                      ['year', 'Ġ', '202', '3', 'ĊĊĊ', 'b']
#   llama, TokenizersBackend:  ['year', 'Ġ', '202', '3', 'ĊĊĊ', 'b']
#   llama, GPT2Tokenizer:      ['year', 'Ġ', '202', '3', 'ĊĊ', 'Ċ', 'b']
#   qwen2, TokenizersBackend:  ['year', 'Ġ', '2', '0', '2', '3', 'ĊĊĊ', 'b'], of class Qwen2Tokenizer
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

TEXT = "year 2023\n\n\nb"
own = Tokenizer(models.BPE())
rule = pre_tokenizers.Split(Regex(r"\n+|\p{L}+|\p{N}{1,3}| "), behavior="isolated")
own.pre_tokenizer = pre_tokenizers.Sequence([rule, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
own.decoder = decoders.ByteLevel()
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False)
own.train_from_iterator([TEXT] * 9, trainer)
expected = own.encode(TEXT).tokens
print("file:", expected)


def read(model_type, tokenizer_class):
    folder = Path(f"{model_type}-{tokenizer_class}")
    folder.mkdir()
    own.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    said = {"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    found = AutoTokenizer.from_pretrained(folder)
    tokens = found.tokenize(TEXT)
    print(f"{model_type}, {tokenizer_class}:", type(found).__name__, tokens)
    return type(found).__name__, tokens


assert read("llama", "TokenizersBackend") == ("TokenizersBackend", expected)
assert read("llama", "GPT2Tokenizer")[1] != expected
name, tokens = read("qwen2", "TokenizersBackend")
assert name == "Qwen2Tokenizer" and tokens != expected
PYTHON
