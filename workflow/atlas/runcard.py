"""The run card: everything that a reader needs to judge an SAE, and to train it again.

A card is a mapping of sections to fields. Each SAE has one; a missing field is an error, so that a card is complete
or absent. A public card withholds the recipe and keeps what the SAE is, how it was evaluated and what came out.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from atlas.errors import DamagedFileError, TrainingError
from atlas.files import AGAIN, write_sealed_text
from atlas.redaction import redacted
from atlas.sealed import KEY, UNSEALED, verify_content
from atlas.yaml_files import read_yaml

# Fields that must be present; those of NULLABLE may be null, where a setting does not apply. An empty tuple: any form.
REQUIRED: dict[str, tuple[str, ...]] = {
    "names": ("model", "mix", "recipe"),
    "model": ("name", "source", "revision", "architecture", "d_model", "dtype", "licence", "weights_sha256"),
    "hook": (),
    "target_hook": (),
    "sae": (
        "architecture",
        "d_model",
        "d_target",
        "n_latents",
        "k",
        "l1_coefficient",
        "threshold",
        "threshold_beta",
        "threshold_start_step",
        "normalisation",
    ),
    "optimisation": (
        "optimizer",
        "lr",
        "warmup_steps",
        "decay_start",
        "steps",
        "batch_size",
        "micro_batch",
        "gradient_clip",
        "aux_coefficient",
        "dead_feature_tokens",
    ),
    "store": ("rows", "context_length", "llm_batch_contexts", "storage_dtype"),
    "corpora": (),
    "token_fingerprints": (),
    "mix": ("phases",),
    "drawn_shares": (),
    "epochs": (),
    "mixing": ("effective_documents", "uniform_documents"),
    "evaluation_roles": (),
    "monitored": (),
    "tokens": ("rows_trainable", "rows_drawn"),
    "exclude_massive": (),
    "numerics": ("products", "master_weights", "saved"),
    "seed": (),
    "versions": ("python", "torch", "transformers", "numpy", "atlas"),
    "hardware": ("device", "name", "threads"),
    "cost": ("wall_seconds", "peak_memory_mb", "rows_per_second", "stall_share"),
    "outcomes": (),
    "warnings": (),
}
# Of an SAE that was trained elsewhere; sections that only its trainer knows say so in words.
REQUIRED_OF_PUBLISHED: dict[str, tuple[str, ...]] = {
    "names": REQUIRED["names"],
    "model": REQUIRED["model"],
    "hook": (),
    "target_hook": (),
    "sae": ("architecture", "d_model", "d_target", "n_latents", "k", "threshold"),
    "published": ("format", "source", "revision", "licence", "files_sha256", "assumed"),
    "reading_audit": (),
    "stated_corpora": (),
    "evaluation_roles": (),
    "roles_are": (),
    "store": ("rows",),
    "versions": REQUIRED["versions"],
    "hardware": REQUIRED["hardware"],
    "cost": ("wall_seconds", "peak_memory_mb"),
    "warnings": (),
}
NOT_STATED_SECTIONS = tuple(section for section in REQUIRED if section not in REQUIRED_OF_PUBLISHED)
# Of every corpus that is trained on.
REQUIRED_OF_CORPUS = ("source", "licence", "template", "fingerprint")
NULLABLE_SECTIONS = {"target_hook"}  # an SAE has none
NULLABLE = {("sae", "k"), ("sae", "l1_coefficient"), ("sae", "threshold")} | {
    ("optimisation", "decay_start"),
    ("optimisation", "gradient_clip"),
}

# What a public card keeps. Anything not named here is withheld, so that a new field is private until decided.
PUBLIC: dict[str, tuple[str, ...] | None] = {
    "model": None,
    "hook": None,
    "target_hook": None,
    "sae": ("architecture", "d_model", "d_target"),
    "store": ("context_length", "storage_dtype"),
    "corpora": None,
    "near_duplicates": None,
    "token_fingerprints": None,
    "evaluation_roles": None,
    "monitored": None,
    "exclude_massive": None,
    "numerics": None,
    "versions": None,
    "hardware": None,
    "outcomes": None,
    "taxonomy": None,
    "evaluation": None,
    "published": None,
    "reading_audit": None,
    "stated_corpora": None,
    "roles_are": None,
}


def write_run_card(path: Path | str, fields: dict[str, Any]) -> None:
    """Write a card as YAML, required sections first. Raises TrainingError naming every missing field."""
    require_fields(path, fields)
    ordered = {section: fields[section] for section in _required(fields)} | fields
    try:
        text = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=100)
    except yaml.representer.RepresenterError as error:
        raise TrainingError(f"{path}: a run card holds plain values only ({error})") from error
    write_sealed_text(path, f"# {KEY}: {UNSEALED}\n{redacted(text)}")


def is_published(fields: Mapping[str, Any]) -> bool:
    """Return whether a card is of an SAE that was trained elsewhere."""
    return "published" in fields


def _required(fields: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return REQUIRED_OF_PUBLISHED if is_published(fields) else REQUIRED


def require_fields(path: Path | str, fields: dict[str, Any], filled_later: Collection[str] = ()) -> None:
    """Raise TrainingError naming every missing field, but for the sections that are still to be filled."""
    missing = [name for name in missing_fields(fields) if name.split(".")[0] not in filled_later]
    if missing:
        raise TrainingError(f"{path}: the run card lacks {', '.join(missing)}; whoever writes it must give them")


def read_run_card(path: Path | str) -> dict[str, Any]:
    """Read a card; raises DamagedFileError that names it when a bit of it has changed."""
    content = Path(path).read_bytes()
    verify_content(path, content)  # the checksum is the first line: YAML that ends early is YAML
    card = read_yaml(path, DamagedFileError, "train the SAE again")
    if not isinstance(card, dict):
        raise DamagedFileError(f"{path}: holds {type(card).__name__}, expected the sections of a run card; {AGAIN}")
    return card


def missing_fields(fields: dict[str, Any]) -> list[str]:
    """Names, as ``section.field``, of required fields that are absent, or null where null says nothing."""
    missing = []
    for section, keys in _required(fields).items():
        value = fields.get(section)
        if value is None and section in fields and section in NULLABLE_SECTIONS:
            continue
        if value is None:
            missing.append(section)
            continue
        for key in keys:
            absent = not isinstance(value, dict) or key not in value
            if absent or (value[key] is None and (section, key) not in NULLABLE):
                missing.append(f"{section}.{key}")
    texts = "stated_corpora" if is_published(fields) else "corpora"
    for name, corpus in (fields.get(texts) or {}).items():
        missing += [f"{texts}.{name}.{key}" for key in REQUIRED_OF_CORPUS if corpus.get(key) is None]
    return missing


def public_card(fields: dict[str, Any]) -> dict[str, Any]:
    """The card without the recipe: schedules, mix ratios, latent and token counts are withheld, and named.

    Of warnings the name is kept; their text quotes the recipe.
    """
    public, withheld = {}, []
    for section, value in fields.items():
        if section == "warnings":
            public[section] = [warning.split(":", 1)[0] for warning in value]
        elif section not in PUBLIC:
            withheld.append(section)
        elif (keep := PUBLIC[section]) is None:
            public[section] = value
        else:
            public[section] = {key: value[key] for key in keep if key in value}
            withheld += [f"{section}.{key}" for key in value if key not in keep]
    return {"reporting": "public", **public, "withheld": withheld}
