"""Sparse probes of one SAE on every data set, beside a random dictionary, raw activations and shuffled labels."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.store import shards_by_corpus
from atlas.codes.encode import random_dictionary
from atlas.config.downstream import Absorption, Probing
from atlas.errors import EvaluationError, TrainingError
from atlas.evaluation.chunks import chunk_rows, fill
from atlas.evaluation.facts import TrainingFacts
from atlas.files import write_json
from atlas.folder import Folder
from atlas.hook_points import SaeHooks
from atlas.probing.probes import (
    Score,
    Split,
    dense_strength,
    n_reaching,
    n_split,
    probe_score,
    ranked_latents,
    stratified_split,
)
from atlas.probing.rows import LabelledRows, read_facts, read_rows
from atlas.progress import progress
from atlas.statistics.clusters import cluster_interval
from atlas.statistics.intervals import normal_interval
from atlas.training.sae import Sae, load_sae

SOURCES = ("sae", "random", "raw", "shuffled")
_ALL = "(all)"


def run_probing(
    sae_folder: Folder,
    rows_file: Path,
    train_shards: list[Path],
    *,
    hook: str,
    seed: int,
    settings: Probing,
    device: torch.device,
    target: Path,
) -> None:
    """Write probing.json of one SAE or transcoder, whose latents read rows of its first hook."""
    sae = open_sae(sae_folder, hook, device)
    training = TrainingFacts.of(shards_by_corpus(train_shards, {}), hook)
    randoms = [random_dictionary(sae, training, seed + split) for split in range(settings.splits)]
    facts, results = read_facts(rows_file), {}
    with progress(len(facts["datasets"]), "probe", "data set") as shown:
        for name in facts["datasets"]:
            data = read_rows(rows_file, name, SaeHooks.parse(hook).source)
            results[name] = probe_dataset(data, sae, randoms, settings)
            shown.update(1)
    write_json(target, {"datasets": results, _ALL: over_datasets(results), "hook": hook})


def open_sae(folder: Path, hook: str, device: torch.device) -> Sae:
    """Load an SAE and check that it is what its hook says; raises EvaluationError."""
    try:
        sae = load_sae(folder).to(device)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    if sae.is_transcoder != SaeHooks.parse(hook).is_transcoder:
        raise EvaluationError(f"{folder}: is_transcoder is {sae.is_transcoder}, but it is kept under {hook}")
    return sae


@torch.inference_mode()
def encode_rows(sae: Sae, rows: Float[Tensor, "rows d_model"]) -> Float[np.ndarray, "rows n_latents"]:
    """Latents of the inference path as float32; raises EvaluationError for rows of another width."""
    if rows.shape[1] != sae.d_model:
        raise EvaluationError(f"rows have width {rows.shape[1]}, the SAE reads {sae.d_model}: another hook or model")
    result = torch.empty(len(rows), sae.n_latents)
    fill(result, rows, chunk_rows(sae), lambda chunk: sae.encode(chunk.to(sae.W_enc.device)))
    return result.numpy()


def probe_dataset(data: LabelledRows, sae: Sae, randoms: list[Sae], settings: Probing) -> dict[str, Any]:
    """All numbers of one data set; split s has the s-th random dictionary, so its spread includes the draw's."""
    labels, raw = data.labels.numpy().astype(bool), data.rows.numpy()
    latents = encode_rows(sae, data.rows)
    splits = [stratified_split(labels, settings.test_share, split) for split in range(settings.splits)]
    strength = dense_strength(raw, labels, splits[0], seed=0)
    few = range(1, min(settings.max_split_latents, sae.n_latents) + 1)
    scores: dict[str, list[dict[int, Score]]] = {source: [] for source in SOURCES}
    dense = []
    for number, split in enumerate(splits):
        shuffled = np.random.Generator(np.random.PCG64([1, number])).permutation(labels)
        random = encode_rows(randoms[number], data.rows)
        scores["sae"].append(_path(latents, labels, split, {*few, *settings.ks}))
        scores["random"].append(_path(random, labels, split, {*few, *settings.ks}))
        scores["raw"].append(_path(raw, labels, split, settings.ks))
        scores["shuffled"].append(_path(latents, shuffled, split, settings.ks))
        dense.append(probe_score(raw, labels[split.train], labels[split.test], split, strength))
    whole = _summary(dense) | {"f1": _mean_f1(dense)}
    spread = {}
    for source in ("sae", "random"):
        f1 = [_mean_f1([path[k] for path in scores[source]]) for k in few]
        spread[source] = fragmentation(f1, whole["f1"], settings)
        if whole["auc"] < settings.min_dense_auc:
            reason = f"the dense probe has AUC {whole['auc']:.3f}, below {settings.min_dense_auc:g}"
            spread[source] |= {"n_split": None, "n_to_dense": None, "reason": reason}
    return {
        "n_prompts": len(labels),
        "dense": whole,
        "k": {str(k): _at_k(scores, k) for k in settings.ks},
        "fragmentation": spread,
    }


