"""First-letter absorption of one SAE, beside a random dictionary and the raw activation's own dimensions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int

from atlas.absorption.letters import LetterProbe, candidates, dense_probe, few_latents_f1, main_latents
from atlas.absorption.measure import word_absorption
from atlas.absorption.words import GROUP, LETTERS
from atlas.activations.store import shards_by_corpus
from atlas.codes.encode import random_dictionary
from atlas.config.downstream import Absorption
from atlas.evaluation.facts import TrainingFacts
from atlas.files import read_json, write_json
from atlas.folder import Folder
from atlas.hook_points import SaeHooks
from atlas.probing.probes import Split, stratified_split
from atlas.probing.rows import LabelledRows, read_facts, read_rows
from atlas.probing.run import encode_rows, fragmentation, open_sae
from atlas.progress import progress
from atlas.statistics.clusters import cluster_interval
from atlas.training.sae import Sae

DICTIONARIES = ("sae", "random", "raw")
MEASURES = ("mean_absorption_fraction", "full_absorption_rate")


@dataclass(frozen=True)
class Dictionary:
    """Latents of all words and the directions that they write."""

    latents: Float[np.ndarray, "words n_latents"]
    W_dec: Float[np.ndarray, "n_latents d_model"]


@dataclass(frozen=True)
class LetterResult:
    """One letter in one split: F1 of its dense probe and of 1, 2, … latents, how many split it, absorption by word."""

    letter: str
    probe_f1: float
    f1: list[float]
    n_split: int
    fraction: Float[np.ndarray, " words"]
    full: Float[np.ndarray, " words"]


def run_raw_absorption(
    rows_file: Path,
    train_shards: list[Path],
    *,
    hook: str,
    settings: Absorption,
    target: Path,
) -> None:
    """Write raw.json: the numbers of the raw activation's dimensions, which all SAEs of a hook and mix stand beside.

    Null where `run_absorption` gives a reason.
    """
    if _why_not(rows_file, hook) is not None:
        write_json(target, {"raw": None})
        return
    training = TrainingFacts.of(shards_by_corpus(train_shards, {}), hook)
    write_json(
        target,
        {"raw": raw_absorption(read_rows(rows_file, GROUP, hook), training.source.mean, settings)},
    )


def run_absorption(
    sae_folder: Folder,
    rows_file: Path,
    raw_file: Path,
    train_shards: list[Path],
    *,
    hook: str,
    seed: int,
    settings: Absorption,
    device: torch.device,
    target: Path,
) -> None:
    """Write absorption.json of one SAE; null with the reason for a transcoder and where the model has no such rows.

    `raw_file` is what `run_raw_absorption` wrote from the same rows and shards.
    """
    if (reason := _why_not(rows_file, hook)) is not None:
        write_json(target, dict.fromkeys(DICTIONARIES) | {"valid": False, "reasons": [reason], "letters": []})
        return
    sae = open_sae(sae_folder, hook, device)
    training = TrainingFacts.of(shards_by_corpus(train_shards, {}), hook)
    randoms = [random_dictionary(sae, training, seed + split) for split in range(settings.splits)]
    found = absorption(read_rows(rows_file, GROUP, hook), sae, randoms, settings)
    write_json(target, found | {"raw": read_json(raw_file)["raw"]})


def _why_not(rows_file: Path, hook: str) -> str | None:
    """Return why the measure has no meaning for an SAE at `hook`; None where it has."""
    if SaeHooks.parse(hook).is_transcoder:
        return "a transcoder writes into another space than the letter's probe is of"
    return read_facts(rows_file)["reason"]


def absorption(data: LabelledRows, sae: Sae, randoms: list[Sae], settings: Absorption) -> dict[str, Any]:
    """All numbers of one SAE; split s has the s-th random dictionary and probes of its own."""
    rows, letters = data.rows.numpy(), data.labels.numpy()
    own = _dictionary(sae, data)
    by_split: dict[str, list[list[LetterResult]]] = {"sae": [], "random": []}
    counts = []
    for number, (split, probes) in enumerate(_splits(rows, letters, settings, "absorption")):
        counts.append(sum(probe.f1 > settings.min_f1 for probe in probes.values()))
        for name, dictionary in (("sae", own), ("random", _dictionary(randoms[number], data))):
            by_split[name].append(_measure_letters(rows, letters, dictionary, split, probes, settings))
    return _report(by_split, counts, settings)


def raw_absorption(
    data: LabelledRows, mean: Float[torch.Tensor, " d_model"], settings: Absorption
) -> dict[str, Any] | None:
    """The same of `raw_dictionary`, in the same splits; None when a split has no letter."""
    rows, letters = data.rows.numpy(), data.labels.numpy()
    raw = raw_dictionary(rows, mean.cpu().numpy())
    splits = _splits(rows, letters, settings, "raw dimensions")
    results = [_measure_letters(rows, letters, raw, split, probes, settings) for split, probes in splits]
    return _summary(results)


def _splits(
    rows: np.ndarray, letters: np.ndarray, settings: Absorption, title: str
) -> Iterator[tuple[Split, dict[int, LetterProbe]]]:
    """Each split with the dense probes of its letters."""
    with progress(settings.splits, title, "split") as shown:
        for number in range(settings.splits):
            split = stratified_split(letters, settings.test_share, number)
            yield split, {letter: dense_probe(rows, letters == letter, split) for letter in _letters(letters, split)}
            shown.update(1)


def _dictionary(sae: Sae, data: LabelledRows) -> Dictionary:
    return Dictionary(encode_rows(sae, data.rows), sae.W_dec.cpu().numpy())


def raw_dictionary(rows: Float[np.ndarray, "words d_model"], mean: Float[np.ndarray, " d_model"]) -> Dictionary:
    """The dimensions of the raw activation as a dictionary: each direction and its opposite, around the mean."""
    centred, eye = rows - mean, np.eye(rows.shape[1], dtype=np.float32)
    return Dictionary(np.maximum(np.concatenate([centred, -centred], axis=1), 0), np.concatenate([eye, -eye]))


def _letters(letters: Int[np.ndarray, " words"], split: Split) -> list[int]:
    """Letters with words on both sides; with one word alone there is nothing to test on."""
    return sorted(set(letters[split.train].tolist()) & set(letters[split.test].tolist()))


def _measure_letters(
    rows: np.ndarray,
    letters: np.ndarray,
    dictionary: Dictionary,
    split: Split,
    probes: Mapping[int, LetterProbe],
    settings: Absorption,
) -> list[LetterResult]:
    """Letters whose dense probe works and that have a latent of their own; on test words where the probe is right."""
    results = []
    for letter, probe in probes.items():
        is_letter = letters == letter
        right = split.test[is_letter[split.test] & (probe.scores[split.test] > 0)]
        if probe.f1 <= settings.min_f1 or not len(right):
            continue
        chosen = candidates(dictionary.latents, is_letter, split, settings.max_split_latents)
        if not len(chosen):
            continue
        f1 = few_latents_f1(dictionary.latents, chosen, is_letter, split)
        main = main_latents(chosen, f1, settings.f1_jump)
        found = word_absorption(rows[right], dictionary.latents[right], dictionary.W_dec, probe.direction, main)
        results.append(
            LetterResult(LETTERS[letter], probe.f1, f1, len(main), found.fraction, found.full.astype(np.float64))
        )
    return results


def _report(
    by_split: Mapping[str, list[list[LetterResult]]], counts: list[int], settings: Absorption
) -> dict[str, Any]:
    enough = min(counts) >= settings.min_letters
    reasons = (
        []
        if enough
        else [
            f"{min(counts)} letters have a probe with F1 above {settings.min_f1:g} in the worst of {len(counts)} "
            f"splits; {settings.min_letters} are needed"
        ]
    )
    measured = min(len(split) for split in by_split["sae"])
    if measured < settings.min_letters:
        reasons.append(f"{measured} letters have such a probe and a latent that speaks for them")
    summary = {name: _summary(splits) for name, splits in by_split.items()}
    return summary | {
        "valid": not reasons,
        "reasons": reasons,
        "n_letters_with_probe": counts,
        "letters": [_letter(result, settings) for result in by_split["sae"][0]],
    }


def _summary(splits: list[list[LetterResult]]) -> dict[str, Any] | None:
    """Means over letters, then over splits; None when a split has no letter."""
    if not all(splits):
        return None
    result: dict[str, Any] = {"n_letters": [len(split) for split in splits]}
    for name, key in zip(MEASURES, ("fraction", "full"), strict=True):
        by_letter = [{letter.letter: getattr(letter, key).mean() for letter in split} for split in splits]
        values = [float(np.mean(list(letters.values()))) for letters in by_letter]
        result[name] = {
            "value": float(np.mean(values)),
            "interval": _interval(by_letter),
            "split_sd": float(np.std(values, ddof=1)),
        }
    split_counts = [float(np.mean([letter.n_split for letter in split])) for split in splits]
    result["n_split"] = {"value": float(np.mean(split_counts)), "split_sd": float(np.std(split_counts, ddof=1))}
    return result


def _interval(splits: list[dict[str, float]]) -> list[float] | None:
    """95 % interval over letters drawn again, the same ones in every split."""
    letters = sorted({letter for split in splits for letter in split})
    values = np.array([[split.get(letter, 0.0) for letter in letters] for split in splits])
    known = np.array([[letter in split for letter in letters] for split in splits])
    return cluster_interval(lambda draws: ((draws @ values.T) / (draws @ known.T)).mean(1), len(letters))


def _letter(result: LetterResult, settings: Absorption) -> dict[str, Any]:
    return {
        "letter": result.letter,
        "probe_f1": result.probe_f1,
        "n_words": len(result.fraction),
        "mean_absorption_fraction": float(result.fraction.mean()),
        "full_absorption_rate": float(result.full.mean()),
        **fragmentation(result.f1, result.probe_f1, settings),
        "n_split": result.n_split,
    }
