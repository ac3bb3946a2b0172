"""The files of each format, and the peer that reads them; free of heavy imports, because rules are made from it."""

# Format -> its files; {hooks} stands for the hook of an SAE, or both of a transcoder's as in the path of its folder.
FILES: dict[str, tuple[str, ...]] = {
    "saelens": ("sae_weights.safetensors", "cfg.json"),
    "dictionary_learning": ("ae.pt", "config.json"),
    "sparsify": ("sae.safetensors", "cfg.json"),
    "huggingface": ("README.md", "run_card.yaml", "{hooks}/sae_weights.safetensors", "{hooks}/cfg.json"),
}
# Format -> the peer whose loader must read it, in the environment of that name.
READERS = {
    "saelens": "saelens",
    "dictionary_learning": "dictionary_learning",
    "sparsify": "sparsify",
    "huggingface": "saelens",
}
IDENTITY_FILE, CHECK_FILE = "export.json", "check.json"


OTHER_FORM = (
    "this format has no place for what this published SAE has besides: b_dec that is not subtracted, rows that are "
    "normalised each by itself, or W_skip"
)


def files_of(format_name: str, hooks: str) -> tuple[str, ...]:
    """Files of an export, relative to its folder, without export.json."""
    return tuple(file.format(hooks=hooks) for file in FILES[format_name])
