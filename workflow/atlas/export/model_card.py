"""The model card of a Hugging Face folder, made from the run card and nothing else.

Values come from configuration files, so they are data: escaped for Markdown and HTML in the text, and dumped as YAML in
the front matter.
"""

import re
from collections.abc import Iterable
from typing import Any

import yaml

from atlas.export import saelens
from atlas.export.source import TrainedSae
from atlas.runcard import is_published
from atlas.sae_ids import NOT_STATED

# Licences by their SPDX names that the hub knows under the same name in lower case.
_HUB_LICENCES = {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0"}
_HUB_LICENCES |= {"CC-BY-NC-4.0", "GPL-3.0", "LGPL-3.0", "AGPL-3.0"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~#$!])")
_SPACE = re.compile(r"\s+")


def model_card(trained: TrainedSae) -> str:
    """README.md: front matter, how to load, what the SAE is, what it was trained on, what came out, warnings."""
    kind = "transcoder" if trained.sae.is_transcoder else "sparse autoencoder"
    title = f"# {escape(trained.sae.architecture)} {kind} of {escape(trained.model_name)} at {escape(trained.hooks)}"
    parts = [title, _opening(trained), _loading(trained), _description(trained), _training(trained)]
    parts += [_corpora(trained), _outcomes(trained), _warnings(trained), _card_note(trained)]
    return _front_matter(trained) + "\n\n".join(parts) + "\n"


def escape(value: Any) -> str:
    """Text of one line that Markdown and HTML show as it is."""
    text = _SPACE.sub(" ", str(value)).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)


def _front_matter(trained: TrainedSae) -> str:
    model = trained.card["model"]
    licence, source = str(trained.card.get("published", model)["licence"]), model["source"]
    front: dict[str, Any] = {"library_name": "saelens"}
    if licence in _HUB_LICENCES:
        front["license"] = licence.lower()
    else:
        front |= {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")}
    # The hub knows only models of its own, and none with weights that were drawn anew.
    if source["kind"] == "hub" and model.get("random_weights") is None:
        front["base_model"] = source["id"]
    kind = "transcoder" if trained.sae.is_transcoder else "sparse-autoencoder"
    front["tags"] = ["saelens", kind, "mechanistic-interpretability", trained.sae.architecture.replace("_", "-")]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n"


def _opening(trained: TrainedSae) -> str:
    sae = trained.sae
    does = (
        f"predicts the rows of hook {escape(trained.hooks.target)} from those of hook {escape(trained.hooks.source)}"
        if sae.is_transcoder
        else f"reads and reconstructs the rows of hook {escape(trained.hooks.source)}"
    )
    return (
        f"It {does} with {sae.n_latents} latents. Rows go in as the model computes them: any normalisation is part of "
        f"the weights. {_licence_note(trained)}"
    )


def _licence_note(trained: TrainedSae) -> str:
    if is_published(trained.card):
        return "It was trained elsewhere and published; the licence above is what the user states of the release."
    return "The licence above is the model's; the texts it was trained on have their own, below."


def _loading(trained: TrainedSae) -> str:
    hooks = str(trained.hooks)
    return f"""## Loading

```python
from sae_lens import SAE  # SAELens 6

sae = SAE.from_pretrained("<user>/<repository>", "{hooks}")  # from the hub
sae = SAE.load_from_disk("{hooks}")  # or from this folder
latents = sae.encode(rows)  # rows: (n, {trained.sae.d_model}), float32
reconstruction = sae.decode(latents)
```"""


def _description(trained: TrainedSae) -> str:
    card, sae = trained.card, trained.sae
    model, twin = card["model"], card["sae"].get("twin")
    rows = [
        ("Model", model["name"]),
        ("Source of the model", _source(model["source"])),
        ("Revision", model["revision"]),  # says so when the weights are random
        ("SHA-256 of its weights", model["weights_sha256"]),
        ("Licence of the model", model["licence"]),
        ("Hook", trained.hooks.source),
        *([("Target hook", trained.hooks.target)] if sae.is_transcoder else []),
        ("In TransformerLens", _transformer_lens(trained)),
        ("d_model", sae.d_model),
        *([("d_target", sae.d_target)] if sae.is_transcoder else []),
        ("Dictionary size", sae.n_latents),
        ("Architecture", sae.architecture),
        *([("Trained null", f"twin {twin}: not all of its weights were trained")] if twin else []),
        ("Sparsity", _sparsity(trained)),
        ("Normalisation", _pairs(card["sae"].get("normalisation")) or _absent(trained, "sae.normalisation")),
    ]
    return "## What it is\n\n" + _table(("", ""), rows)


def _transformer_lens(trained: TrainedSae) -> str:
    names = saelens.hook_names(trained).values()
    return " to ".join(name or "no such tensor" for name in names)


def _sparsity(trained: TrainedSae) -> str:
    sae, card = trained.sae, trained.card["sae"]
    said = [f"k = {sae.k}"] if sae.k is not None else []
    said += [f"threshold {sae.threshold:.6g}"] if sae.threshold is not None else []
    settings = ["l1_coefficient", "l0_coefficient", "target_l0", "bandwidth", "sparsity_warmup_steps"]
    settings += ["threshold_beta", "threshold_start_step"] if sae.threshold is not None else []
    said += [f"{key} {card[key]}" for key in settings if card.get(key) is not None]
    if card.get("group_fractions"):
        said.append("groups of " + ", ".join(f"{share:.4g}" for share in card["group_fractions"]) + " of the latents")
    return "; ".join(said) or "every positive value passes"


def _training(trained: TrainedSae) -> str:
    card = trained.card
    if is_published(card):
        told = card["published"]
        files = {name: f"SHA-256 {digest}" for name, digest in told["files_sha256"].items()}
        rows = [
            ("Source", _source(told["source"])),
            ("Folder", told["folder"] or "the source itself"),
            ("Revision", told["revision"]),
            ("Format", told["format"]),
            ("Licence", told["licence"]),
            *files.items(),
            ("Text, mix, optimisation, seed", NOT_STATED),
        ]
        return "## Release\n\n" + _table(("", ""), rows)
    rows = [
        ("Recipe", _get(trained, "names", "recipe")),
        ("Mix", _get(trained, "names", "mix")),
        ("Rows drawn", _get(trained, "tokens", "rows_drawn")),
        ("Rows to draw from", _get(trained, "tokens", "rows_trainable")),
        ("Shares drawn", _pairs(card.get("drawn_shares")) or _absent(trained, "drawn_shares")),
        ("Massive activations left out", _get(trained, "exclude_massive")),
        ("Context length", _get(trained, "store", "context_length")),
        ("Rows stored as", _get(trained, "store", "storage_dtype")),
        ("Optimisation", _pairs(card.get("optimisation")) or _absent(trained, "optimisation")),
        ("Number formats", _pairs(card.get("numerics")) or _absent(trained, "numerics")),
        ("Seed", _get(trained, "seed")),
        ("Versions", _pairs(card.get("versions")) or _absent(trained, "versions")),
    ]
    return "## Training\n\n" + _table(("", ""), rows)


def _corpora(trained: TrainedSae) -> str:
    published = is_published(trained.card)
    corpora = trained.card["stated_corpora" if published else "corpora"]
    rows = [
        (name, corpus["licence"], _source(corpus["source"]), corpus["template"], _fingerprint(corpus["fingerprint"]))
        for name, corpus in corpora.items()
    ]
    heads = ("Corpus", "Licence", "Source", "Template", "Fingerprint")
    heading = "Texts that the user calls in-sample" if published else "Texts it was trained on"
    return f"## {heading}\n\n" + _table(heads, rows)


def _outcomes(trained: TrainedSae) -> str:
    card = trained.card
    if is_published(card):
        roles = "; ".join(f"{corpus}: {role}" for corpus, role in card["evaluation_roles"].items())
        return f"## Outcomes\n\nCorpora it is evaluated on, in roles that the user states: {escape(roles)}."
    corpora = dict(card.get("monitored") or {})
    rows = [
        (split, corpora.get(split, "what it was trained on"), *(_number(found, key) for key in _OUTCOMES))
        for split, found in (card.get("outcomes") or {}).items()
    ]
    roles = "; ".join(f"{corpus}: {role}" for corpus, role in (card.get("evaluation_roles") or {}).items())
    note = "Held-out documents are chosen by the hash of their text; splits but `train` are held out."
    table = _table(("Split", "Corpus", *_OUTCOMES.values()), rows)
    return f"## Outcomes\n\n{note} Corpora it is evaluated on: {escape(roles)}.\n\n{table}"


_OUTCOMES = {"explained_variance": "Explained variance", "l0": "L0", "silent_share": "Latents that never fired"}


def _number(found: dict[str, Any], key: str) -> str:
    return f"{found[key]:.4g}" if isinstance(found.get(key), int | float) else "not measured"


def _warnings(trained: TrainedSae) -> str:
    warnings = trained.card.get("warnings") or []
    said = "\n".join(f"- {escape(warning)}" for warning in warnings) or "Training gave none."
    return f"## Warnings\n\n{said}"


def _card_note(trained: TrainedSae) -> str:
    note = "`run_card.yaml` beside this file has everything above and more."
    if trained.is_public:
        note += " It is a public card; withheld are: " + escape(", ".join(trained.card.get("withheld") or [])) + "."
    return f"## Run card\n\n{note}"


def _get(trained: TrainedSae, *keys: str) -> Any:
    """A field of the card, or that it is withheld; a full card has all of them."""
    value: Any = trained.card
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return _absent(trained, ".".join(keys))
        value = value[key]
    return value


def _absent(trained: TrainedSae, name: str) -> str:
    return "withheld" if trained.is_public else f"{name} not on the run card"


def _pairs(section: dict[str, Any] | None) -> str:
    return "; ".join(f"{key} {_plain(value)}" for key, value in (section or {}).items())


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _source(source: dict[str, Any]) -> str:
    """A source in one line; None and empty entries say nothing."""
    said = {key: value for key, value in source.items() if key not in ("kind", "licence", "token_env")}
    if "parts" in said:
        said["parts"] = " + ".join(f"{part['package']} {part['version']}" for part in said["parts"])
    return f"{source['kind']}: " + ", ".join(f"{key} {value}" for key, value in said.items() if value not in (None, []))


def _fingerprint(fingerprint: Any) -> str:
    if isinstance(fingerprint, dict):
        return ", ".join(f"{split} {value}" for split, value in fingerprint.items())
    return str(fingerprint)


def _table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
