"""Cut text as a model's tokenizer.json says.

transformers builds the tokenizer of some classes from the vocabulary alone, with the class' own rule of splitting: the
rule of the file is lost, and nothing is said. Digits, newlines and spaces then become other tokens than in training.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from atlas.errors import SourceError

log = logging.getLogger(__name__)

# Digits, newlines, runs of spaces, code, contractions, letters with marks, scripts, symbols: where such rules differ.
PROBES = (
    "year 2023 was 12345678, 3.14 and 1st of 99%",
    "wings.\n\n2013 was\n\n\n7\r\n\tnew  two   three \n \n x \n\n",
    "def f(x_1, y):\n    return x_1+y  # it's we'LL I'M\n\tfor (int i=0;i<10;i++) {a||b;}",
    "  starts with spaces and ends with them   ",
    "naïve café straße ÉCOLE Привет 你好世界 한국어 カタカナ ٣٤٥ ½² e\u0301 \u00a0nbsp 🦊🦊 “q” — …",
    "camelCase HTTPServer a1b22c333 e-mail don't CAN'T",
)
_FILE = "tokenizer.json"


def as_in_file(name: str, folder: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """`tokenizer`, or what the folder's tokenizer.json makes where `tokenizer` gives other ids on the probe texts.

    Folders without tokenizer.json have nothing to compare with. Raises SourceError when the file cannot be read, or its
    own tokenizer changes when the library loads it.
    """
    path = folder / _FILE
    if not path.is_file():
        return tokenizer
    try:
        own = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower one
        raise SourceError(f"models.{name}: cannot read {path}: {error}") from error
    own.no_truncation()
    own.no_padding()
    if (text := _first_difference(tokenizer, own)) is None:
        return tokenizer
    plain = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if _first_difference(plain, own) is not None or plain.chat_template != tokenizer.chat_template:
        raise SourceError(
            f"models.{name}: class {type(tokenizer).__name__} cuts {text!r} into other tokens than {path}, and the "
            "file's own tokenizer changes when it is loaded: its kind is not supported by this version of transformers"
        )
    log.warning(
        "model %s: class %s cuts %r into %s, tokenizer.json into %s: the file is used",
        name,
        type(tokenizer).__name__,
        text,
        _tokens(tokenizer, text),
        own.encode(text, add_special_tokens=False).tokens,
    )
    return plain


def same_ids(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, texts: Sequence[str]) -> bool:
    """Return whether both make the same ids of every text, with what they put around it."""
    return all(one(text)["input_ids"] == other(text)["input_ids"] for text in texts)


def _first_difference(tokenizer: PreTrainedTokenizerBase, own: Tokenizer) -> str | None:
    for text in PROBES:
        if tokenizer(text, add_special_tokens=False)["input_ids"] != own.encode(text, add_special_tokens=False).ids:
            return text
    return None


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
