"""Stability of one recipe over its seeds, from files: every SAE against every other seed."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from atlas.codes.encode import sae_sha256
from atlas.codes.store import Codes
from atlas.config.downstream import Stability
from atlas.errors import EvaluationError, TrainingError
from atlas.files import read_json, write_json
from atlas.folder import Folder
from atlas.stability.firing import Firing, firing_jaccard
from atlas.stability.measures import MEASURES, Directions, Likeness, ceiling, isotropic_nulls, spectrum_nulls
from atlas.statistics.clusters import MAX_GROUPS, cluster_interval, half_width
from atlas.statistics.ranks import rank_correlation
from atlas.tables import write_parquet
from atlas.training.sae import load_sae

log = logging.getLogger(__name__)

# The metric whose noise over seeds is held against the noise of the evaluation text.
NOISE_METRIC = "explained_variance_regular"
ONE_SEED = (
    "one seed only: stability compares trainings that differ in the seed; give rows that are trained here two or more "
    "seeds (a published SAE has one)"
)


@dataclass(frozen=True)
class SeedFiles:
    """Of one seed: SAE folder, its codes on the in-sample corpus, its metrics.json."""

    sae: Folder
    codes: Path
    metrics: Path


@dataclass(frozen=True)
class SeedDictionary:
    """One seed's dictionary: its directions, who fires, and the mask of latents that fire at all."""

    directions: Directions
    firing: Firing
    alive: np.ndarray


def run_stability(
    files: Mapping[int, SeedFiles],
    corpus: str,
    settings: Stability,
    device: torch.device,
    summary: Path,
    table: Path,
) -> None:
    """Write stability.json and latents.parquet for the seeds of one model, hook, mix and recipe.

    Raises EvaluationError when shapes or corpora differ between seeds, StoreError for damaged codes.
    """
    members = {seed: _open(seed, files[seed], device) for seed in sorted(files)}
    _require_comparable(members, files)
    metrics = {seed: read_json(files[seed].metrics)["corpora"][corpus]["atlas"] for seed in members}
    likeness = {
        (seed, other): _likeness(members[seed], members[other], settings)
        for seed in members
        for other in members
        if seed != other
    }
    known: dict[tuple[int, int], list[dict[str, float]]] = {}
    result = {
        "seeds": list(members),
        "corpus": corpus,
        "n_rows": next(iter(members.values())).firing.n_rows,
        "noise": _noise(metrics),
        "saes": {str(seed): _summarise(seed, members, likeness, settings, known) for seed in members},
    }
    write_json(summary, result)
    write_parquet(table, _latent_table(members, likeness))


def _open(seed: int, files: SeedFiles, device: torch.device) -> SeedDictionary:
    try:
        sae = load_sae(files.sae).to(device)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    codes = Codes.open(files.codes, {"sae_sha256": sae_sha256(files.sae), "dictionary": "sae"})
    firing = Firing.of(codes)
    alive = firing.counts > 0
    log.info("seed %d: %d of %d latents fire on %d rows", seed, alive.sum(), len(alive), firing.n_rows)
    return SeedDictionary(Directions.of(sae.W_enc, sae.W_dec), firing, alive)


def _require_comparable(members: Mapping[int, SeedDictionary], files: Mapping[int, SeedFiles]) -> None:
    (first, reference), *others = members.items()
    for seed, member in others:
        for name in ("encoder", "decoder"):
            expected, found = getattr(reference.directions, name).shape, getattr(member.directions, name).shape
            if found != expected:
                raise EvaluationError(
                    f"{files[seed].sae}: {name} directions are {tuple(found)}, those of seed {first} are "
                    f"{tuple(expected)}: give one of the two a recipe of its own name"
                )
        if not np.array_equal(member.firing.group, reference.firing.group):
            raise EvaluationError(
                f"{files[seed].codes}: rows are not those of seed {first}, {files[first].codes}; delete the older and "
                "run again"
            )


