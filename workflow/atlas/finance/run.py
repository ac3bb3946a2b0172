"""One SAE on financial text from files: reconstruction and loss by kind of token, latents, template, drift."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from atlas.activations.store import open_shards, shards_by_corpus
from atlas.codes.encode import identity_of, random_dictionary
from atlas.codes.store import Codes
from atlas.config.finance import Finance
from atlas.config.study import Evaluation
from atlas.corpora.encoding import tokenizer_sha256
from atlas.errors import EvaluationError, TrainingError
from atlas.evaluation.facts import TrainingFacts
from atlas.evaluation.references import References
from atlas.evaluation.splice import splice_losses
from atlas.evaluation.undefined import without_nonfinite
from atlas.files import write_json
from atlas.finance.estimates import Estimate
from atlas.finance.kinds import GROUPS, TokenTexts, in_group
from atlas.finance.latents import Rule, firings_of, latent_kinds
from atlas.finance.reconstruction import as_columns, explained_by_group, loss_by_group
from atlas.finance.template import TemplateTotals, match_tokens, rows_moved
from atlas.finance.text import KindedRows
from atlas.folder import Folder
from atlas.latents.drift import drift_from, require_distinct
from atlas.latents.text import CorpusText
from atlas.latents.token_classes import TokenTable
from atlas.models.load import load_model
from atlas.models.objectives import TOKEN_OBJECTIVES
from atlas.prepared import read_identity
from atlas.statistics.draws import NO_INTERVAL
from atlas.tables import write_parquet
from atlas.training.sae import Sae, load_sae, read_atlas_metadata

log = logging.getLogger(__name__)

RETOLD = ("rewritten", "moved")


@dataclass(frozen=True)
class FinanceInputs:
    """Files: prepared model, SAE folder, training shards, eval shards of the financial corpus in its three templates,
    its reference losses, codes of the SAE on it and on the general corpus, and of the random dictionary on it.
    """

    model: Path
    sae: Folder
    train_shards: list[Path]
    shards: Mapping[str, list[Path]]
    references: Path
    codes: Path
    generic_codes: Path
    random_codes: Path


@dataclass(frozen=True)
class FinanceSettings:
    """The study's section `finance`, and what evaluation and latents have of the same kind."""

    finance: Finance
    evaluation: Evaluation
    min_tokens: int
    batch_contexts: int


def run_finance(
    inputs: FinanceInputs,
    *,
    hook: str,
    seed: int,
    settings: FinanceSettings,
    device: torch.device,
    target: Path,
    draws: Path,
) -> None:
    """Write finance.json (numbers, intervals, reasons) and every estimate in each draw of documents, a column each.

    `shards` has the keys plain, rewritten and moved. Raises EvaluationError when SAE, codes, shards and tokenizer do
    not belong together, when texts that must differ coincide, or documents that must be the same differ.
    """
    sae, training = _load(inputs, hook)
    texts = TokenTexts.of(inputs.model)
    rows = {
        name: KindedRows.of(_open(paths, inputs), hook, training.source.limit, texts)
        for name, paths in inputs.shards.items()
    }
    _require_apart(rows, training)
    saes = {"": sae.to(device), "random_": random_dictionary(sae, training, seed).to(device)}
    plain, samples = rows["plain"], settings.evaluation.bootstrap_samples
    estimates: dict[str, Estimate | None] = {}
    for prefix, dictionary in saes.items():
        explained = explained_by_group(dictionary, plain, training.source.mean, samples)
        estimates |= as_columns(explained, f"{prefix}explained_variance")
    losses, numbers, reasons = _losses(inputs, hook, saes[""], plain, settings, device)
    estimates |= losses
    template, matched = _template(saes, rows, training, samples)
    estimates |= template
    counted, counts = _latents(inputs, hook, seed, settings)
    estimates |= counted
    numbers |= counts
    for name, each in estimates.items():
        if each is not None and each.interval is None:
            reasons[f"{name}_interval"] = NO_INTERVAL
    result = {
        "sae_id": "/".join(inputs.sae.parts[-5:]),
        "corpus": plain.name,
        "n_tokens": int(plain.counted.sum()),
        "n_usable": int(plain.usable.sum()),
        "n_documents": len(plain.groups.documents),
        "matched_tokens": matched,
        **{f"base_rate_{name}": float(in_group(plain.kinds, name)[plain.counted].mean()) for name in GROUPS},
        **{name: None if each is None else each.value for name, each in estimates.items()},
        **{f"{name}_interval": None if each is None else each.interval for name, each in estimates.items()},
        **numbers,
    }
    log.info("%s", {key: result[key] for key in ("explained_variance_financial", "turnover_excess", "latents_number")})
    write_json(target, without_nonfinite(result, reasons) | {"reasons": reasons})
    columns = {name: each.draws for name, each in estimates.items() if each is not None}
    write_parquet(draws, pd.DataFrame(columns))


def _load(inputs: FinanceInputs, hook: str) -> tuple[Sae, TrainingFacts]:
    try:
        sae = load_sae(inputs.sae)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    own = read_atlas_metadata(inputs.sae)["hook_name"]
    if own != hook:
        raise EvaluationError(f"{inputs.sae}: hook_name is {own!r}, expected {hook!r}: another hook's SAE")
    training = TrainingFacts.of(shards_by_corpus(inputs.train_shards, {}), hook)
    if len(training.source.mean) != sae.d_model:
        raise EvaluationError(
            f"{inputs.sae}: d_model is {sae.d_model}, but rows of {hook} have width {len(training.source.mean)}: it "
            "was trained on another hook or model"
        )
    return sae, training


