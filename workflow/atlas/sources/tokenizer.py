"""Load the tokenizer of a prepared model, as it was saved."""

from pathlib import Path
from typing import TYPE_CHECKING

from atlas.files import read_plain_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a tokenizer without a class of its own is saved as; all of it is in tokenizer.json.
_OF_THE_FILE = ("TokenizersBackend", "PreTrainedTokenizerFast")


def load_saved_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in `folder`, offline and without remote code.

    For some architectures (qwen2) the library's own choice of class ignores the class that was saved, and with it the
    rule of tokenizer.json. Raises OSError or ValueError when there is none.
    """
    import transformers

    path = Path(folder) / "tokenizer_config.json"
    stated = read_plain_json(path).get("tokenizer_class") if path.is_file() else None
    if stated in _OF_THE_FILE:
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
