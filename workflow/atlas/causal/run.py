"""Effects of an SAE's latents from files: its codes, the model, the stored text, and labels where there are some."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int
from torch import Tensor

from atlas.activations.store import Shard, open_shards
from atlas.autointerp.explainers import begins_word, find_promoted, first_of_names
from atlas.autointerp.words import name_of
from atlas.causal.continuations import continue_texts
from atlas.causal.effects import FiringEffects, allowed_rows, measure, require_next_tokens
from atlas.causal.firings import MeasuredFirings, choose_firings, other_latents
from atlas.causal.summary import summarise
from atlas.causal.tables import NO_TWIN, dose_rows, effect_rows, label_rows, promoted_columns, token_rows
from atlas.codes.encode import identity_of, sae_sha256
from atlas.codes.store import Codes
from atlas.config.causal import Causal
from atlas.errors import CausalError, TrainingError
from atlas.evaluation.references import require_model
from atlas.evaluation.undefined import without_nonfinite
from atlas.files import write_json
from atlas.folder import Folder
from atlas.hook_points import HookPoint, SaeHooks
from atlas.latents.table import write_sae_table
from atlas.latents.token_classes import TokenTable
from atlas.models.load import LoadedModel, in_float32, load_model
from atlas.tables import read_parquet
from atlas.training.sae import Sae, load_sae

log = logging.getLogger(__name__)

# Bytes of the sums over the vocabulary that are held at a time.
_LIFT_BYTES = 2**29
# Sites whose rows are summands of the residual stream: the head reads their directions.
_READ_BY_HEAD = ("resid_pre", "resid_post", "mlp_out", "attn_out")


@dataclass(frozen=True)
class CausalInputs:
    """Prepared model, SAE folder, codes and eval shards of one corpus, the table of labels or None, and folders of the
    SAE's twins by kind.
    """

    model: Path
    sae: Folder
    codes: Path
    shards: Sequence[Path]
    labels: Path | None
    twins: Mapping[str, Folder] = field(default_factory=dict)


@dataclass(frozen=True)
class EffectOutputs:
    """Tables by latent, by latent and clamp, by latent and token, of continuations, and the summary."""

    effects: Path
    doses: Path
    tokens: Path
    continuations: Path
    summary: Path


def run_effects(
    inputs: CausalInputs,
    *,
    hook: str,
    seed: int,
    corpus: str,
    settings: Causal,
    device: torch.device,
    outputs: EffectOutputs,
) -> None:
    """Measure what latents do and write the tables of docs/metrics.md, section 18.

    All arithmetic is float32. Raises CausalError for a model that does not predict the next token, or when SAE, codes
    and shards do not belong together; StoreError for damaged codes.
    """
    loaded = load_model(inputs.model, device)
    require_next_tokens(loaded)
    shards = open_shards(list(inputs.shards))
    require_model(shards, loaded)
    loaded = in_float32(loaded)
    sae = _load(inputs.sae)
    codes = Codes.open(inputs.codes, identity_of(inputs.sae, hook, seed) | {"dictionary": "sae", "corpus": corpus})
    _require_same_text(codes, shards, inputs.codes)
    allowed = allowed_rows(loaded, shards, codes.massive, settings.horizon)
    latents = _sample(codes.n_firings, settings.latents, seed)
    tokens = TokenTable.of(inputs.model)
    if not len(latents):
        raise CausalError(f"{inputs.codes}: none of {codes.n_latents} latents fires on this corpus: nothing to measure")
    twins = {kind: _twin_decoder(folder, sae) for kind, folder in inputs.twins.items()}
    stated = _stated(loaded, sae, hook, tokens.texts, settings.tokens)
    labels = None if inputs.labels is None else _labels(inputs.labels)
    parts, measured = [], []
    step = max(1, _LIFT_BYTES // (16 * loaded.identity["vocabulary_size"]))
    firings = choose_firings(codes, allowed, latents, settings.firings, seed)
    others = other_latents(sae.W_dec, codes.n_firings, latents)
    for first in range(0, len(latents), step):
        own = slice(first, first + step)
        found = measure(loaded, sae, hook, shards, allowed, firings[own], others[own], settings, seed, stated, twins)
        parts.append(_tables(found, firings[own], others[own], tokens, labels, settings, seed))
        measured.append(found.firings)
        method = found.method
        del found  # before the sums of the next latents are made
    effects, doses, promoted = (pd.concat(each, ignore_index=True) for each in zip(*parts, strict=True))
    texts = torch.from_numpy(codes.tokens.astype(np.int64))
    continuations = continue_texts(loaded, sae, hook, texts, codes.context_length, firings, settings)
    summary = summarise(pd.concat(measured, ignore_index=True), method, effects, tuple(twins))
    _write(inputs, corpus, effects, doses, promoted, continuations, summary, outputs)


def _tables(
    found: FiringEffects,
    firings: Sequence[MeasuredFirings],
    others: Int[np.ndarray, " latents"],
    tokens: TokenTable,
    labels: dict[int, str] | None,
    settings: Causal,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    promoted = token_rows(found, firings, tokens.texts, settings.tokens)
    effects = effect_rows(found, firings, others).merge(promoted_columns(promoted), on="latent", how="left")
    if labels is not None:
        names = [name_of(text) for text in tokens.texts]
        asked = label_rows(found, firings, labels, names, begins_word(tokens.texts), seed)
        effects = effects.merge(asked, on="latent", how="left")
    return effects, dose_rows(found), promoted


def _write(
    inputs: CausalInputs,
    corpus: str,
    effects: pd.DataFrame,
    doses: pd.DataFrame,
    promoted: pd.DataFrame,
    continuations: pd.DataFrame,
    summary: dict,
    outputs: EffectOutputs,
) -> None:
    sae_id, sha256 = "/".join(inputs.sae.parts[-5:]), sae_sha256(inputs.sae)
    write_sae_table(outputs.effects, effects, ["latent", "verdict", "reason"], sae_id, sha256)
    write_sae_table(outputs.doses, doses, ["latent", "clamp"], sae_id, sha256)
    write_sae_table(outputs.tokens, promoted, ["latent", "dictionary", "which", "rank"], sae_id, sha256)
    write_sae_table(outputs.continuations, continuations, ["latent", "clamp"], sae_id, sha256)
    reasons = {} if inputs.twins else {"kl_twin": NO_TWIN}
    result = {"sae_id": sae_id, "sae_sha256": sha256, "corpus": corpus, **without_nonfinite(summary, reasons)}
    write_json(outputs.summary, result | {"reasons": reasons})
    log.info("%s of %s latents act beyond a random direction", result["share_beyond_random"], result["n_measured"])


def _sample(n_firings: Int[np.ndarray, " n_latents"], count: int | None, seed: int) -> Int[np.ndarray, " latents"]:
    """Draw the latents that are measured: `count` of those that fire, or all of them."""
    alive = np.flatnonzero(n_firings > 0)
    if count is None or count >= len(alive):
        return alive
    return np.sort(np.random.Generator(np.random.PCG64([seed, 15])).permutation(alive)[:count])


def _stated(loaded: LoadedModel, sae: Sae, hook: str, texts: Sequence[str], count: int) -> dict[int, list[int]]:
    """Find the tokens that each latent promotes by its weights; none where the head does not read latents."""
    if HookPoint.parse(SaeHooks.parse(hook).target).site not in _READ_BY_HEAD:
        return {}
    found = find_promoted(sae.W_dec, loaded, texts)
    if found is None:
        return {}
    return {
        latent: [int(row[place]) for _, place in first_of_names(row, texts)[:count]]
        for latent, row in enumerate(found.raised)
    }


def _labels(path: Path) -> dict[int, str]:
    """Labels of the SAE's latents by the first explainer and seed."""
    table = read_parquet(path)
    table = table[table.dictionary == "sae"]
    table = table[(table.explainer == table.explainer.iloc[0]) & (table.seed == table.seed.iloc[0])]
    return {int(latent): label for latent, label in zip(table.latent, table.label, strict=True) if label is not None}


def _load(folder: Path) -> Sae:
    try:
        return load_sae(folder)
    except TrainingError as error:
        raise CausalError(str(error)) from error


def _twin_decoder(folder: Path, sae: Sae) -> Float[Tensor, "n_latents d_target"]:
    """Read the decoder of a twin, whose latent j began as the SAE's latent j."""
    W_dec = _load(folder).W_dec
    if W_dec.shape != sae.W_dec.shape:
        raise CausalError(
            f"{folder}: its decoder has shape {tuple(W_dec.shape)}, the SAE's {tuple(sae.W_dec.shape)}: it is no twin "
            "of this SAE; train it again"
        )
    return W_dec


def _require_same_text(codes: Codes, shards: Sequence[Shard], path: Path) -> None:
    fingerprint = shards[0].identity["corpus_fingerprint"]
    if codes.identity["corpus_fingerprint"] != fingerprint:
        raise CausalError(
            f"{path}: corpus_fingerprint is {codes.identity['corpus_fingerprint']!r}, but the shards have "
            f"{fingerprint!r}: these codes are of other text; delete them and run again"
        )
