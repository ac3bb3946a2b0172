"""Text of a corpus where it could do harm: in tables, and inside the prompts of a language model."""

import re
import unicodedata

# Marks of our own prompts, and of chat templates: a text that spells them must not be read as one.
_MARKS = re.compile(r"<\||\|>|<<|>>|\[/?INST\]|</?s>|<(start|end)_of_turn>", re.IGNORECASE)
_KEPT = "\n\t"


def printable(text: str) -> str:
    """One line that shows everything: control, format, private and unassigned characters and line breaks escaped."""
    return "".join(_escaped(character) for character in text)


def prompt_text(text: str) -> str:
    """Text for the inside of a prompt: `without_controls`, with marks broken."""
    return break_marks(without_controls(text))


def without_controls(text: str) -> str:
    """Without control, format, private and unassigned characters; line breaks and tabs stay."""
    return "".join(c for c in text if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs", "Cn"))


def break_marks(text: str) -> str:
    """A space inside everything that could pass for a mark: ``<|im_start|>`` becomes ``< |im_start| >``.

    No tokenizer reads a special token in it, and highlights (``<<…>>``) are ours alone.
    """
    while broken := _MARKS.search(text):
        place = broken.start() + 1
        text = f"{text[:place]} {text[place:]}"
    return text


def _escaped(character: str) -> str:
    if unicodedata.category(character)[0] != "C" and character not in "\u2028\u2029":
        return character
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return short.get(character, f"\\u{ord(character):04x}")
