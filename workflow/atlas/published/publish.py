"""A published SAE as one of this project: its reading audited on stored rows, then written with a run card."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atlas.activations.store import Shard, shards_by_corpus
from atlas.config.saes import PublishedSae
from atlas.errors import ReadingError
from atlas.files import read_json
from atlas.folder import Folder
from atlas.hook_points import SaeHooks
from atlas.prepared import read_identity
from atlas.published.audit import AuditRows, ReadingReport, audit_reading
from atlas.published.base import Published
from atlas.published.fetch import read_fetched
from atlas.runcard import NOT_STATED_SECTIONS, write_run_card
from atlas.sae_ids import NOT_STATED
from atlas.training.card import hardware, peak_memory_mb, versions
from atlas.training.sae import save_sae

log = logging.getLogger(__name__)

CARD_FILE = "run_card.yaml"
AUDIT_ROWS = 4096


@dataclass(frozen=True)
class PublishingInputs:
    """Prepared model folder, folder of `fetch_published`, training shards of the text that the user calls in-sample,
    and corpus.json of each of these corpora."""

    model: Path
    fetched: Path
    shards: list[Path]
    corpora: list[Path]


def publish_sae(
    inputs: PublishingInputs, name: str, spec: PublishedSae, roles: Mapping[str, str], folder: Folder
) -> None:
    """Write the SAE `saes.<name>` to `folder` as `save_sae` does, with a run card of what is known of it.

    `roles` maps evaluation corpora to what the user states they are. Raises ReadingError when another reading of its
    files explains significantly more of the rows, unless `spec.accept_reading`; StoreError for damaged shards.
    """
    started = time.monotonic()
    identity = read_identity(inputs.model)
    expected = {"weights_sha256": identity["weights_sha256"], "tokenizer_sha256": identity["tokenizer_sha256"]}
    published, record = read_fetched(name, spec, inputs.fetched)
    shards = [shard for group in shards_by_corpus(inputs.shards, expected).values() for shard in group]
    hooks = SaeHooks.of(spec.hook, spec.target_hook)
    audit = _audited(name, spec, published, shards)
    metadata = {"model_name": identity["name"], "model_architecture": identity["architecture"]}
    target = {"target_hook_name": hooks.target} if hooks.is_transcoder else {}
    save_sae(published.sae, folder, metadata | {"hook_name": hooks.source} | target)
    stated = {summary["name"]: summary for summary in map(read_json, inputs.corpora)}
    card = _card(name, spec, published, record, roles) | {
        "model": identity,
        "stated_corpora": stated,
        "reading_audit": audit.described(),
        "store": {"rows": sum(shard.n_rows for shard in shards), "shards": len(shards)},
        "cost": {"wall_seconds": round(time.monotonic() - started, 3), "peak_memory_mb": _peak()},
        "warnings": [*_overruled(audit), *(f"assumed: {each}" for each in published.assumed)],
    }
    write_run_card(folder / CARD_FILE, card)


def _audited(name: str, spec: PublishedSae, published: Published, shards: Sequence[Shard]) -> ReadingReport:
    try:
        return audit_reading(
            published, rows_to_audit(shards), spec.hook, spec.target_hook, accept_reading=spec.accept_reading
        )
    except ReadingError as error:
        raise ReadingError(f"saes.{name}: {error}") from error


def rows_to_audit(shards: Sequence[Shard], n_rows: int = AUDIT_ROWS) -> AuditRows:
    """Read the first rows of each training shard at all its hooks; rows are stored shuffled, so they are a sample."""
    each = -(-n_rows // len(shards))
    ends = [min(each, shard.n_rows) for shard in shards]

    def joined(column: str) -> np.ndarray:
        return np.concatenate([getattr(shard, column)[:end] for shard, end in zip(shards, ends, strict=True)])

    # Numbers of documents begin anew in each corpus.
    corpora = [shard.identity["corpus_fingerprint"] for shard in shards]
    place = np.repeat([sorted(set(corpora)).index(corpus) for corpus in corpora], ends)
    hooks = {
        hook: torch.cat([shard.read_rows(hook, 0, end).float() for shard, end in zip(shards, ends, strict=True)])
        for hook in shards[0].hooks
    }
    document = joined("document").astype(np.int64) + (place << 40)
    return AuditRows(hooks, document, joined("position").astype(np.int64), joined("counted"))


def _overruled(report: ReadingReport) -> list[str]:
    """A warning where something speaks against the stated reading and the user accepts it."""
    against = [
        f"'{each.reading}' leaves {each.fvu:.3g} of the variance unexplained with {each.l0:.1f} latents a row"
        for each in (report.better, report.nearest)
        if each is not None
    ]
    stated = f"the stated reading {report.stated.fvu:.3g} with {report.stated.l0:.1f}"
    return [f"reading accepted: {'; '.join(against)}, {stated}"] if report.accepted else []


def _card(
    name: str, spec: PublishedSae, published: Published, record: Mapping[str, Any], roles: Mapping[str, str]
) -> dict[str, Any]:
    sae, hooks = published.sae, SaeHooks.of(spec.hook, spec.target_hook)
    return dict.fromkeys(NOT_STATED_SECTIONS, NOT_STATED) | {
        "names": {"model": spec.model, "mix": NOT_STATED, "recipe": name},
        "hook": hooks.source,
        "target_hook": hooks.target_hook,
        "sae": {
            "architecture": sae.architecture,
            "d_model": sae.d_model,
            "d_target": sae.d_target,
            "n_latents": sae.n_latents,
            "k": sae.k,
            "threshold": sae.threshold,
            "normalisation": {"each_row": sae.row_scale or "none", "other": "folded into the weights"},
        },
        "published": {
            "format": spec.format,
            "source": record["source"],
            "folder": spec.folder,
            "revision": record["revision"] or "a local file, known by its hash",
            "licence": spec.source.licence,
            "files_sha256": published.facts["files_sha256"],
            "stated": dict(spec.states),
            "accept_reading": spec.accept_reading,
            "assumed": list(published.assumed),
            "ignored": list(published.ignored),
            **{key: value for key, value in published.facts.items() if key not in ("format", "files_sha256", "stated")},
        },
        "evaluation_roles": dict(roles),
        "roles_are": "stated by the user: the training text is " + NOT_STATED,
        "versions": versions(),
        "hardware": hardware(torch.device("cpu")),
    }


def _peak() -> dict[str, float]:
    return peak_memory_mb(torch.device("cpu"))
