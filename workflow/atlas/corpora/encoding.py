"""Documents to token ids: special tokens come from the tokenizer and the template, never from the text itself."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.chat_template import CHAT_DATE, write_chat
from atlas.corpora.slices import encode_texts
from atlas.corpora.templates import Template
from atlas.errors import SourceError
from atlas.files import sha256_file
from atlas.prepared import IDENTITY_FILE, read_identity, verified_identity
from atlas.sources.tokenizer import load_saved_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "a"
# Stand-ins for special tokens that a message spells out: private-use characters, which no template writes or strips.
_PRIVATE = range(0x100000, 0x10FF00)


@dataclass(frozen=True)
class Encoder:
    """Encoder of the documents of one template to ids of one tokenizer.

    A context is `prefix`, then the body, then `suffix`: what the tokenizer puts around a text by itself. `separator`
    stands after each document. `specials` maps the tokenizer's special tokens to their ids; `not_counted` are the ids
    that mark structure, hence all of them but the one for unknown text. `embedded` is how many ids the model embeds;
    None where that is not known.
    """

    tokenizer: "PreTrainedTokenizerBase" = field(repr=False)
    template: Template
    chat_date: date
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    separator: int
    specials: dict[str, int]
    not_counted: frozenset[int]
    embedded: int | None = None

    def encode(self, texts: Sequence[str]) -> list[list[int] | None]:
        """Ids of each stored text, with what follows it; None where the chat template refuses the messages.

        Raises SourceError for an id that the model does not embed.
        """
        encoded: list[list[int] | None]
        if self.template == "chat_template":
            encoded = self._encode_chats(texts)
        else:
            encoded = [[*ids, self.separator] for ids in _encode_plain(self.tokenizer, list(texts))]
        for ids in encoded:
            self.require_embedded(ids or ())
        return encoded

    def require_embedded(self, ids: Sequence[int]) -> None:
        """Raise SourceError for an id that the model does not embed: a tokenizer can have more than its model."""
        if self.embedded is not None and max(ids, default=0) >= self.embedded:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise SourceError(
                f"token {token!r} has id {max(ids)}, but the model embeds {self.embedded} tokens: text with it cannot "
                "be read; use another template than 'chat_template', or a model with that token"
            )

    def _encode_chats(self, texts: Sequence[str]) -> list[list[int] | None]:
        return [self._encode_chat(json.loads(text)) for text in texts]

    def _encode_chat(self, messages: list[dict[str, str]]) -> list[int] | None:
        from jinja2.exceptions import TemplateError

        stand_ins = _stand_ins(messages, self.specials)
        try:
            written = write_chat(
                self.tokenizer,
                [message | {"content": _replace(message["content"], stand_ins)} for message in messages],
                self.chat_date,
            )
        except TemplateError:
            return None
        if stand_ins:
            ids = self._encode_pieces(written, {value: key for key, value in stand_ins.items()})
        else:
            ids = encode_texts(self.tokenizer, [written])[0]
        if self.prefix and tuple(ids[: len(self.prefix)]) == self.prefix:
            ids = ids[len(self.prefix) :]  # each context begins with it already
        closed = any(token in self.not_counted for token in ids[-2:])  # many templates end with a newline
        return ids if closed else [*ids, self.separator]

    def _encode_pieces(self, written: str, spelled: dict[str, str]) -> list[int]:
        """Encode between the template's own special tokens, so that those spelled in messages stay text."""
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(_longest_first(self.specials))})", written):
            if piece in self.specials:
                ids.append(self.specials[piece])
            elif piece:
                ids += _encode_plain(self.tokenizer, [_replace(piece, spelled)])[0]
        return ids


def make_encoder(model_folder: Path, template: Template, chat_date: date = CHAT_DATE) -> Encoder:
    """The encoder of a prepared model; raises SourceError when its tokenizer cannot serve the template.

    `chat_date` is the day that a chat template takes for today.
    """
    if (Path(model_folder) / IDENTITY_FILE).is_file():
        verified_identity(model_folder)
    try:
        tokenizer = load_saved_tokenizer(model_folder)
    except (OSError, ValueError) as error:
        raise SourceError(f"{model_folder}: no tokenizer can be loaded ({error}); prepare the model again") from error
    if template == "chat_template" and not tokenizer.chat_template:
        raise SourceError(
            f"{model_folder}: the tokenizer has no chat template; use a chat model, or template 'conversation'"
        )
    separator = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if separator is None:
        raise SourceError(
            f"{model_folder}: the tokenizer has neither an eos nor a sep token to stand between documents"
        )
    specials = _special_tokens(tokenizer)
    prefix, suffix = _frame(tokenizer, model_folder)
    structural = {*specials.values(), *prefix, *suffix, separator}
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id not in (separator, *prefix, *suffix):
        structural -= {tokenizer.unk_token_id}  # it stands for a word of the text
    embedded = _embedded(model_folder)
    encoder = Encoder(
        tokenizer, template, chat_date, prefix, suffix, separator, specials, frozenset(structural), embedded
    )
    encoder.require_embedded([*prefix, *suffix, separator])
    return encoder


def tokenizer_sha256(model_folder: Path) -> str:
    """Hash that names the tokenizer: from the model's identity, else of tokenizer.json itself."""
    identity, tokenizer = Path(model_folder) / IDENTITY_FILE, Path(model_folder) / "tokenizer.json"
    if identity.is_file():
        return read_identity(model_folder)["tokenizer_sha256"]
    if tokenizer.is_file():
        return sha256_file(tokenizer)
    raise SourceError(f"{model_folder} has neither identity.json nor tokenizer.json; prepare the model again")


def _embedded(model_folder: Path) -> int | None:
    identity = Path(model_folder) / IDENTITY_FILE
    return read_identity(model_folder).get("vocabulary_size") if identity.is_file() else None


def _encode_plain(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return encode_texts(tokenizer, texts, split_special_tokens=True)


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """All special tokens; `all_special_tokens` lacks those that only the vocabulary marks, as Llama 3's headers."""
    marked = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


def _frame(tokenizer: Any, model_folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what the tokenizer puts before and after a text."""
    bare = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    framed = tokenizer(_PROBE, add_special_tokens=True)["input_ids"]
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return tuple(framed[:start]), tuple(framed[start + len(bare) :])
    raise SourceError(f"{model_folder}: the tokenizer encodes {_PROBE!r} as {framed}, without its own ids {bare}")


def _stand_ins(messages: list[dict[str, str]], specials: dict[str, int]) -> dict[str, str]:
    """Private characters for the special tokens that messages spell out, none of which occurs in the messages."""
    contents = [message["content"] for message in messages]
    spelled = [token for token in _longest_first(specials, escape=False) if any(token in text for text in contents)]
    free = (chr(code) for code in _PRIVATE if not any(chr(code) in text for text in contents))
    return dict(zip(spelled, free, strict=False))


def _longest_first(specials: dict[str, int], escape: bool = True) -> list[str]:
    """One token can begin with another; the longer one is meant."""
    tokens = sorted(specials, key=len, reverse=True)
    return [re.escape(token) for token in tokens] if escape else tokens


def _replace(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text
