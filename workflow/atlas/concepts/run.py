"""Labelled concepts of one SAE: its latents as detectors, and as directions that steer text; docs/metrics.md,
section 19.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from atlas.activations.store import open_shards, shards_by_corpus
from atlas.codes.encode import random_dictionary
from atlas.concepts.detection import COMPARED, Detector, detect, directions_of, require_classes
from atlas.concepts.detection import METHODS as DETECTORS
from atlas.concepts.steering import METHODS as DIRECTIONS
from atlas.concepts.steering import Judge, Texts, choose_prompts, continued, over, scores, steer
from atlas.config.causal import Concepts
from atlas.config.downstream import Probing
from atlas.errors import CausalError
from atlas.evaluation.facts import TrainingFacts
from atlas.evaluation.references import require_model
from atlas.files import write_json
from atlas.folder import Folder
from atlas.hook_points import SaeHooks
from atlas.latents.embedder import SentenceEmbedder
from atlas.models.load import LoadedModel, in_float32, load_model
from atlas.prepared import read_identity
from atlas.probing.datasets import opened, read_datasets
from atlas.probing.probes import Split, stratified_split
from atlas.probing.rows import LabelledRows, read_facts, read_rows
from atlas.probing.run import open_sae
from atlas.progress import progress
from atlas.training.sae import Sae

log = logging.getLogger(__name__)

# Part of the seed of draws.
_STEERED = 18

Embed = Callable[[Sequence[str]], Float[np.ndarray, "texts width"]]


@dataclass(frozen=True, eq=False)
class Labelled:
    """One data set: rows that are read, rows where directions are added, and the texts of a judge with their class."""

    source: LabelledRows
    target: LabelledRows
    classes: Sequence[str]
    texts: Sequence[str] | None = None

    @property
    def labels(self) -> np.ndarray:
        """Return true for each text of the second class."""
        return self.source.labels.numpy().astype(bool)


def run_concepts(
    *,
    model: Path,
    rows: Path,
    sae_folder: Folder,
    train_shards: list[Path],
    shards: list[Path],
    source: list[Path],
    embedder: list[Path],
    hook: str,
    seed: int,
    concepts: Concepts,
    probing: Probing,
    device: torch.device,
    result: Path,
) -> None:
    """Write concepts.json of one SAE: detection on every data set of `rows`, steering on some of them.

    `rows` are labelled activations (`make_probe_rows` with the same settings), `shards` the held-out text whose
    beginnings are continued, `source` the labelled texts, `embedder` the sentence encoder of the judge or nothing.
    Raises CausalError, before anything is computed, for a data set without both classes or with too few texts, and for
    rows of other texts. Where nothing can be steered, `steering` holds the reason.
    """
    hooks, facts = SaeHooks.parse(hook), read_facts(rows)
    names = list(facts["datasets"])
    sae = open_sae(sae_folder, hook, device)
    sets = {
        name: Labelled(read_rows(rows, name, hooks.source), read_rows(rows, name, hooks.target), facts["classes"][name])
        for name in names
    }
    for name, data in sets.items():
        require_classes(name, data.labels, probing.test_share)
    reason = _why_not_steered(model, embedder, concepts)
    steered = [] if reason else _drawn(names, concepts.steered, seed)
    # What steering reads is verified before anything is computed.
    prompts = choose_prompts(open_shards(shards), concepts, seed) if steered else None
    texts = _texts(probing, source, steered, sets)
    training = TrainingFacts.of(shards_by_corpus(train_shards, {}), hook)
    randoms = [random_dictionary(sae, training, seed + split) for split in range(probing.splits)]
    detection, detectors = {}, {}
    with progress(len(names), f"detection {hook}", "data set") as shown:
        for name, data in sets.items():
            numbers, detectors[name] = detect(data.source, sae, randoms, probing.test_share)
            detection[name] = _described(data, detectors[name]) | numbers
            shown.update(1)
    found: dict[str, Any] = {"reason": reason}
    if reason:
        log.warning("%s: no steering: %s", hook, reason)
    if prompts is not None:
        loaded = in_float32(load_model(model, device))
        require_model(open_shards(shards), loaded)
        bench = SteeringSetup(loaded, hooks.target, prompts, training.target.median_norm, concepts, seed)
        embed = SentenceEmbedder.load(embedder[0], device)
        chosen = {
            name: Labelled(sets[name].source, sets[name].target, sets[name].classes, texts[name]) for name in steered
        }
        found |= steering(bench, sae, chosen, {name: detectors[name] for name in steered}, embed, probing.test_share)
    write_json(
        result,
        {
            "sae_id": "/".join(sae_folder.parts[-5:]),
            "detection": {"datasets": detection, "(all)": over_datasets(detection)},
            "steering": found,
        },
    )


@dataclass(frozen=True, eq=False)
class SteeringSetup:
    """Input that steering of all data sets shares: the model in float32, the hook, prompts, and norms at strength 1."""

    loaded: LoadedModel
    hook: str
    prompts: torch.Tensor
    norm: float
    settings: Concepts
    seed: int


def steering(
    bench: SteeringSetup,
    sae: Sae,
    sets: Mapping[str, Labelled],
    detectors: Mapping[str, Detector | None],
    embed: Embed,
    test_share: float,
) -> dict[str, Any]:
    """Steering scores of data sets, and means over those that have them.

    Directions come from the training texts of the first split, the judge from its held-out texts: nothing that it
    learnt from was seen by a direction.
    """
    clean = continued(bench.loaded, bench.hook, bench.prompts, bench.settings.new_tokens)
    clean_vectors, found = embed(clean.texts), {}
    with progress(len(sets), f"steering {bench.hook}", "data set") as shown:
        for place, (name, data) in enumerate(sets.items()):
            found[name] = _steered(bench, sae, data, detectors[name], embed, clean, clean_vectors, test_share, place)
            shown.update(1)
    measured = [each for each in found.values() if each["reason"] is None]
    return {"datasets": found, "(all)": _over_steered(measured, bench.settings), "n_measured": len(measured)}


def _steered(
    bench: SteeringSetup,
    sae: Sae,
    data: Labelled,
    detector: Detector | None,
    embed: Embed,
    clean: Texts,
    clean_vectors: np.ndarray,
    test_share: float,
    place: int,
) -> dict[str, Any]:
    if detector is None:
        return {"reason": "no latent fires on the training texts", "judge_auc": None, "strengths": {}}
    split = stratified_split(data.labels, test_share, 0)
    judge = _judge(data, detector, split, bench.settings, embed)
    if not judge.tells(bench.settings.min_judge_auc):
        reason = f"the judge has AUC {judge.auc:.3f}, needed is {bench.settings.min_judge_auc:g}"
        return {"reason": reason, "judge_auc": judge.auc, "strengths": {}}
    directions = directions_of(detector, sae.to("cpu"), data.target, split)
    generated = steer(
        bench.loaded, bench.hook, bench.prompts, directions, bench.norm, bench.settings, bench.seed, place
    )
    strengths = {}
    for strength, methods in generated.items():
        judged = {name: judge(embed(each.texts)) for name, each in methods.items() if isinstance(each, Texts)}
        strengths[str(strength)] = scores(clean, methods, judged, judge(clean_vectors))
    cosine = float(directions["latent"] @ directions["diffmean"])
    return {
        "reason": None,
        "judge_auc": judge.auc,
        "clean_score": float(judge(clean_vectors).mean()),
        "cosine": cosine,
        "strengths": strengths,
    }


def _judge(data: Labelled, detector: Detector, split: Split, settings: Concepts, embed: Embed) -> Judge:
    labels = data.labels[split.test] == detector.fires_in
    kept = split.test
    if len(kept) > settings.judge_texts:
        part = stratified_split(labels, settings.judge_texts / len(kept), 0).test
        kept, labels = kept[part], labels[part]
    assert data.texts is not None  # read for data sets that are steered
    return Judge.of(embed([data.texts[int(place)] for place in kept]), labels)


def _why_not_steered(model: Path, embedder: Sequence[Path], settings: Concepts) -> str | None:
    objective = read_identity(model)["objective"]
    if settings.steered == 0:
        return "concepts.steered is 0"
    if objective != "causal_lm":
        return f"{model.name} has objective {objective!r}: only a causal_lm generates text"
    return None if embedder else "latents.embedder is null: no sentence encoder judges the text"


def _drawn(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Data sets that are steered, drawn before anything is known of them, in their own order."""
    order = np.random.Generator(np.random.PCG64([seed, _STEERED])).permutation(len(names))[:count]
    return [names[int(place)] for place in sorted(order.tolist())]


