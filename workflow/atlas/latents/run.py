"""The latents of one SAE from files: its codes and a random dictionary's on every corpus, its metrics, the embedder."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.codes.encode import identity_of, open_dictionaries, sae_sha256
from atlas.codes.store import Codes
from atlas.config.latents import Latents
from atlas.corpora.encoding import tokenizer_sha256
from atlas.errors import EvaluationError
from atlas.evaluation.undefined import without_nonfinite
from atlas.files import read_json, write_json
from atlas.folder import Folder
from atlas.latents.coherence import Coherence, coherence_null, measure_coherence, null_rows, random_tuples
from atlas.latents.drift import drift_from, metric_changes, require_distinct
from atlas.latents.embedded_windows import EmbeddedWindows
from atlas.latents.embedder import embedder_sha256
from atlas.latents.summary import summarise
from atlas.latents.table import CorpusMeasurements, Status, decoder_columns, latent_rows, write_sae_table
from atlas.latents.text import CorpusText
from atlas.latents.token_classes import TokenTable
from atlas.training.sae import Sae

log = logging.getLogger(__name__)

DICTIONARIES = ("sae", "random")


@dataclass(frozen=True)
class LatentInputs:
    """Files of one look at latents: prepared model, SAE folder, training shards (for the random dictionary), codes of
    the SAE and of the random dictionary by corpus, metrics.json of the SAE, and the prepared embedder, if there is one,
    with the windows that it embedded by corpus.
    """

    model: Path
    sae: Folder
    train_shards: list[Path]
    codes: Mapping[str, Path]
    random_codes: Mapping[str, Path]
    metrics: Path
    embedder: Path | None
    windows: Mapping[str, Path]


@dataclass(frozen=True)
class LatentSettings:
    """Settings: the config's `latents`, and what evaluation has of the same kind."""

    latents: Latents
    dead_min_tokens: int
    bootstrap_samples: int


def run_latents(
    inputs: LatentInputs,
    *,
    hook: str,
    seed: int,
    roles: Mapping[str, str],
    settings: LatentSettings,
    table: Path,
    summary: Path,
) -> None:
    """Write the table of latents (one row per latent, corpus and dictionary) and its summary.

    `roles` maps corpora to in_sample, proxy or oos. Raises EvaluationError when codes, metrics, SAE and tokenizer do
    not belong together, when two corpora are one text, or when one has too few tokens; StoreError for damaged codes.
    """
    saes = open_dictionaries(inputs.sae, inputs.train_shards, hook, seed)
    codes = _open_codes(inputs, roles, hook, seed)
    metrics = _read_metrics(inputs, roles)
    require_distinct({name: str(each["sae"].identity["corpus_fingerprint"]) for name, each in codes.items()})
    tokens = TokenTable.of(inputs.model)
    windows = _open_windows(inputs, codes, settings)
    measured = _measure(saes, codes, roles, tokens, settings)
    coherence = _coherence(measured, windows, settings)
    home = measured[next(name for name, role in roles.items() if role == "in_sample")]
    decoders, status = {kind: decoder_columns(sae) for kind, sae in saes.items()}, Status(settings.dead_min_tokens)
    rows, corpora = [], {}
    for name, own in measured.items():
        corpora[name] = _facts(own["sae"].text)
        for kind in DICTIONARIES:
            part = latent_rows(decoders[kind], own[kind], coherence[name][kind], home[kind], tokens, status)
            rows.append(part.assign(dictionary=kind))
            corpora[name][kind] = summarise(part, own[kind], coherence[name][kind])
            if roles[name] != "in_sample":
                corpora[name][kind]["drift"] = drift_from(home[kind].firings, own[kind].firings)
        if roles[name] != "in_sample":
            before = metrics[home["sae"].text.name]["atlas"]
            corpora[name]["metric_changes"] = metric_changes(before, metrics[name]["atlas"])
        log.info("%s: %s", name, {key: corpora[name]["sae"][key] for key in ("coherence_z", "artefact_share")})
    sae_id, reasons = "/".join(inputs.sae.parts[-5:]), {}
    if inputs.embedder is None:
        reasons["coherence"] = "no latents.embedder is configured"
    result = {"sae_id": sae_id, "sae_sha256": sae_sha256(inputs.sae), "corpora": corpora}
    write_json(summary, without_nonfinite(result, reasons) | {"reasons": reasons})
    first = ["dictionary", "corpus", "role", "latent"]
    write_sae_table(table, pd.concat(rows, ignore_index=True), first, sae_id, result["sae_sha256"])


