"""Planted rows in the activation store's own format, and the audit that they are what was planned."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binom

from atlas.activations.harvest import arrange_rows, shard_contexts, shard_identity
from atlas.activations.writer import ShardWriter
from atlas.config.corpora import Corpus
from atlas.config.data import Harvest
from atlas.config.planted import PlantedSource, SampleSource
from atlas.corpora.tokens import TokenSplit
from atlas.errors import AuditError, StoreError
from atlas.files import atomic_path, sha256_strings, write_json
from atlas.massive import MASSIVE_FACTOR
from atlas.models.audit import write_audit
from atlas.planted.draw import CHUNK_ROWS, SPLITS, Sampler
from atlas.planted.truth import LICENCE, read_truth
from atlas.progress import progress

HOOK = "resid_post.0"
# Of the audit: rows that are drawn, and how unlikely a feature's count may be; shared among all features.
_AUDIT_ROWS = 8 * CHUNK_ROWS
_UNLIKELY = 1e-6
_QUANTILES = (0.01, 0.5, 0.99)


def sampler_of(folder: Path, corpus: Corpus, split: str) -> tuple[Sampler, dict[str, Any]]:
    """Return the sampler that draws a corpus from the planted model in `folder`, and the model's identity."""
    truth, identity = read_truth(folder)
    assert isinstance(corpus.source, SampleSource)  # the configuration gives a planted model no other
    return Sampler(truth, PlantedSource(**identity["source"]), corpus.source.seed, split), identity


def planted_split(sampler: Sampler, identity: dict[str, Any], corpus: str, harvest: Harvest) -> TokenSplit:
    """Make a split without text: every token is 0, and each context is a document, because rows are independent."""
    n_contexts = harvest.tokens(sampler.split) // harvest.context_length
    shape = (n_contexts, harvest.context_length)
    document = np.repeat(np.arange(n_contexts, dtype=np.int32)[:, None], harvest.context_length, axis=1)
    named = [identity["weights_sha256"], str(sampler.seed), sampler.split, str(shape)]
    fingerprint = sha256_strings(named)
    tokens, counted = np.zeros(shape, dtype=np.uint32), np.ones(shape, dtype=bool)
    return TokenSplit(tokens, document, counted, fingerprint, corpus, sampler.split, harvest.context_length)


def plant_shard(
    folder: Path, corpus: Corpus, name: str, split: str, shard: int, harvest: Harvest, target: Path
) -> None:
    """Draw the rows of one shard and publish them at `target`, as a harvest of the corpus `name` would be.

    Raises StoreError when the disk is full, or what was written differs from what was drawn.
    """
    sampler, identity = sampler_of(folder, corpus, split)
    whole = planted_split(sampler, identity, name, harvest)
    contexts = shard_contexts(whole, shard, harvest)
    columns, order, seed = arrange_rows(whole, contexts, shard)
    places = np.argsort(order)  # row of each drawn row in the file
    start = int(contexts[0]) * harvest.context_length
    with atomic_path(target) as temporary:
        writer = ShardWriter(temporary, columns, {HOOK: sampler.truth.directions.shape[1]}, harvest.storage_dtype)
        with progress(len(places), f"plant {name} {split}-{shard:03d}", "row") as shown:
            for first, codes in sampler.codes(start, start + len(places)):
                place = places[first - start : first - start + codes.shape[0]]
                writer.write(HOOK, place, torch.from_numpy(sampler.rows(codes)))
                shown.update(len(place))
        writer.finish(shard_identity(identity, whole, shard, harvest, seed))


def require_drawn(sampler: Sampler, stored: torch.Tensor, rows: np.ndarray, where: str) -> None:
    """Raise StoreError unless stored rows equal rows that are drawn again, up to rounding of the number format."""
    exact = torch.from_numpy(rows)
    rounded = (exact.to(stored.dtype).float() - stored.float()).abs().max().item()
    # Sums of the same products in another order differ by float32's rounding, and then round to the next bfloat16.
    limit = (2**-7 if stored.dtype == torch.bfloat16 else 1e-5) * exact.abs().max().item()
    if rounded > limit:
        raise StoreError(
            f"{where}: its rows are no draws from this truth with seed {sampler.seed} (largest difference "
            f"{rounded:.3g}); another truth or seed made the file; delete this file and run again"
        )


