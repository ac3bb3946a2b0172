"""Split text as the `tokenizer.ggml.pre` of a GGUF file says.

A GGUF file holds a byte-level vocabulary and its merges, and names the rule that cuts text into pieces before merging.
transformers 5.23 knows some of these names and silently applies GPT-2's rule to every other one.
The rules here come from the models' own tokenizer.json. A test compares each name with llama.cpp's tokenizer, which
differs from tokenizer.json only at combining marks (gpt-4o, tekken) and at the ideographic space (deepseek).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from atlas.errors import SourceError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _TIKTOKEN.format(digits="{1,3}")
_QWEN2 = _TIKTOKEN.format(digits="")
_CASED = (
    r"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{suffix}"
    r"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{suffix}"
    r"|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = _CASED.format(suffix="(?i:'s|'t|'re|'ve|'m|'ll|'d)?", digits="{1,3}")
_TEKKEN = _CASED.format(suffix="", digits="")
_SENTENCE_WORDS = r" ?[^(\s|.,!?…。，、।۔،)]+"
_IDEOGRAPHS = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# Cased letters by code point: ranges that are typed as characters change when an editor normalises them.
_CASED_LETTERS = """
    41-5a 61-7a b5 c0-d6 d8-f6 f8-1ba 1bc-1bf 1c4-293 295-2af 370-373 376 377 37b-37d 37f 386 388-38a 38c
    38e-3a1 3a3-3f5 3f7-481 48a-52f 531-556 10a0-10c5 13a0-13f5 13f8-13fd 1c90-1cba 1cbd-1cbf 1d00-1d2b
    1d6b-1d77 1d79-1d9a 1e00-1f15 1f18-1f1d 1f20-1f45 1f48-1f4d 1f50-1f57 1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4
    1fb6-1fbc 1fbe 1fc2-1fc4 1fc6-1fcc 1fd0-1fd3 1fd6-1fdb 1fe0-1fec 1ff2-1ff4 1ff6-1ffc 2102 2107 210a-2113
    2115 2119-211d 2124 2126 2128 212a-212d 212f-2134 2139 213c-213f 2145-2149 214e 2183 2184 2c00-2c7b
    2c7e-2ce4 2ceb-2cee 2cf2 2cf3 a640-a66d a680-a69b a722-a76f a771-a787 a78b-a78e ab70-abbf fb00-fb06
    fb13-fb17 ff21-ff3a ff41-ff5a 10400-1044f 104b0-104d3 104d8-104fb 10c80-10cb2 10cc0-10cf2 118a0-118df
    1e900-1e943
"""
_DEEPSEEK_LETTERS = (
    r"\s?[" + "".join("-".join(chr(int(end, 16)) for end in each.split("-")) for each in _CASED_LETTERS.split()) + "]+"
)
_DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Splits of each rule, applied one after the other to the pieces of the one before. What no match covers is a piece too.
_RULES: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "gpt-4o": (_GPT4O,),
    "tekken": (_TEKKEN,),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"),
    "bloom": (_SENTENCE_WORDS,),
    "viking": (_SENTENCE_WORDS, r"\p{N}"),
    "deepseek-llm": (
        r"[\r\n]",
        _DEEPSEEK_LETTERS,
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"\s+$",
        _IDEOGRAPHS,
        r"\p{N}+",
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _IDEOGRAPHS, r"\p{N}"),
    "deepseek-v3": (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK_V3),
}
_ALIASES: dict[str, tuple[str, ...]] = {
    "gpt-2": ("phi-2", "mpt", "olmo", "jais", "jina-es", "jina-de", "exaone4"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "dbrx", "smaug-bpe", "chatglm-bpe", "glm4"),
    "qwen2": ("stablelm2", "deepseek-r1-qwen", "megrez"),
    "gpt-4o": ("llama4",),
    "bloom": ("poro-chat", "gpt3-finnish"),
}
# Files of these models need not say that a text starts with BOS.
_STARTS_WITH_BOS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "tekken")
# A piece that is a token stays whole, also if the merges would cut it.
_WHOLE_PIECES = (*_STARTS_WITH_BOS, "glm4")

RULE_OF = {name: rule for rule in _RULES for name in (rule, *_ALIASES.get(rule, ()))}


def split_as_stated(name: str, path: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give `tokenizer`, read from the GGUF file `path` of model `name`, the rule of the file's `tokenizer.ggml.pre`.

    Leave tokenizers other than byte-level BPE as they are. Raise SourceError when the file names no rule or one that
    is not known.
    """
    stated = _read_strings(path, ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token"))
    if stated.get("tokenizer.ggml.model") != "gpt2":
        return tokenizer
    pre = stated.get("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in RULE_OF:
        raise SourceError(
            f"models.{name}.source: {path.name} says tokenizer.ggml.pre = {pre!r}; known are "
            f"{', '.join(sorted(RULE_OF))}. Without the rule its text would be cut into other tokens than in training. "
            "Use the model's safetensors with its tokenizer.json, or a GGUF file that names a known rule"
        )
    splits = _RULES[RULE_OF[pre]]
    tokenizer._tokenizer = _with_splits(tokenizer.backend_tokenizer, splits, whole=pre in _WHOLE_PIECES)
    if pre in _STARTS_WITH_BOS and stated.get("tokenizer.ggml.add_bos_token") is None:
        tokenizer.add_bos_token = True
        tokenizer.update_post_processor()
    return tokenizer


def _with_splits(backend: Tokenizer, splits: Sequence[str], whole: bool) -> Tokenizer:
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(split), behavior="isolated") for split in splits),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if not whole:
        return backend
    state = json.loads(backend.to_str())
    state["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(state))


def _read_strings(path: Path, keys: Sequence[str]) -> dict[str, object]:
    """Values of the keys that the file has."""
    import gguf  # imports for .3 s, and only files of this format need it

    fields = gguf.GGUFReader(path).fields
    return {key: fields[key].contents() for key in keys if key in fields}