def _open_codes(inputs: LatentInputs, roles: Mapping[str, str], hook: str, seed: int) -> dict[str, dict[str, Codes]]:
    """Codes by corpus and dictionary, each of this SAE and of this corpus."""
    expected = identity_of(inputs.sae, hook, seed) | {"tokenizer_sha256": tokenizer_sha256(inputs.model)}
    opened: dict[str, dict[str, Codes]] = {}
    for name in roles:
        opened[name] = {}
        for kind, paths in zip(DICTIONARIES, (inputs.codes, inputs.random_codes), strict=True):
            if name not in paths:
                raise EvaluationError(f"corpus {name!r} has no codes of the {kind} dictionary, only {sorted(paths)}")
            own = {"dictionary": kind, "corpus": name}
            opened[name][kind] = Codes.open(paths[name], expected | own)
    return opened


def _read_metrics(inputs: LatentInputs, roles: Mapping[str, str]) -> dict[str, Any]:
    metrics, sae_id = read_json(inputs.metrics), "/".join(inputs.sae.parts[-5:])
    if metrics["sae_id"] != sae_id or not set(roles) <= set(metrics["corpora"]):
        raise EvaluationError(
            f"{inputs.metrics}: is of {metrics['sae_id']!r} on {sorted(metrics['corpora'])}, expected {sae_id!r} on "
            f"{sorted(roles)}; delete this file and run again"
        )
    return metrics["corpora"]


def _open_windows(
    inputs: LatentInputs, codes: Mapping[str, Mapping[str, Codes]], settings: LatentSettings
) -> dict[str, EmbeddedWindows] | None:
    """Embedded windows by corpus, each of the text that the codes are of; None without an embedder."""
    if inputs.embedder is None:
        return None
    embedder, opened = embedder_sha256(inputs.embedder), {}
    for name, own in codes.items():
        if name not in inputs.windows:
            raise EvaluationError(f"corpus {name!r} has no embedded windows, only {sorted(inputs.windows)}")
        identity = {key: own["sae"].identity[key] for key in ("corpus", "corpus_fingerprint", "tokenizer_sha256")}
        expected = identity | {"embedder": embedder, "width": settings.latents.window_tokens}
        opened[name] = EmbeddedWindows.open(inputs.windows[name], expected, own["sae"].n_rows)
    return opened


def _measure(
    saes: Mapping[str, Sae],
    codes: Mapping[str, Mapping[str, Codes]],
    roles: Mapping[str, str],
    tokens: TokenTable,
    settings: LatentSettings,
) -> dict[str, dict[str, CorpusMeasurements]]:
    """Return what needs no embedding, by corpus and dictionary. All texts are checked before the first is measured."""
    chosen, samples = settings.latents, settings.bootstrap_samples
    texts = {name: CorpusText.of(codes[name]["sae"], roles[name], tokens, chosen.min_tokens) for name in codes}
    return {
        name: {
            kind: CorpusMeasurements.of(saes[kind], codes[name][kind], text, chosen.top_contexts, samples)
            for kind in DICTIONARIES
        }
        for name, text in texts.items()
    }


def _facts(text: CorpusText) -> dict[str, Any]:
    """Return what a summary says of a corpus."""
    facts = {"role": text.role, "n_tokens": text.n_tokens, "n_documents": len(text.groups.documents)}
    return facts | {"base_rates": text.base_rates}


def _coherence(
    measured: Mapping[str, Mapping[str, CorpusMeasurements]],
    windows: Mapping[str, EmbeddedWindows] | None,
    settings: LatentSettings,
) -> dict[str, dict[str, Coherence | None]]:
    """Coherence by corpus and dictionary."""
    if windows is None:
        return {name: dict.fromkeys(DICTIONARIES) for name in measured}
    size, samples = settings.latents.top_contexts, settings.bootstrap_samples
    result: dict[str, dict[str, Coherence | None]] = {}
    for name, dictionaries in measured.items():
        text = dictionaries["sae"].text
        null = coherence_null(windows[name], random_tuples(text, null_rows(text), size))
        result[name] = {
            kind: measure_coherence(own.contexts, text, windows[name], null, samples)
            for kind, own in dictionaries.items()
        }
    return result