def describe_sample(name: str, corpus: Corpus, target: Path) -> None:
    """Write corpus.json of a planted corpus, for run cards: which numbers, and that they are no text."""
    described = corpus.source.model_dump(mode="json")
    # Its rows depend on the model too, whose hash shards carry.
    fingerprint = {split: sha256_strings([str(sorted(described.items())), split]) for split in SPLITS}
    facts = {"name": name, "source": described, "licence": LICENCE, "template": "none", "fingerprint": fingerprint}
    write_json(target, facts)


def audit_truth(folder: Path, storage_dtype: str, target: Path) -> None:
    """Check that drawn rows are what the truth says, and write the report; a failed one raises AuditError.

    Directions have length 1; each feature fires as often as planned (binomial); no child fires without its parent;
    magnitudes of what fires are above 0; rows are finite and fit the store.
    """
    truth, identity = read_truth(folder)
    sampler = Sampler(truth, PlantedSource(**identity["source"]), 0, "train")
    counts, orphans, weak = np.zeros(truth.n_features, dtype=np.int64), 0, 0
    norms, largest = [], 0.0
    for _, codes in sampler.codes(0, _AUDIT_ROWS):
        fires = codes.toarray() > 0
        counts += fires.sum(0)
        child = truth.parent >= 0
        orphans += int((fires[:, child] & ~fires[:, truth.parent[child]]).sum())
        weak += int(codes.nnz - fires.sum())
        rows = sampler.rows(codes)
        norms.append(np.linalg.norm(rows, axis=1))
        largest = max(largest, float(np.abs(rows).max()))
    norm = np.concatenate(norms)
    length = float(np.abs(np.linalg.norm(truth.directions, axis=1) - 1).max())
    tail = np.minimum(
        binom.cdf(counts, _AUDIT_ROWS, truth.frequency), binom.sf(counts - 1, _AUDIT_ROWS, truth.frequency)
    )
    odd = int((tail < _UNLIKELY / (2 * truth.n_features)).sum())
    limit = torch.finfo(getattr(torch, storage_dtype)).max
    checks = [
        _check("unit_directions", length, 1e-5, "largest |length - 1| of a direction"),
        _check("frequency", odd, 0, f"features whose firings on {_AUDIT_ROWS} rows are too few or too many"),
        _check("parents", orphans, 0, "firings of a child without its parent"),
        _check("magnitudes", weak, 0, "firings with a magnitude of 0 or less"),
        _check("finite", int((~np.isfinite(norm)).sum()), 0, "rows that are not finite"),
        _check("storage_range", largest, limit, f"largest magnitude, stored as {storage_dtype}"),
    ]
    median = float(np.median(norm))
    points = dict(zip(map(str, _QUANTILES), np.quantile(norm, _QUANTILES).tolist(), strict=True))
    passed = all(check["passed"] for check in checks)
    report = {
        "model": identity["name"],
        "weights_sha256": identity["weights_sha256"],
        "status": "pass" if passed else "fail",
        "objective": "none",
        "notes": ["Rows are drawn with known features; there is no language model to audit."],
        "n_features": truth.n_features,
        "l0": truth.l0,
        "n_rows": _AUDIT_ROWS,
        "storage_dtype": storage_dtype,
        "checks": checks,
        "norms": {
            HOOK: {
                "median": median,
                "quantiles": points,
                "massive_share": float((norm > MASSIVE_FACTOR * median).mean()),
            }
        },
    }
    if not median > 0:
        raise AuditError(f"{identity['name']}: more than half of its rows are 0; let features fire more often")
    write_audit(report, target if passed else target.with_name(f"{target.stem}.failed.json"))


def _check(name: str, value: float, limit: float, detail: str) -> dict[str, Any]:
    return {
        "name": name,
        "hook": HOOK,
        "passed": bool(value <= limit),
        "value": value,
        "limit": limit,
        "detail": detail,
    }
