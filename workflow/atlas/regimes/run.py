"""The regime of one SAE from files: its metrics on held-out text, its silent latents on the training text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atlas.activations.store import shards_by_corpus
from atlas.config.shifts import Regimes
from atlas.config.study import Taxonomy
from atlas.errors import EvaluationError
from atlas.evaluation.outcome import atlas_evidence, judge
from atlas.evaluation.shift import fed_scaled
from atlas.evaluation.sparsity import sparsity_metrics
from atlas.files import read_json, write_json
from atlas.folder import Folder
from atlas.regimes.deadness import firings_on
from atlas.training.sae import load_sae


@dataclass(frozen=True)
class RegimeInputs:
    """Files of one look: SAE folder, its metrics.json, and the training shards of where it is judged."""

    sae: Folder
    metrics: Path
    train_shards: list[Path]


def run_regime(
    inputs: RegimeInputs,
    *,
    hook: str,
    scale: float,
    corpus: str,
    settings: Regimes,
    taxonomy: Taxonomy,
    device: torch.device,
    target: Path,
) -> None:
    """Write the outcome of an SAE on `corpus`, its dead latents counted on the training text.

    `hook` and `scale` say where it is judged, as in `run_evaluation`. Raises EvaluationError when the metrics are of
    another SAE or corpus, or the training text is shorter than the token counts; StoreError for damaged shards.
    """
    sae_id = "/".join(inputs.sae.parts[-5:])
    metrics = read_json(inputs.metrics)
    if metrics["sae_id"] != sae_id or corpus not in metrics["corpora"]:
        raise EvaluationError(
            f"{inputs.metrics}: is of {metrics['sae_id']!r} on {sorted(metrics['corpora'])}, expected {sae_id!r} on "
            f"{corpus!r}; delete this file and run again"
        )
    sae = fed_scaled(load_sae(inputs.sae), scale).to(device)
    shards = [shard for group in shards_by_corpus(inputs.train_shards, {}).values() for shard in group]
    judged = metrics["corpora"][corpus]
    counts = []
    for sums in firings_on(sae, shards, hook, settings.token_counts):
        found = sparsity_metrics(sums, metrics["k"], settings.dead_min_tokens)
        dead = {name: value for name, value in found.items() if name.startswith(("dead", "expected"))}
        # What would be said by someone who took every latent that is silent on so few tokens for dead.
        naive = _outcome(judged["atlas"] | dead | {"dead_status": "dead"}, metrics["redundancy"], taxonomy)
        counts.append(dead | {"outcome_if_silent_is_dead": naive})
    result = {
        "sae_id": sae_id,
        "corpus": corpus,
        "outcome": _outcome(judged["atlas"] | counts[-1], metrics["redundancy"], taxonomy),
        "deadness": counts,
    }
    write_json(target, result)


def _outcome(atlas: Mapping[str, Any], redundancy: Mapping[str, Any], taxonomy: Taxonomy) -> dict[str, Any]:
    return judge(atlas_evidence(dict(atlas), dict(redundancy)), taxonomy)
