"""Latents in the JSON of SAEDashboard's Neuronpedia batches, for tools that read those.

Field names and meanings: `NeuronpediaDashboardBatch` in sae_dashboard/neuronpedia/neuronpedia_dashboard.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atlas.files import atomic_path, write_plain_json
from atlas.hook_points import HookPoint
from atlas.sae_ids import SaeId
from atlas.site.contexts import Context, RowFirings
from atlas.site.latent import Scene
from atlas.site.logits import Logits

BATCH_LATENTS = 128
# As SAEDashboard marks the strongest contexts, which are of no stratum.
_TOP = {"bin_min": -1.0, "bin_contains": -1.0}


def write_neuronpedia(scene: Scene, sae_id: str, target: Path) -> None:
    """Write batch-0.json, batch-1.json, …, in a folder: all latents that have a page, silent ones without contexts."""
    own = SaeId.parse(sae_id)
    head = {
        "model_id": own.model,
        # As SAEDashboard, of a transcoder the layer that it reads.
        "layer": HookPoint.parse(own.hooks.source).layer,
        "sae_set": f"{own.hooks}-{own.mix}-{own.recipe}-seed-{own.seed}",
    }
    with atomic_path(target) as folder:
        folder.mkdir(parents=True)
        batch: list[dict[str, Any]] = []
        number = 0
        for firings in scene.corpora.firings():
            if firings.latent in scene.links.pages:
                batch.append(feature(scene, firings))
            if len(batch) == BATCH_LATENTS or (batch and firings.latent == scene.tables.n_latents - 1):
                write_plain_json(folder / f"batch-{number}.json", head | {"features": batch})
                batch, number = [], number + 1


def feature(scene: Scene, firings: RowFirings) -> dict[str, Any]:
    """One latent; what this workflow does not compute (neuron alignment, correlated neurons) is empty."""
    latent, tables = firings.latent, scene.tables
    counts, edges = firings.histogram()
    own = tables.of(latent)
    n_tokens = sum(row["n_tokens"] for row in own.values())
    contexts = scene.corpora.contexts(firings, scene.contexts)
    empty = ("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1")
    empty += ("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson")
    empty += ("correlated_features_l1", "correlated_features_pearson", "decoder_weights_dist")
    return {
        "feature_index": latent,
        **{name: [] for name in empty},
        "correlated_features_indices": scene.nearest[latent].tolist(),
        **_logits(scene, scene.logits, latent),
        "frac_nonzero": len(firings.value) / n_tokens,
        "freq_hist_data_bar_values": _rounded((edges[1:] + edges[:-1]) / 2) if len(firings.value) else [],
        "freq_hist_data_bar_heights": counts.tolist() if len(firings.value) else [],
        "n_prompts_total": sum(codes.n_rows // codes.context_length for codes in scene.corpora.codes),
        "n_tokens_in_prompt": scene.corpora.codes[0].context_length,
        "dataset": ", ".join(scene.corpora.names),
        "activations": [_activation(scene, context) for context in contexts],
    }


def _logits(scene: Scene, logits: Logits | None, latent: int) -> Mapping[str, Any]:
    names = (
        "pos_str",
        "pos_values",
        "neg_str",
        "neg_values",
        "logits_hist_data_bar_heights",
        "logits_hist_data_bar_values",
    )
    if logits is None:
        return {name: [] for name in names}
    texts = [
        [scene.pieces.text(token) for token in row[latent].tolist()] for row in (logits.promoted, logits.suppressed)
    ]
    edges = logits.edges[latent]
    values = (
        texts[0],
        _rounded(logits.promoted_values[latent]),
        texts[1],
        _rounded(logits.suppressed_values[latent]),
        logits.counts[latent].tolist(),
        _rounded((edges[1:] + edges[:-1]) / 2),
    )
    return dict(zip(names, values, strict=True))


def _activation(scene: Scene, context: Context) -> dict[str, Any]:
    tokens = scene.corpora.tokens(context.corpus, context.start, context.start + len(context.values))
    bounds = {"bin_min": context.low, "bin_max": context.high, "bin_contains": context.share}
    if context.stratum == 0:
        bounds = _TOP | {"bin_max": context.high}
    return bounds | {"tokens": [scene.pieces.text(token) for token in tokens], "values": _rounded(context.values)}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 3) for value in np.asarray(values)]
