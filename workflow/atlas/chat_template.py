"""A model's own chat template, written as if on one fixed day: templates may put the date into the text."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

# The day that the templates of Llama 3 write where they know none.
CHAT_DATE = date(2024, 7, 26)


def uses_date(tokenizer: Any) -> bool:
    """Return whether the chat template can write the date."""
    return "strftime_now" in tokenizer.get_chat_template()


def write_chat(tokenizer: Any, messages: Sequence[Mapping[str, str]], day: date = CHAT_DATE, **options: Any) -> str:
    """The messages in the tokenizer's chat template; what the template asks of the clock is answered with `day`.

    `options` are those of `apply_chat_template`. Raises TemplateError where the template refuses the messages.
    """
    from transformers.utils import chat_template_utils

    template = tokenizer.get_chat_template()
    moment = datetime.combine(day, time())
    # Not as an argument of the template: the library replaces functions by their names there.
    chat_template_utils._compile_jinja_template(template).globals["strftime_now"] = moment.strftime
    return tokenizer.apply_chat_template(list(messages), chat_template=template, tokenize=False, **options)