def _path(latents: np.ndarray, labels: np.ndarray, split: Split, ks: Iterable[int]) -> dict[int, Score]:
    """Scores with the k best latents for each k; latents are chosen, and probes fitted, on training rows alone."""
    train, test = labels[split.train], labels[split.test]
    order = ranked_latents(latents[split.train], train)
    return {k: probe_score(latents[:, order[:k]], train, test, split) for k in sorted(ks)}


def _at_k(scores: Mapping[str, list[dict[int, Score]]], k: int) -> dict[str, Any]:
    by_source = {source: [path[k] for path in paths] for source, paths in scores.items()}
    result: dict[str, Any] = {source: _summary(each) for source, each in by_source.items()}
    for baseline in ("random", "raw"):
        pairs = [(own.auc, other.auc) for own, other in zip(by_source["sae"], by_source[baseline], strict=True)]
        value = float(np.mean([own.value - other.value for own, other in pairs]))
        variance = float(np.mean([own.variance_of_difference(other) for own, other in pairs]))
        result[f"minus_{baseline}"] = {"value": value, "interval": normal_interval(value, variance, -1.0, 1.0)}
    return result


def _summary(scores: list[Score]) -> dict[str, Any]:
    """Mean AUC over splits, the sampling interval that one split has, and the spread between splits."""
    values = [score.auc.value for score in scores]
    value, variance = float(np.mean(values)), float(np.mean([score.auc.variance for score in scores]))
    interval = normal_interval(value, variance, 0.0, 1.0)
    return {"auc": value, "interval": interval, "split_sd": float(np.std(values, ddof=1))}


def _mean_f1(scores: list[Score]) -> float:
    return float(np.mean([score.f1 for score in scores]))


def fragmentation(f1: list[float], dense_f1: float, settings: Probing | Absorption) -> dict[str, Any]:
    """Over how many latents a label is spread; `f1` is that of 1, 2, … latents."""
    reached = n_reaching(f1, dense_f1 - settings.f1_gap)
    reason = f"F1 is {max(f1):.3f} at best with up to {len(f1)} latents, {dense_f1:.3f} of the dense probe"
    return {
        "n_split": n_split(f1, settings.f1_jump),
        "n_to_dense": reached,
        "best_f1": max(f1),
        "reason": None if reached is not None else reason,
    }


def over_datasets(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over data sets with intervals over data sets drawn again; None with fewer than two."""
    names, (first, *_) = list(results), results.values()
    summary: dict[str, Any] = {"dense": _over([results[name]["dense"]["auc"] for name in names]), "k": {}}
    for k, one in first["k"].items():
        summary["k"][k] = {}
        for key in one:
            values = [results[name]["k"][k][key] for name in names]
            summary["k"][k][key] = _over([value.get("auc", value.get("value")) for value in values])
    return summary


def _over(values: list[float]) -> dict[str, Any]:
    array = np.array(values)
    interval = cluster_interval(lambda draws: draws @ array / draws.sum(1), len(array))
    return {"value": float(array.mean()), "interval": interval}
