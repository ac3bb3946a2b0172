"""Judge one SAE: on every corpus, under both protocols, with an outcome and its reasons. Normative: docs/metrics.md."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atlas.activations.store import Shard
from atlas.config.recipe import Recipe
from atlas.config.study import Evaluation
from atlas.errors import EvaluationError, TrainingError
from atlas.evaluation.baseline import random_sae, random_transcoder
from atlas.evaluation.chunks import chunk_rows, row_chunks
from atlas.evaluation.document_sums import DocumentSums
from atlas.evaluation.facts import TrainingFacts
from atlas.evaluation.losses import LossTable, loss_metrics
from atlas.evaluation.no_losses import no_losses
from atlas.evaluation.outcome import atlas_evidence, guide_evidence, judge
from atlas.evaluation.protocols import AtlasSums, GuideSums
from atlas.evaluation.redundancy import Geometry, Nulls, decoder_geometry, redundancy_metrics
from atlas.evaluation.references import References, require_model
from atlas.evaluation.shift import fed_scaled
from atlas.evaluation.splice import splice_losses
from atlas.evaluation.undefined import without_nonfinite
from atlas.hook_points import SaeHooks
from atlas.models.load import LoadedModel, PlantedModel
from atlas.models.objectives import unreached
from atlas.progress import progress
from atlas.statistics.clusters import Groups, with_clusters
from atlas.training.sae import Sae, load_sae

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusInputs:
    """One evaluation corpus: its role (in_sample, proxy or oos), eval shards in order, and reference losses.

    None in their place where there is no language model.
    """

    role: str
    shards: Sequence[Shard]
    references: Path | None


@dataclass(frozen=True)
class JudgedSae:
    """SAE that is judged, at a hook of a model (a transcoder: at two), and the geometry of its decoder."""

    loaded: LoadedModel | PlantedModel
    hooks: SaeHooks
    sae: Sae
    geometry: Geometry
    redundancy: Mapping[str, Any]
    baseline: Sae | None
    baseline_redundancy: Mapping[str, Any] | None


@torch.inference_mode()
def evaluate_sae(
    sae_folder: Path,
    loaded: LoadedModel | PlantedModel,
    hook: str,
    corpora: Mapping[str, CorpusInputs],
    training: TrainingFacts,
    settings: Evaluation,
    recipe: Recipe | None,
    seed: int,
    *,
    sae_id: str,
    batch_contexts: int = 8,
    with_random: bool = True,
    scale: float = 1.0,
    kept: dict[str, DocumentSums] | None = None,
) -> dict[str, Any]:
    """All metrics of one SAE or transcoder as JSON-able values: what is not defined is None and has a reason.

    `hook` is one hook, or a transcoder's two (``mlp_in.10-to-mlp_out.10``), as in the names of results. Rows are
    multiplied by `scale` before they are encoded, which the SAE was not trained for unless it is 1.
    With `with_random`, a random dictionary of the same shape (drawn with `seed`) goes through reconstruction, L0 and
    outcome beside it. What an SAE is held against another with is put into `kept` by corpus, if that is given.
    Raises EvaluationError when SAE, activations, model and text do not belong together.
    """
    hooks = SaeHooks.parse(hook)
    sae = fed_scaled(_load(sae_folder, recipe, hooks), scale).to(loaded.device)
    _require_consistent(sae, loaded, hooks, corpora, training)
    nulls = Nulls(settings.null_dictionaries, loaded.device)
    geometry = decoder_geometry(sae.W_dec)
    redundancy, reasons = redundancy_metrics(geometry, _encoder(sae), sae.W_dec, nulls)
    baseline = _random(sae, training, seed) if with_random else None
    baseline_redundancy = None
    if baseline is not None:
        own = decoder_geometry(baseline.W_dec)
        baseline_redundancy = redundancy_metrics(own, _encoder(baseline), baseline.W_dec, nulls)[0]
    subject = JudgedSae(loaded, hooks, sae, geometry, redundancy, baseline, baseline_redundancy)
    results = {}
    for name, inputs in corpora.items():
        results[name], sums = _evaluate_corpus(subject, name, inputs, training, settings, batch_contexts)
        if kept is not None:
            kept[name] = sums
        outcome = results[name]["outcome"]
        log.info("%s: %s (atlas), %s (guide)", name, outcome["atlas"]["verdict"], outcome["guide"]["verdict"])
    return {
        "sae_id": sae_id,
        "random_weights": loaded.identity.get("random_weights"),
        "architecture": sae.architecture,
        "n_latents": sae.n_latents,
        "d_model": sae.d_model,
        "k": sae.k,
        "redundancy": redundancy,
        "corpora": results,
        "reasons": reasons,
    }


def _encoder(sae: Sae) -> Tensor | None:
    return None if sae.is_transcoder else sae.W_enc


def _random(sae: Sae, training: TrainingFacts, seed: int) -> Sae:
    if not sae.is_transcoder:
        return random_sae(sae, training.source.mean, seed)
    gain = training.target.median_norm / training.source.median_norm
    return random_transcoder(sae, training.source.mean, training.target.mean, gain, seed)


def _evaluate_corpus(
    subject: JudgedSae,
    name: str,
    inputs: CorpusInputs,
    training: TrainingFacts,
    settings: Evaluation,
    batch_contexts: int,
) -> tuple[dict[str, Any], DocumentSums]:
    # Opened first: a damaged file is met before the long pass, not after it.
    references = None
    if inputs.references is not None:
        references = References.open(inputs.references, subject.hooks.target, inputs.shards[0].identity)
    atlas_sums, guide_sums, random_sums = _pass_over_rows(subject, name, inputs.shards, training)
    atlas, reasons = atlas_sums.metrics(settings)
    losses, loss_reasons, splice = _losses(subject, inputs, references, training, settings, batch_contexts)
    guide, guide_reasons = guide_sums.metrics(subject.redundancy["absorption_guide"]["value"])
    outcome = {
        "atlas": judge(atlas_evidence(atlas | losses, subject.redundancy), settings.taxonomy),
        "guide": judge(guide_evidence(guide, subject.redundancy), settings.taxonomy),
    }
    result = {
        "role": inputs.role,
        "fingerprint": inputs.shards[0].identity["corpus_fingerprint"],
        "n_tokens": sum(shard.n_rows for shard in inputs.shards),
        "n_counted": atlas_sums.firings.n_rows,
        "n_massive": atlas_sums.firings.n_rows - atlas_sums.firings.n_regular,
        "atlas": atlas | losses,
        "guide": guide,
        "outcome": outcome,
        "reasons": reasons | loss_reasons | guide_reasons,
    }
    if random_sums is not None:
        result["random"] = _random_result(random_sums, subject, settings)
    return without_nonfinite(result, result["reasons"]), DocumentSums.of(atlas_sums.by_family(), splice)


def _losses(
    subject: JudgedSae,
    inputs: CorpusInputs,
    references: References | None,
    training: TrainingFacts,
    settings: Evaluation,
    batch_contexts: int,
) -> tuple[dict[str, Any], dict[str, str], LossTable | None]:
    """Loss metrics, reasons for what is None, and the losses of single units; these are None without a model."""
    if references is None:
        measures, reasons = no_losses(settings, "rows are planted: there is no language model, hence no loss")
        return with_clusters(measures, None), reasons, None
    assert not isinstance(subject.loaded, PlantedModel)  # a planted model has no reference losses
    splice = splice_losses(
        subject.loaded, subject.sae, str(subject.hooks), inputs.shards, references, batch_contexts, training
    )
    no_way = unreached(subject.loaded, subject.hooks.target, _counted(inputs.shards))
    measures, reasons = loss_metrics(splice, subject.loaded.objective, settings, no_way)
    return with_clusters(measures, Groups.of(splice.document).count), reasons, splice


def _counted(shards: Sequence[Shard]) -> Tensor:
    """Return which positions of each context count."""
    counted = np.concatenate([shard.counted for shard in shards])
    return torch.from_numpy(counted.reshape(-1, shards[0].context_length))


def _pass_over_rows(
    subject: JudgedSae, name: str, shards: Sequence[Shard], training: TrainingFacts
) -> tuple[AtlasSums, GuideSums, AtlasSums | None]:
    """One pass over all rows of a corpus feeds both protocols and the random dictionary."""
    device, sae, hooks = subject.loaded.device, subject.sae, subject.hooks
    center = training.target.mean.to(device)
    groups = Groups.of(np.concatenate([shard.document[shard.counted] for shard in shards]))
    atlas_sums = AtlasSums(sae, center, groups.count, subject.geometry)
    guide_sums = GuideSums(sae, center)
    random_sums = None if subject.baseline is None else AtlasSums(subject.baseline, center, groups.count, None)
    with progress(sum(shard.n_rows for shard in shards), f"evaluate {name}", "row") as shown:
        for shard, start, stop in row_chunks(shards, chunk_rows(sae)):
            rows = shard.read_rows(hooks.source, start, stop).to(device).float()
            targets = shard.read_rows(hooks.target, start, stop).to(device).float() if hooks.is_transcoder else rows
            pre = sae.pre_activations(rows)
            guide_sums.update(targets, pre, rows)
            counted = torch.from_numpy(shard.counted[start:stop]).to(device)
            massive = torch.from_numpy(_massive(shard, hooks, training)[start:stop]).to(device)[counted]
            document = groups.index(shard.document[start:stop][shard.counted[start:stop]])
            group = torch.from_numpy(document).to(device)
            encoded = rows[counted] if sae.needs_rows else None
            atlas_sums.update(targets[counted], pre[counted], massive, group, encoded)
            if random_sums is not None and subject.baseline is not None:
                random_pre = subject.baseline.pre_activations(rows[counted])
                random_sums.update(targets[counted], random_pre, massive, group)
            shown.update(stop - start)
    return atlas_sums, guide_sums, random_sums


def _massive(shard: Shard, hooks: SaeHooks, training: TrainingFacts) -> np.ndarray:
    """Return which rows are massive activations at either hook: training leaves out the same ones."""
    massive = shard.norms(hooks.source) > training.source.limit
    return massive | (shard.norms(hooks.target) > training.target.limit) if hooks.is_transcoder else massive


def _random_result(sums: AtlasSums, subject: JudgedSae, settings: Evaluation) -> dict[str, Any]:
    assert subject.baseline_redundancy is not None  # there is a random dictionary
    metrics, _ = sums.metrics(settings)
    names = ("explained_variance", "explained_variance_regular", "l0", "l0_regular")
    verdict = judge(atlas_evidence(metrics, subject.baseline_redundancy), settings.taxonomy)
    return {name: metrics[name] for name in names} | {"outcome": verdict}


def _load(folder: Path, recipe: Recipe | None, hooks: SaeHooks) -> Sae:
    try:
        sae = load_sae(folder)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    for key in ("architecture", "n_latents", "k") if recipe is not None else ():
        if getattr(sae, key) != getattr(recipe, key):
            raise EvaluationError(
                f"{folder}: {key} is {getattr(sae, key)!r}, but its recipe says {getattr(recipe, key)!r}: "
                "this SAE was trained by another recipe; delete the folder and run again"
            )
    if sae.is_transcoder != hooks.is_transcoder:
        kinds = {True: "a transcoder", False: "an SAE"}
        raise EvaluationError(
            f"{folder}: holds {kinds[sae.is_transcoder]}, but {hooks} is to be judged, which is "
            f"{kinds[hooks.is_transcoder]}; delete the folder and run again"
        )
    return sae


def _require_consistent(
    sae: Sae,
    loaded: LoadedModel | PlantedModel,
    hooks: SaeHooks,
    corpora: Mapping[str, CorpusInputs],
    training: TrainingFacts,
) -> None:
    widths = {hooks.target: ("d_target", sae.d_target), hooks.source: ("d_model", sae.d_model)}
    seen = {fingerprint: f"training corpus {name!r}" for name, fingerprint in training.fingerprints.items()}
    for name, inputs in corpora.items():
        require_model(inputs.shards, loaded)
        for shard in inputs.shards:
            for hook, (size, expected) in widths.items():
                width = shard.read_rows(hook, 0, 1).shape[1]
                if width != expected:
                    raise EvaluationError(
                        f"corpus {name!r}: rows of {hook} have width {width}, but the SAE has {size} {expected}: "
                        "it was trained on another hook or model"
                    )
        fingerprint = inputs.shards[0].identity["corpus_fingerprint"]
        if fingerprint in seen:
            raise EvaluationError(
                f"{inputs.role} corpus {name!r}: its tokens are those of {seen[fingerprint]} (fingerprint "
                f"{fingerprint[:12]}…): results would not be out of sample; give it text of its own"
            )
        seen[fingerprint] = f"{inputs.role} corpus {name!r}"
