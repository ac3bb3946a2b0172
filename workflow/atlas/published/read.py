"""The registry of formats, and the one way to read an SAE of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.errors import ReadingError
from atlas.hook_points import HookPoint
from atlas.published.base import Published, PublishedFormat, Read
from atlas.published.circuit_tracer import CIRCUIT_TRACER
from atlas.published.dictionary_learning import DICTIONARY_LEARNING
from atlas.published.files import Release
from atlas.published.gemma_scope import GEMMA_SCOPE, GEMMA_SCOPE_TRANSCODER
from atlas.published.hooks import hook_of
from atlas.published.hypothesaes import HYPOTHESAES
from atlas.published.llamascopium import LLAMA_SCOPE, LLAMASCOPIUM
from atlas.published.nemotron_lens import NEMOTRON_LENS
from atlas.published.openai_topk import OPENAI
from atlas.published.saelens import SAELENS
from atlas.published.saev import SAEV
from atlas.published.sparsify import SPARSIFY
from atlas.published.weights import require_decoder
from atlas.sae_ids import NOT_STATED

FORMATS: dict[str, PublishedFormat] = {
    entry.name: entry
    for entry in (
        SAELENS,
        GEMMA_SCOPE,
        GEMMA_SCOPE_TRANSCODER,
        SPARSIFY,
        DICTIONARY_LEARNING,
        LLAMASCOPIUM,
        LLAMA_SCOPE,
        NEMOTRON_LENS,
        OPENAI,
        CIRCUIT_TRACER,
        HYPOTHESAES,
        SAEV,
    )
}


def read_published(place: Path | str, format: str, stated: Mapping[str, Any] | None = None) -> Published:
    """Read an SAE from the folder or file `place`.

    `stated` is what the user says of it: ``hook``, ``target_hook``, ``scale``, ``zero_decoder_rows`` and any key of
    the format that its files lack. Raises ReadingError that names file, key, value and what was expected, before
    anything is computed.
    """
    entry = FORMATS.get(format)
    if entry is None:
        raise ReadingError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    release = Release(Path(place), stated or {})
    told_hook, told_target = (release.stated.take(key) for key in ("hook", "target_hook"))
    read = entry.read(release)
    require_decoder(release, release.place, read.sae)
    release.stated.require_all_read(format)
    hook = _hook("hook", told_hook, read.hook)
    target = _hook("target_hook", told_target, read.target_hook)
    if not read.sae.is_transcoder and target is not None:
        raise ReadingError(f"target_hook is stated as {target!r}, but {release.place} is an SAE, not a transcoder")
    return Published(
        sae=read.sae,
        format=format,
        facts=_facts(entry, release, read, stated or {}),
        assumed=tuple(note for settings in release.settings for note in settings.assumed),
        ignored=tuple(key for settings in release.settings for key in settings.ignored()),
        hook=hook,
        target_hook=target,
        l0=read.l0,
        alternatives=read.alternatives,
    )


def _hook(key: str, told: Any, named: str | None) -> str | None:
    """The hook in our grammar: as stated, else as the files name it. Raises ReadingError where the two differ."""
    found = hook_of(named)
    if told is None:
        return found
    try:
        told = str(HookPoint.parse(str(told)))
    except ValueError as error:
        raise ReadingError(f"{key} is stated as {told!r}: {error}") from error
    if found is not None and HookPoint.parse(found).depth != HookPoint.parse(told).depth:
        raise ReadingError(
            f"{key} is stated as {told!r}, but the files say {named!r}, which is {found}: state {found}, or name the "
            "files of the other hook"
        )
    return told


def _facts(entry: PublishedFormat, release: Release, read: Read, stated: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": entry.name,
        "format_versions": entry.versions,
        "files_sha256": release.sha256(),
        "settings": {key: value for settings in release.settings for key, value in settings.read.items()},
        "stated": dict(stated),
        "model": read.model or NOT_STATED,
        "hook": read.hook or NOT_STATED,
        **({"target_hook": read.target_hook or NOT_STATED} if read.sae.is_transcoder else {}),
        "context": {key: NOT_STATED if value is None else value for key, value in read.context.items()},
        "notes": list(read.notes),
    }
