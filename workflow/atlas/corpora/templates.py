"""From a record's field to the text of a document: plain text, a written-out conversation, or kept messages."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from atlas.errors import SourceError
from atlas.files import sha256_strings

Template = Literal["plain", "conversation", "chat_template"]

# Names under which the usual chat collections keep the three roles; any other role keeps its name.
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    "system": "system",
}
_NEWLINES = re.compile(r"\r\n?")
# C0 and C1 controls but newline and tab; half surrogates have no UTF-8 form.
_CONTROLS, _HALVES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"), re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """`document_id` names the content, whatever the template writes around it; `text` is what is stored.

    `group` names what the document is part of, and is empty where it is part of nothing.
    """

    document_id: str
    text: str
    n_characters: int
    group: str = ""


def make_document(value: Any, template: Template, where: str) -> Document | None:
    """The document of a record's text field; None when there is no text in it.

    Raises SourceError, naming `where`, when the field does not have the form that the template needs.
    """
    if value is None:
        return None
    if template == "plain":
        if not isinstance(value, str):
            raise SourceError(
                f"{where}: expected text, found {type(value).__name__}; "
                "lists of messages need template 'conversation' or 'chat_template'"
            )
        text = clean_text(value).strip()
        return Document(sha256_strings([text]), text, len(text)) if text else None
    messages = read_messages(value, where)
    if not messages:
        return None
    # Hashed before the template, so that a conversation is the same document under either of them.
    document_id = sha256_strings(part for message in messages for part in (message["role"], message["content"]))
    n_characters = sum(len(message["content"]) for message in messages)
    if template == "conversation":
        return Document(document_id, conversation_text(messages), n_characters)
    return Document(document_id, json.dumps(messages, ensure_ascii=False), n_characters)


def clean_text(text: str) -> str:
    """Text as the source has it, but with Unix newlines, no control characters, and U+FFFD for half surrogates."""
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", _NEWLINES.sub("\n", text)))


def read_messages(value: Any, where: str) -> list[dict[str, str]]:
    """Messages as ``{role, content}``, from ``{from, value}`` or ``{role, content}`` lists; empty ones are dropped."""
    if not isinstance(value, list):
        raise SourceError(f"{where}: expected a list of messages, found {type(value).__name__}")
    messages = []
    for number, message in enumerate(value):
        keys = ("from", "value") if isinstance(message, dict) and "from" in message else ("role", "content")
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str | None) for key in keys):
            raise SourceError(
                f"{where}: message {number} must have text in 'role' and 'content', or 'from' and 'value'"
            )
        if keys[0] not in message or keys[1] not in message:
            raise SourceError(f"{where}: message {number} has the fields {sorted(message)}, lacks one of {list(keys)}")
        role, content = str(message[keys[0]] or "user").strip(), clean_text(message[keys[1]] or "").strip()
        if content:
            messages.append({"role": _ROLES.get(role.lower(), role), "content": content})
    return messages


def count_messages(value: Any) -> dict[str, int]:
    """Of a list that `read_messages` takes, the messages without text, and those whose calls of tools are no text."""
    if not isinstance(value, list):
        return {}
    empty = sum(not str(message.get("value" if "from" in message else "content") or "").strip() for message in value)
    calls = sum(any(message.get(key) for key in ("tool_calls", "function_call")) for message in value)
    return {"empty": empty, "tool_calls": calls}


def conversation_text(messages: list[dict[str, str]]) -> str:
    """``User: …`` and ``Assistant: …`` paragraphs."""
    return "\n\n".join(f"{m['role'][:1].upper()}{m['role'][1:]}: {m['content']}" for m in messages)