def _likeness(first: SeedDictionary, second: SeedDictionary, settings: Stability) -> dict[str, Likeness]:
    """Among latents that fire, and among all: a latent that never fires is where its seed happened to put it."""
    limit = settings.exact_matching_up_to
    firing = Likeness.between(first.directions.only(first.alive), second.directions.only(second.alive), limit)
    everyone = first.alive.all() and second.alive.all()
    return {
        "firing": firing,
        "all": firing if everyone else Likeness.between(first.directions, second.directions, limit),
    }


def _summarise(
    seed: int,
    members: Mapping[int, SeedDictionary],
    likeness: Mapping[tuple[int, int], Mapping[str, Likeness]],
    settings: Stability,
    known: dict[tuple[int, int], list[dict[str, float]]],
) -> dict[str, Any]:
    """One SAE beside the other seeds. `known` keeps nulls by size: they depend on nothing else of one recipe."""
    own, others = members[seed], [other for other in members if other != seed]
    result: dict[str, Any] = {
        "n_latents": len(own.alive),
        "n_firing": int(own.alive.sum()),
        "other_seeds": others,
        "matching": None,
        "firing": None,
        "all": None,
        "firing_spearman_halves": own.firing.halves_spearman(own.alive),
        "firing_spearman_partners": None,
        "firing_jaccard_partners": None,
        "firing_jaccard_random": None,
        "reasons": {},
    }
    if not others:
        return result | {"reasons": {"stability": ONE_SEED}}
    silent = [one for one in (seed, *others) if not members[one].alive.any()]
    if silent:
        return result | {"reasons": {"stability": f"no latent of seed {silent[0]} fires on the corpus"}}
    pairs = [likeness[seed, other] for other in others]
    result["matching"] = pairs[0]["firing"].method
    for which in ("firing", "all"):
        first, seconds = _directions(own, which), [_directions(members[other], which) for other in others]
        group = [pair[which] for pair in pairs]
        limit, draws = settings.exact_matching_up_to, settings.null_dictionaries
        if which == "all" and all(pair["all"] is pair["firing"] for pair in pairs):
            result["all"] = result["firing"]
            continue
        for second in seconds:
            if (len(first), len(second)) not in known:
                known[len(first), len(second)] = isotropic_nulls(first, second, draws, limit)
        nulls = {
            "null": [known[len(first), len(second)] for second in seconds],
            "spectrum_null": [spectrum_nulls(first, second, draws, limit) for second in seconds],
        }
        ends = [ceiling(first, second, limit) for second in seconds]
        result[which] = {name: _measure(name, group, nulls, ends) for name in MEASURES}
    result |= _partners_fire(seed, members, {other: likeness[seed, other]["firing"] for other in others})
    result["reasons"] = _reasons(result, draws)
    return result


def _reasons(result: Mapping[str, Any], draws: int) -> dict[str, str]:
    reasons = {
        f"{which}_{name}_{null}_z": f"all {draws} random dictionaries score {result[which][name][f'{null}_mean']:g}"
        for which in ("firing", "all")
        for name in MEASURES
        for null in ("null", "spectrum_null")
        if result[which][name][f"{null}_z"] is None
    }
    for key in ("firing_spearman_halves", "firing_spearman_partners"):
        if result[key] is None:
            reasons[key] = "fewer than three latents or two documents, or all latents fire equally often"
    return reasons


def _directions(member: SeedDictionary, which: str) -> Directions:
    return member.directions.only(member.alive) if which == "firing" else member.directions


def _measure(
    name: str,
    pairs: list[Likeness],
    nulls: Mapping[str, list[list[dict[str, float]]]],
    ends: list[dict[str, float]],
) -> dict[str, Any]:
    """Mean over the other seeds, its interval over latents, the same of random dictionaries, and the ceiling."""
    value = float(np.mean([pair.values()[name] for pair in pairs]))
    result: dict[str, Any] = {
        "value": value,
        "interval": _interval([pair.per_latent()[name] for pair in pairs]),
        "ceiling": float(np.mean([end[name] for end in ends])),
    }
    for null, by_pair in nulls.items():
        draws = np.array([[draw[name] for draw in pair] for pair in by_pair]).mean(axis=0)
        mean, sd = float(draws.mean()), float(draws.std(ddof=1))
        z = (value - mean) / sd if sd > 0 else None
        result |= {f"{null}_mean": mean, f"{null}_sd": sd, f"{null}_z": z}
    return result


