"""Text of a GGUF model is cut as the file says, and as llama.cpp cuts it."""

import json
import subprocess
from pathlib import Path

import pytest
from gguf_files import write_gguf
from peer_environments import peer_python
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from atlas.errors import SourceError
from atlas.models.gguf_tokenizer import RULE_OF
from atlas.models.prepare import _load_tokenizer
from tiny import SPECIALS, tiny_llama

# Digits, newlines, runs of spaces, code, contractions, punctuation, scripts: where the rules differ.
TEXTS = [
    "wings.\n\n2013 was the 1st year; 12345678 of 99%\n\n\n7",
    "def f(x_1, y):\n    return x_1+y  # it's we'LL I'M\r\n\tdone",
    "  two  spaces   three\n \n  x \n\n y ",
    "C++ <b>end</b> a||b ^~ $5.00 #$%!? (and) 'quoted' \"text\" it'S",
    "naïve café über straße ÉCOLE Привет мир 你好世界 한국어 カタカナ ひらがな עברית ٣٤٥ ½²",
    "camelCaseWords HTTPServer iPhone3GS v2.0.1 a1b22c333d4444 e-mail x86_64/amd64//",
    "snow—dash… «q» “curly” 、。！ 🦊🦊 é \u00a0nbsp",
    "ends with spaces   ",
    "\n\n\nstarts with newlines",
]


def test_the_embedded_model_s_rule_keeps_newlines_before_a_digit_together(files):
    tokenizer = _load_tokenizer("m", files("smollm"))
    ids = tokenizer("wings.\n\n2013 was").input_ids
    assert [tokenizer.decode([one]) for one in ids if "\n" in tokenizer.decode([one])] == ["\n\n"]
    ids = _load_tokenizer("m", files("gpt-2"))("wings.\n\n2013 was").input_ids
    texts = [_load_tokenizer("m", files("gpt-2")).decode([one]) for one in ids]
    assert "\n\n" not in texts


@pytest.mark.parametrize("name", sorted(RULE_OF))
def test_every_known_rule_loses_no_text(files, name):
    tokenizer = _load_tokenizer("m", files(name))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize("pre", [None, "default", "of-tomorrow"])
def test_an_unknown_rule_is_refused_by_its_name(files, pre):
    with pytest.raises(SourceError, match=rf"tokenizer\.ggml\.pre = {pre!r}; known are .*smollm.*safetensors"):
        _load_tokenizer("m", files(pre))


@pytest.mark.slow
def test_every_known_rule_gives_the_ids_of_llama_cpp(files, tmp_path, tmp_path_factory):
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    paths = {name: files(name) for name in RULE_OF}
    script = Path(__file__).with_name("llama_tokenise.py")
    command = [peer_python("llama_cpp", tmp_path_factory), "-I", script, tmp_path / "texts.json", *paths.values()]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    theirs = json.loads(answer.stdout.splitlines()[-1])
    assert set(theirs) == set(RULE_OF)
    for name, path in paths.items():
        tokenizer = _load_tokenizer("m", path)
        ours = [tokenizer(text).input_ids for text in TEXTS]
        assert ours == theirs[name], name
    assert len({json.dumps(theirs[rule]) for rule in set(RULE_OF.values())}) == 12  # the texts tell the rules apart


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes a model whose merges cross every border that a rule may draw, with the name of a rule."""
    folder = tmp_path_factory.mktemp("gguf")
    vocabulary, merges = _merges_over_borders()
    tokens = [*SPECIALS[:3], "<|endoftext|>", *SPECIALS[4:], *vocabulary]
    source = tiny_llama(folder / "source", vocab_size=len(tokens))

    def write(pre):
        path = folder / "files" / f"{pre}.gguf"
        if path.exists():
            return path
        types = [3] * len(SPECIALS) + [1] * len(vocabulary)
        return write_gguf(source, path, tokens, types, pre, merges=merges)

    return write


def _merges_over_borders() -> tuple[list[str], list[str]]:
    """A byte-level vocabulary learnt from whole texts, and a token that no merge makes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator([text for text in TEXTS for _ in range(2)], trainer)
    state = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(state["vocab"], key=state["vocab"].get)
    return [*vocabulary, "ĠHTTPServer"], [" ".join(pair) for pair in state["merges"]]
