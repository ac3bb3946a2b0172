"""Hide secrets in what a job writes: values of environment variables whose names say that they are one."""

import logging
import os
import re

_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
# Shorter ones are words and numbers that texts have anyway.
_LEAST_CHARACTERS = 8


def redacted(text: str) -> str:
    """The text with the variable's name in place of each value: a foreign error may quote what it was given."""
    for name, value in os.environ.items():
        if len(value) >= _LEAST_CHARACTERS and _SECRET_NAME.search(name) and value in text:
            text = text.replace(value, f"<{name}>")
    return text


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, and redacts it."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        return redacted(super().format(record))
