"""The answer in what a reasoning model says: its thought is no label, no list of answers, no choice.

Servers with a parser for the model put the thought into a field of its own (`reasoning_content`, `reasoning`), which
nobody reads here. Without one it stands in the reply, between tags that differ from family to family. A template may
have opened the thought already, so that a reply begins inside it; a reply that ends at its limit of tokens may be
nothing but thought.
"""

import re

from atlas.autointerp.protocol import Reply

_NAMES = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|scratchpad)"
# DeepSeek, Qwen, SmolLM, Nemotron and Seed; Magistral; Kimi; OpenThinker and Sky-T1; Command A.
_OPENING = rf"(?:<{_NAMES}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>)"
_CLOSING = rf"(?:</{_NAMES}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>)"
# A thought begins a line; a tag inside a line is what a label is about.
_OPEN = re.compile(rf"^\s*{_OPENING}", re.IGNORECASE | re.MULTILINE)
_CLOSE = re.compile(_CLOSING, re.IGNORECASE)
# What some of them put around the answer itself.
_AROUND = re.compile(r"</?answer>|<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>", re.IGNORECASE)
# gpt-oss: channels, of which `final` is the answer.
_CHANNEL, _FINAL = "<|channel|>", "<|channel|>final<|message|>"
_END_OF_MESSAGE = re.compile(r"<\|(?:end|return|call|start)\|>")


def without_thought(text: str) -> str:
    """Return what follows the last thought; the text itself without one.

    Nothing where a thought does not end, and where one line has the end of a thought alone: it may be a label that
    names the tag.
    """
    if _CHANNEL in text:
        return _END_OF_MESSAGE.split(text.rpartition(_FINAL)[2])[0].strip() if _FINAL in text else ""
    ends = list(_CLOSE.finditer(text))
    if ends and not _OPEN.search(text) and "\n" not in text.strip() and text[: ends[0].start()].strip():
        return ""
    answer = text[ends[-1].end() :] if ends else text
    if _OPEN.search(answer):
        return ""
    return _AROUND.sub("", answer).strip() if ends else answer


def has_thought(text: str) -> bool:
    """Return whether the text has the tags of a thought, whole or not."""
    return without_thought(text) != text


def end_of_open_thought(prompt: str) -> str | None:
    """The tag that ends the thought which a template has opened at the end of a prompt; None: it has opened none."""
    opened = re.search(rf"({_OPENING})\s*\Z", prompt, re.IGNORECASE)
    if opened is None:
        return None
    tag = opened[1]
    for name, end in (("begin_of", "end_of"), ("START_", "END_"), ("◁", "◁/"), ("[", "[/"), ("<", "</")):
        if name in tag:
            return tag.replace(name, end, 1)
    raise AssertionError(tag)


def sentence_of(reply: Reply | None) -> str | None:
    """Return what a reply says in words; None when there is no reply, or it ends at its limit, in a sentence or a
    thought.
    """
    return None if reply is None or reply.cut else without_thought(reply.text)


def list_of(reply: Reply | None) -> str:
    """The text of a reply that gives a list or a number in brackets.

    A reply that ends at its limit must begin with the bracket: before it could stand a thought without a tag.
    """
    text = "" if reply is None else without_thought(reply.text).strip()
    return "" if reply is not None and reply.cut and not text.startswith("[") else text
