"""Choose the items of a sheet: latents of all dictionaries, their order and their contexts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from atlas.codes.encode import identity_of
from atlas.codes.store import Codes
from atlas.config.reading import Reading
from atlas.errors import EvaluationError
from atlas.files import sha256_strings
from atlas.latents.token_classes import TokenTable
from atlas.site.contexts import ContextSettings, Corpora, RowFirings
from atlas.site.text import TokenPieces, highlighted

SAE, RANDOM = "sae", "random"


@dataclass(frozen=True)
class ReadSae:
    """An SAE on a sheet: its id, folder, hook and seed, its model's folder, and codes (corpus → file) of it and its
    random dictionary.

    `twin` is the kind of a twin, which is on the sheet as a null and has no random dictionary there; None: an SAE.
    """

    sae_id: str
    folder: Path
    hook: str
    seed: int
    model: Path
    codes: Mapping[str, Path]
    random_codes: Mapping[str, Path]
    twin: str | None = None


@dataclass(frozen=True)
class Item:
    """One latent on a sheet: number from 1, which one it is, and the hash of the contexts that readers see.

    `dictionary` is ``sae``, ``random``, or the kind of a twin.
    """

    number: int
    sae_id: str
    sae_sha256: str
    dictionary: str
    latent: int
    contexts_sha256: str


@dataclass(frozen=True)
class Sheet:
    """Items in the order of the page, with the contexts of each as HTML."""

    study: str
    items: tuple[Item, ...]
    contexts: tuple[tuple[Markup, ...], ...]

    @property
    def sheet_id(self) -> str:
        """Hash of the study and of all items: votes on other items, or on other contexts, have another one."""
        return sheet_id(self.study, self.items)


def sheet_id(study: str, items: Sequence[Item]) -> str:
    """Return the hash of a sheet, 16 hexadecimal digits."""
    return sha256_strings([study, *(str(value) for item in items for value in asdict(item).values())])[:16]


def make_sheet(study: str, saes: Sequence[ReadSae], settings: Reading) -> Sheet:
    """Draw latents that fire, as many of each SAE as of another, of each twin likewise, and shuffle them all.

    Raises EvaluationError when fewer latents fire than the sheet asks for, or when codes are of another SAE; StoreError
    for damaged codes.
    """
    own, twins = [sae for sae in saes if sae.twin is None], [sae for sae in saes if sae.twin is not None]
    drawn: list[tuple[ReadSae, str, str, int, tuple[Markup, ...]]] = []
    for dictionary, group, wanted in (
        (SAE, own, settings.latents),
        (RANDOM, own, settings.random_latents),
        (SAE, twins, settings.twin_latents),
    ):
        first = len(own) if group is twins else 0
        shares = [len(part) for part in np.array_split(np.arange(wanted), len(group))] if group else []
        for place, (sae, share) in enumerate(zip(group, shares, strict=True), first):
            if share:
                sha256, chosen = _drawn(sae, dictionary, share, [settings.seed, place], settings)
                drawn += [(sae, sha256, sae.twin or dictionary, latent, contexts) for latent, contexts in chosen]
    order = np.random.Generator(np.random.PCG64([settings.seed, len(drawn)])).permutation(len(drawn))
    items, contexts = [], []
    for number, place in enumerate(order.tolist(), 1):
        sae, sha256, dictionary, latent, lines = drawn[place]
        text = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
        items.append(Item(number, sae.sae_id, sha256, dictionary, latent, text))
        contexts.append(lines)
    return Sheet(study, tuple(items), tuple(contexts))


def _drawn(
    sae: ReadSae, dictionary: str, wanted: int, seed: list[int], settings: Reading
) -> tuple[str, list[tuple[int, tuple[Markup, ...]]]]:
    """Hash of the SAE, and latents of a dictionary with their contexts."""
    identity = identity_of(sae.folder, sae.hook, sae.seed)
    files = sae.codes if dictionary == SAE else sae.random_codes
    codes = {
        name: Codes.open(path, identity | {"dictionary": dictionary, "corpus": name}) for name, path in files.items()
    }
    corpora = Corpora(codes)
    alive = np.flatnonzero(sum(_regular_firings(own) for own in codes.values()))
    if len(alive) < wanted:
        raise EvaluationError(
            f"{sae.sae_id}: {len(alive)} of {corpora.n_latents} latents of its dictionary {dictionary!r} fire on "
            f"{', '.join(codes)}, but the sheet asks for {wanted}; lower latents, random_latents or twin_latents of "
            "section reading"
        )
    generator = np.random.Generator(np.random.PCG64([*seed, dictionary == RANDOM]))
    chosen = set(generator.permutation(alive)[:wanted].tolist())
    pieces = TokenPieces.of(sae.model, TokenTable.of(sae.model))
    shown = ContextSettings(settings.contexts, 1, 0, settings.window_tokens)
    found = [
        (firings.latent, _lines(corpora, firings, shown, pieces))
        for firings in corpora.firings()
        if firings.latent in chosen
    ]
    return identity["sae_sha256"], found


def _regular_firings(codes: Codes) -> np.ndarray:
    found = np.zeros(codes.n_latents, np.int64)
    for block in codes.blocks():
        kept = block.only(codes.regular[block.row])
        found[block.first : block.first + block.n_latents] = np.diff(kept.indptr)
    return found


def _lines(corpora: Corpora, firings: RowFirings, settings: ContextSettings, pieces: TokenPieces) -> tuple[Markup, ...]:
    """Contexts whose values are shares of the strongest: absolute ones would tell dictionaries apart.

    Massive activations are left blank: they are no part of what is read, and would be the darkest.
    """
    lines = []
    for context in corpora.contexts(firings, settings):
        if context.stratum:
            continue
        tokens = corpora.tokens(context.corpus, context.start, context.start + len(context.values))
        values = np.where(context.massive, 0, context.values)
        shares = (values / firings.shade_scale).clip(0, 1).round(2).tolist()
        lines.append(highlighted(pieces, tokens, shares, 1.0, context.peak - context.start))
    return tuple(lines)