def _texts(
    probing: Probing, source: Sequence[Path], names: Sequence[str], sets: Mapping[str, Labelled]
) -> dict[str, list[str]]:
    """Texts of the rows of some data sets; raises CausalError when there are others than were read."""
    if not names:
        return {}
    if not source:
        raise CausalError("probing.source is on a hub: give a package or a folder of data sets")
    found = {}
    with opened(probing, source[0]) as folder:
        for prompts in read_datasets(probing.model_copy(update={"datasets": tuple(names)}), folder):
            if not np.array_equal(prompts.labels, sets[prompts.name].labels):
                raise CausalError(
                    f"data set {prompts.name!r}: its texts are others than those whose activations were read; delete "
                    "rows.safetensors of this model and run again"
                )
            found[prompts.name] = prompts.texts
    return found


def _described(data: Labelled, detector: Detector | None) -> dict[str, Any]:
    """Say what a data set's detector is: its latent, and the class in which it fires more."""
    about = {"latent": None, "fires_in": None}
    if detector is not None:
        about = {"latent": detector.latent, "fires_in": data.classes[detector.fires_in]}
    return {"n_texts": len(data.labels), "detector": about}


def over_datasets(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over data sets of AUCs and differences, with intervals over data sets."""
    keys = [*DETECTORS, *(f"minus_{other}" for other in COMPARED)]
    return {key: over(np.array([each[key]["value"] for each in found.values()])) for key in keys}


def _over_steered(found: Sequence[Mapping[str, Any]], settings: Concepts) -> dict[str, Any]:
    """The same of steering, by strength; a method is the mean over the data sets where the model did not overflow."""
    result: dict[str, Any] = {}
    for strength in map(str, settings.strengths):
        each = [one["strengths"][strength] for one in found]
        result[strength] = {}
        for method in DIRECTIONS:
            known = [one[method] for one in each if "score" in one[method]]
            if known:
                numbers = {name: over(np.array([one[name]["value"] for one in known])) for name in ("score", "loss")}
                result[strength][method] = numbers | {"distinct": float(np.mean([one["distinct"] for one in known]))}
        for key in (f"minus_{other}" for other in DIRECTIONS[1:]):
            known = [one[key]["value"] for one in each if key in one]
            if known:
                result[strength][key] = over(np.array(known))
    return result
