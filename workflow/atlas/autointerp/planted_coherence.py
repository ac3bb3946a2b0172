"""Coherence of planted latents: what the measure says of latents whose meaning is known. docs/metrics.md, section 6.

They are the planted latents whose labels are scored, in the same text and at the same densities, and go through the
code that measures the coherence of real latents.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from atlas.autointerp.planted import ALL, PLANTED_CLASSES, RANDOM, Planted, plant
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords
from atlas.codes.encode import identity_of, sae_sha256
from atlas.codes.store import Codes
from atlas.config.autointerp import Autointerp
from atlas.config.latents import Latents
from atlas.corpora.encoding import tokenizer_sha256
from atlas.errors import EvaluationError
from atlas.files import write_json
from atlas.folder import Folder
from atlas.latents.coherence import COHERENT_Z, coherence_null, measure_coherence, null_rows, random_tuples
from atlas.latents.contexts import top_contexts
from atlas.latents.embedded_windows import EmbeddedWindows
from atlas.latents.embedder import embedder_sha256
from atlas.latents.text import CorpusText
from atlas.latents.token_classes import TokenTable
from atlas.statistics.intervals import rate_interval

_NO_EMBEDDER = "no latents.embedder is configured"


def write_planted_coherence(
    model: Path,
    sae: Folder,
    codes: dict[str, Path],
    embedder: Path | None,
    windows: dict[str, Path],
    hook: str,
    seed: int,
    roles: dict[str, str],
    settings: Autointerp,
    latents: Latents,
    target: Path,
) -> None:
    """Write planted.json: coherence of planted latents by corpus and class, at the densities of an SAE's latents.

    Raises EvaluationError when codes, windows, SAE and tokenizer do not belong together; StoreError for damaged codes.
    """
    result: dict[str, Any] = {"sae_id": "/".join(sae.parts[-5:]), "sae_sha256": sae_sha256(sae)}
    nothing: dict[str, Any] = {name: {} for name in roles}
    if embedder is None:
        write_json(target, result | {"corpora": nothing, "reasons": {"coherence": _NO_EMBEDDER}})
        return
    expected = identity_of(sae, hook, seed) | {"tokenizer_sha256": tokenizer_sha256(model), "dictionary": "sae"}
    opened = {name: Codes.open(codes[name], expected | {"corpus": name}) for name in roles}
    table, sha256 = TokenTable.of(model), embedder_sha256(embedder)
    try:
        own = Windows.of(opened, settings.window_tokens)
    except EvaluationError as error:
        # Contexts are shorter than a window: nothing can be planted, but the coherence of real latents is known.
        write_json(target, result | {"corpora": nothing, "reasons": {"planted": str(error)}})
        return
    planted = plant(
        list(opened.values()),
        own,
        WindowWords.find(own, table),
        table,
        densities_of(list(opened.values())),
        settings.planted,
        settings.seeds[0],
    )
    found = {}
    for number, (name, role) in enumerate(roles.items()):
        text = CorpusText.of(opened[name], role, table, latents.min_tokens)
        about = {key: opened[name].identity[key] for key in ("corpus", "corpus_fingerprint", "tokenizer_sha256")}
        about |= {"embedder": sha256, "width": latents.window_tokens}
        if name not in windows:
            raise EvaluationError(f"corpus {name!r} has no embedded windows, only {sorted(windows)}")
        embedded = EmbeddedWindows.open(windows[name], about, opened[name].n_rows)
        found[name] = planted_coherence(planted, number, text, embedded, latents.top_contexts)
    write_json(target, result | {"corpora": found, "reasons": {}})


def densities_of(codes: Sequence[Codes]) -> Float[np.ndarray, " alive"]:
    """Shares of the counted tokens of all corpora on which each latent fires; those of latents that fire at all."""
    counts = np.zeros(codes[0].n_latents, np.int64)
    for own in codes:
        for block in own.blocks():
            counts[block.first : block.first + block.n_latents] += np.diff(block.only(own.counted[block.row]).indptr)
    return counts[counts > 0] / max(sum(int(own.counted.sum()) for own in codes), 1)


def planted_coherence(
    planted: Planted, number: int, text: CorpusText, embedded: EmbeddedWindows, n_contexts: int
) -> dict[str, dict[str, Any]]:
    """Coherence of the planted latents on corpus `number`, by class; `ALL` is the planted dictionary.

    A class that has no latent with two contexts on this corpus is left out.
    """
    if not planted.classes:
        return {}
    null = coherence_null(embedded, random_tuples(text, null_rows(text), n_contexts))
    contexts = top_contexts(planted.codes[number], text, n_contexts)
    z = measure_coherence(contexts, text, embedded, null, samples=2).z
    classes, dense = np.array(planted.classes), np.array(planted.dense)
    members = {name: (classes == name) & ~dense for name in PLANTED_CLASSES} | {ALL: dense & (classes != RANDOM)}
    found = {name: _summary(z, chosen) for name, chosen in members.items()}
    return {name: own for name, own in found.items() if own["n_tested"]}


def _summary(z: Float[np.ndarray, " latents"], chosen: Bool[np.ndarray, " latents"]) -> dict[str, Any]:
    known = z[chosen & np.isfinite(z)]
    if not len(known):
        return {"n_tested": 0}
    coherent = known > COHERENT_Z
    low, high = rate_interval(np.array([coherent.sum()]), len(known))
    return {
        "n_tested": len(known),
        "coherence_z": float(known.mean()),
        "coherent_share": float(coherent.mean()),
        "coherent_share_interval": [float(low[0]), float(high[0])],
    }