def _interval(latents: list[np.ndarray]) -> list[float] | None:
    """95 % interval over latents drawn again; latent i is drawn together with all i mod `MAX_GROUPS`."""
    n_groups = min(len(latents[0]), MAX_GROUPS)
    group = np.arange(len(latents[0])) % MAX_GROUPS
    sums = [np.bincount(group, np.nan_to_num(values), n_groups) for values in latents]
    counts = [np.bincount(group, ~np.isnan(values), n_groups) for values in latents]

    def mean(draws: np.ndarray) -> np.ndarray:
        return np.mean([(draws @ total) / (draws @ count) for total, count in zip(sums, counts, strict=True)], axis=0)

    return cluster_interval(mean, n_groups)


def _partners_fire(seed: int, members: Mapping[int, SeedDictionary], pairs: Mapping[int, Likeness]) -> dict[str, Any]:
    """Return whether a latent and its partner fire as often, and on the same rows; and on how many rows random pairs
    do.
    """
    own = members[seed]
    spearman, jaccard, null = [], [], []
    for other, pair in pairs.items():
        theirs = members[other]
        matched = pair.partner >= 0
        latents = np.flatnonzero(own.alive)[matched]
        partners = np.flatnonzero(theirs.alive)[pair.partner[matched]]
        spearman.append(rank_correlation(own.firing.counts[latents], theirs.firing.counts[partners]))
        jaccard.append(float(np.mean(firing_jaccard(own.firing, theirs.firing, latents, partners))))
        shuffled = np.random.Generator(np.random.PCG64(0)).permutation(partners)
        null.append(float(np.mean(firing_jaccard(own.firing, theirs.firing, latents, shuffled))))
    return {
        "firing_spearman_partners": None if None in spearman else float(np.mean(spearman)),
        "firing_jaccard_partners": float(np.mean(jaccard)),
        "firing_jaccard_random": float(np.mean(null)),
    }


def _noise(metrics: Mapping[int, Mapping[str, Any]]) -> dict[str, float | None]:
    """Standard deviation of the metric over seeds, and the one that another draw of evaluation documents would give.

    The second is read off the metric's interval over documents, mean over seeds.
    """
    values = [each[NOISE_METRIC] for each in metrics.values()]
    intervals = [each[f"{NOISE_METRIC}_interval"] for each in metrics.values()]
    errors = [2 * half_width(each[f"{NOISE_METRIC}_clusters"]) for each in metrics.values() if None not in intervals]
    known = len(values) > 1 and None not in values
    return {
        "seed_sd": float(np.std(values, ddof=1)) if known else None,
        "document_sd": float(np.mean([(high - low) / by for (low, high), by in zip(intervals, errors, strict=True)]))
        if errors
        else None,
    }


def _latent_table(
    members: Mapping[int, SeedDictionary], likeness: Mapping[tuple[int, int], Mapping[str, Likeness]]
) -> pd.DataFrame:
    """One row per latent and other seed; partners are null for latents that never fire or have none left."""
    columns = {"seed": "int64", "latent": "int64", "firings": "int64", "other_seed": "int64", "partner": "Int64"}
    columns |= {"decoder_cosine": "float64", "encoder_partner": "Int64", "encoder_cosine": "float64"}
    columns |= {"max_cosine": "float64", "shared": "boolean"}
    parts = [pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})]
    for (seed, other), pairs in likeness.items():
        own, theirs, pair = members[seed], members[other], pairs["firing"]
        n_latents, alive, names = len(own.alive), np.flatnonzero(own.alive), np.flatnonzero(theirs.alive)
        frame = pd.DataFrame(
            {"seed": seed, "latent": np.arange(n_latents), "firings": own.firing.counts, "other_seed": other}
        )
        for column, places in (("partner", pair.partner), ("encoder_partner", pair.encoder_partner)):
            known = places >= 0
            frame.loc[alive[known], column] = names[places[known]]
        for column in ("decoder_cosine", "encoder_cosine", "max_cosine", "shared"):
            frame.loc[alive, column] = getattr(pair, column)
        parts.append(frame[list(columns)].astype(columns))
    return pd.concat(parts, ignore_index=True)