def _open(paths: list[Path], inputs: FinanceInputs) -> list:
    identity = read_identity(inputs.model)
    expected = {key: identity[key] for key in ("weights_sha256", "tokenizer_sha256")}
    return open_shards(paths, expected | {"split": "eval"})


def _require_apart(rows: Mapping[str, KindedRows], training: TrainingFacts) -> None:
    judged = {text.name: str(text.shards[0].identity["corpus_fingerprint"]) for text in rows.values()}
    require_distinct({**judged, **{f"{name} (trained on)": own for name, own in training.fingerprints.items()}})


def _losses(
    inputs: FinanceInputs,
    hook: str,
    sae: Sae,
    plain: KindedRows,
    settings: FinanceSettings,
    device: torch.device,
) -> tuple[dict[str, Estimate | None], dict[str, Any], dict[str, str]]:
    """Loss columns by group of the predicted token, numbers of units, and reasons for what has none."""
    references = References.open(inputs.references, hook, plain.shards[0].identity)
    loaded = load_model(inputs.model, device)
    estimates: dict[str, Estimate | None] = {}
    if loaded.objective not in TOKEN_OBJECTIVES:
        return {}, {}, {"delta_loss": f"objective {loaded.objective} predicts no tokens"}
    table = splice_losses(loaded, sae, hook, plain.shards, references, settings.batch_contexts)
    kinds = plain.kinds[: references.mask.size].reshape(references.mask.shape)[references.mask]
    least, samples = getattr(settings.evaluation.min_loss_gap, loaded.objective), settings.evaluation.bootstrap_samples
    found, units = loss_by_group(table, kinds, least, samples)
    reasons = {}
    for group, measures in found.items():
        for name, estimate in measures.items():
            estimates[f"{name}_{group}"] = estimate
            if estimate is None:
                reasons[f"{name}_{group}"] = (
                    f"{units[group]} such tokens, or zero ablation raises their loss too little"
                )
    counts = {f"loss_units_{group}": number for group, number in units.items()}
    return estimates, {"loss_documents": len(set(table.document.tolist())), **counts}, reasons


def _template(
    saes: Mapping[str, Sae], rows: Mapping[str, KindedRows], training: TrainingFacts, samples: int
) -> tuple[dict[str, Estimate | None], int]:
    """Return what changes on the same tokens: rewritten, moved, and rewritten less moved (excess); and how many there
    are.
    """
    matched = match_tokens(rows["plain"], {name: rows[name] for name in RETOLD})
    result: dict[str, Estimate | None] = {}
    for prefix, sae in saes.items():
        passage = TemplateTotals(sae, rows, matched, training.source.mean.to(sae.W_dec.device))
        for name in ("explained_change", "turnover", "rate_divergence"):
            rewritten, moved = (getattr(passage, name)(corpus, samples) for corpus in RETOLD)
            parts = {"rewritten": rewritten, "moved": moved, "excess": rewritten - moved}
            result |= as_columns(parts, f"{prefix}{name}")
    result |= as_columns({name: rows_moved(rows, matched, name, samples) for name in RETOLD}, "rows_moved")
    return result, len(matched.group)


def _latents(
    inputs: FinanceInputs, hook: str, seed: int, settings: FinanceSettings
) -> tuple[dict[str, Estimate | None], dict[str, Any]]:
    """Latents of numbers, ratios and names of both dictionaries, and how usage drifts from general text."""
    expected = identity_of(inputs.sae, hook, seed) | {"tokenizer_sha256": tokenizer_sha256(inputs.model)}
    section, samples = settings.finance, settings.evaluation.bootstrap_samples
    codes = {
        "": Codes.open(inputs.codes, expected | {"dictionary": "sae", "corpus": section.corpus}),
        "random_": Codes.open(inputs.random_codes, expected | {"dictionary": "random", "corpus": section.corpus}),
    }
    generic = Codes.open(inputs.generic_codes, expected | {"dictionary": "sae", "corpus": section.generic})
    table, spelled = TokenTable.of(inputs.model), TokenTexts.of(inputs.model)
    text = CorpusText.of(codes[""], "finance", table, settings.min_tokens)
    other = CorpusText.of(generic, "generic", table, settings.min_tokens)
    require_distinct({text.name: text.fingerprint, other.name: other.fingerprint})
    kinds = spelled.kinds(text.tokens, text.document, text.counted)
    estimates: dict[str, Estimate | None] = {}
    numbers: dict[str, Any] = {}
    for prefix, own in codes.items():
        rule = Rule(section.min_mass, section.min_firings)
        found = latent_kinds(own, text, kinds, rule, section.shifts, samples)
        estimates |= as_columns(found.counts, f"{prefix}latents")
        for group, null in found.null.items():
            numbers[f"{prefix}latents_{group}_null_mean"] = float(null.mean())
            numbers[f"{prefix}latents_{group}_null_max"] = int(null.max())
    drift = drift_from(firings_of(generic, other), firings_of(codes[""], text))
    numbers |= {f"drift_{name}_{key}": value for name, each in drift.items() for key, value in each.items()}
    return estimates, numbers
