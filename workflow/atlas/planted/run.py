"""Measure what one SAE found of a planted truth, from files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.store import Shard, shards_by_corpus
from atlas.config.corpora import Corpus
from atlas.evaluation.baseline import random_sae
from atlas.evaluation.chunks import chunk_rows
from atlas.evaluation.facts import TrainingFacts
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.files import write_json
from atlas.folder import Folder
from atlas.planted.draw import Sampler
from atlas.planted.plant import HOOK, require_drawn, sampler_of
from atlas.planted.recovery import FOUND_COSINE, Chance, FiringMatch, Partners, most_frequent
from atlas.progress import progress
from atlas.statistics.clusters import Groups
from atlas.training.sae import Sae, load_sae


@dataclass(frozen=True)
class RecoveryInputs:
    """Files of one look: planted model and SAE folders, training shards, and eval shards of all judged corpora."""

    model: Path
    sae: Folder
    train_shards: list[Path]
    shards: list[Path]


def run_recovery(
    inputs: RecoveryInputs,
    *,
    corpora: Mapping[str, Corpus],
    draws: int,
    seed: int,
    device: torch.device,
    target: Path,
) -> None:
    """Write recovery.json: what an SAE, a random dictionary and the truth itself find, on the rows of each corpus.

    The SAE is judged on `corpora`. `draws` is the number of random dictionaries behind the floor of directions; `seed`
    draws the random dictionary that is judged beside the SAE. Raises StoreError when the stored rows are not drawn from
    this truth, and EvaluationError when the SAE has fewer latents than features are looked for.
    """
    sae = load_sae(inputs.sae).to(device)
    shards = shards_by_corpus(inputs.shards, {})
    samplers = {name: sampler_of(inputs.model, corpus, "eval")[0] for name, corpus in corpora.items()}
    first = next(iter(samplers.values()))
    truth, n_scored = first.truth, first.source.n_scored
    order = most_frequent(truth, n_scored)
    directions, frequency = torch.from_numpy(truth.directions[order]), truth.frequency[order]
    training = TrainingFacts.of(shards_by_corpus(inputs.train_shards, {}), HOOK)
    judged = {
        "sae": sae,
        "random": random_sae(sae, training.source.mean, seed),
        "truth": truth_as_sae(truth.directions, sae),
    }
    partners = {name: Partners.of(directions, one.W_dec.cpu()) for name, one in judged.items() if name != "truth"}
    # Each feature is its own partner, also where scored features are few.
    partners["truth"] = Partners(order, np.ones(n_scored), np.ones(n_scored))
    chance = Chance(directions, frequency, sae.n_latents, draws).measures
    found: dict[str, Any] = {name: partners[name].measures(frequency) for name in judged}
    for name, (mean, sd) in chance.items():
        found["sae"] |= {f"{name}_null_mean": mean, f"{name}_null_sd": sd}
    rows = {
        name: _on_rows(judged, partners, sampler, shards[name], order, training.target.mean.to(device))
        for name, sampler in samplers.items()
    }
    result = {
        "sae_id": "/".join(inputs.sae.parts[-5:]),
        "n_features": truth.n_features,
        "n_scored": n_scored,
        "n_latents": sae.n_latents,
        "truth_l0": truth.l0,
        "found_cosine": FOUND_COSINE,
        "directions": found,
        "corpora": rows,
    }
    write_json(target, result)


def truth_as_sae(directions: Float[np.ndarray, "features d_model"], like: Sae) -> Sae:
    """Make an SAE whose decoder and (transposed) encoder are the true directions: topk with the k of `like`, or relu.

    It reads perfect directions linearly. Where directions overlap, even this reading errs about which features fire.
    """
    W_dec = torch.from_numpy(directions).float().to(like.W_dec.device)
    b_enc, b_dec = W_dec.new_zeros(len(W_dec)), W_dec.new_zeros(W_dec.shape[1])
    k = None if like.k is None else min(like.k, len(W_dec))
    name = "relu" if k is None else "topk"
    return Sae(name, W_enc=W_dec.T.contiguous(), W_dec=W_dec, b_enc=b_enc, b_dec=b_dec, k=k)


def _on_rows(
    judged: Mapping[str, Sae],
    partners: Mapping[str, Partners],
    sampler: Sampler,
    shards: Sequence[Shard],
    order: np.ndarray,
    center: Tensor,
) -> dict[str, Any]:
    """Firing of each dictionary's partners beside the features, over all rows of a corpus, which are drawn again."""
    groups = Groups.of(np.concatenate([shard.document for shard in shards]))
    matches = {name: FiringMatch(partners[name], groups.count) for name in judged}
    sums = {name: ReconstructionSums.start(center) for name in judged}
    size = min(chunk_rows(sae) for sae in judged.values())
    start = 0
    with progress(sum(shard.n_rows for shard in shards), "recovery", "row") as shown:
        for shard in shards:
            for first, codes in sampler.codes(start, start + shard.n_rows):
                drawn = sampler.rows(codes)
                for low in range(0, len(drawn), size):
                    part = slice(low, min(low + size, len(drawn)))
                    row = first - start + low
                    stored = shard.read_rows(HOOK, row, row + len(drawn[part]))
                    require_drawn(sampler, stored, drawn[part], f"{shard.path} from row {row}")
                    true, rows = codes[part][:, order], stored.float().to(center.device)
                    document = groups.index(shard.document[row : row + len(rows)])
                    for name, sae in judged.items():
                        latents = sae.encode(rows)
                        matches[name].update(latents, true, document)
                        sums[name].update(rows, sae.decode(latents))
                    shown.update(len(rows))
            start += shard.n_rows
    result = {}
    for name in judged:
        measures, reasons = matches[name].measures()
        explained = sums[name].metrics()["explained_variance"]
        result[name] = measures | {"explained_variance": explained, "reasons": reasons}
    return result
