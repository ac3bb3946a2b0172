"""The pages of one SAE from files: its own, a table of its latents, one for each latent, and a line for the index."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from atlas.autointerp.examples import nearest_latents
from atlas.autointerp.explainers import find_promoted
from atlas.codes.encode import identity_of
from atlas.codes.store import Codes
from atlas.config.site import Site
from atlas.config.study import Taxonomy
from atlas.corpora.encoding import tokenizer_sha256
from atlas.errors import EvaluationError, TrainingError
from atlas.evaluation.baseline import random_decoder
from atlas.files import atomic_path, write_json
from atlas.folder import Folder
from atlas.hook_points import HookPoint, SaeHooks
from atlas.latents.token_classes import TokenTable
from atlas.models.load import LoadedModel, load_model
from atlas.progress import progress
from atlas.sae_ids import SaeId
from atlas.site.contexts import ContextSettings, Corpora
from atlas.site.effects import EffectFiles, Effects
from atlas.site.latent import PAGE_BYTES, Links, Scene, fewer_lines, latent_page, promoted_text
from atlas.site.logits import decoder_logits
from atlas.site.neuronpedia import write_neuronpedia
from atlas.site.numbers import short
from atlas.site.pages import render, write_data, write_page
from atlas.site.sae import SaeFacts, SaePageFiles, index_line, latent_columns, sae_page
from atlas.site.tables import TableFiles, Tables
from atlas.site.text import TokenPieces
from atlas.training.sae import Sae, load_sae

log = logging.getLogger(__name__)

# From the folder of an SAE, saes/<model>/<hook>/<mix>/<recipe>/seed-<n>, to the site's.
SAE_ROOT, LATENT_ROOT = "../" * 6, "../" * 7
LINE_FILE = "line.json"
Found = TypeVar("Found")
# Sites whose rows are summands of the residual stream: the head reads their directions.
_READ_BY_HEAD = ("resid_pre", "resid_post", "mlp_out", "attn_out")


@dataclass(frozen=True)
class SiteInputs:
    """Files that say what latents of one SAE do: prepared model, SAE folder, codes by corpus, tables.

    `random_codes` are the random dictionary's; without them it has no pages. Nor have pages a section on what latents
    do without `effects`.
    """

    model: Path
    sae: Folder
    codes: Mapping[str, Path]
    tables: TableFiles
    random_codes: Mapping[str, Path] = field(default_factory=dict)
    effects: EffectFiles | None = None


@dataclass(frozen=True)
class SaePageContext:
    """Context of an SAE on the site: hook, seed, the studies that hold it, the seeds of its recipe that have pages."""

    hook: str
    seed: int
    studies: tuple[str, ...]
    seeds: tuple[int, ...]


def build_sae_pages(
    inputs: SiteInputs, results: SaePageFiles, place: SaePageContext, settings: Site, limits: Taxonomy, target: Path
) -> None:
    """Write the folder of one SAE.

    Raises EvaluationError when codes, tables and SAE do not belong together, StoreError for damaged codes.
    """
    sae_id = "/".join(inputs.sae.parts[-5:])
    facts = SaeFacts.read(results, sae_id)
    scene = _scene(inputs, place, settings)
    with atomic_path(target) as folder:
        (folder / "latents").mkdir(parents=True)
        promoted = [promoted_text(scene, latent) for latent in range(scene.tables.n_latents)]
        write_data(folder / "latents-data.js", "atlasLatents", latent_columns(scene.tables, scene.links, promoted))
        shared = {"sae_id": sae_id, "studies": place.studies, "title": SaeId.parse(sae_id).title}
        random = _random_pages(inputs, place, settings, folder, shared) if inputs.random_codes else []
        values = sae_page(facts, scene.tables, scene.links, place.seed, limits, settings.run_cards == "public")
        write_page(folder / "index.html", "sae.html", SAE_ROOT, random_latents=random, **shared, **values)
        sizes = _latent_pages(scene, folder / "latents", shared)
        write_json(folder / LINE_FILE, index_line(facts, scene.tables, place.seed, limits) | {"n_pages": len(sizes)})
    if sizes:
        log.info("%d latents: %.1f KiB a page, %.1f at most", len(sizes), np.mean(sizes) / 1024, max(sizes) / 1024)


def export_neuronpedia(inputs: SiteInputs, place: SaePageContext, settings: Site, target: Path) -> None:
    """Write the latents that have pages as Neuronpedia's batches; raises what building the pages raises."""
    scene = _scene(inputs, place, settings)
    logits = _read_by_head(inputs.model, place.hook, lambda loaded: decoder_logits(load_sae(inputs.sae).W_dec, loaded))
    write_neuronpedia(replace(scene, logits=logits), "/".join(inputs.sae.parts[-5:]), target)


def chosen_latents(n_latents: int, limit: int | None) -> frozenset[int]:
    """Latents that get a page: all, or as many as `limit` says, by chance and not by merit, the same at every call."""
    if limit is None or n_latents <= limit:
        return frozenset(range(n_latents))
    return frozenset(np.random.Generator(np.random.PCG64([n_latents, 7])).permutation(n_latents)[:limit].tolist())


def _random_pages(
    inputs: SiteInputs, place: SaePageContext, settings: Site, folder: Path, shared: Mapping[str, object]
) -> list[dict[str, object]]:
    """Write pages of some latents of the random dictionary; what the SAE's page lists of them."""
    scene = _scene(inputs, place, settings, "random")
    if not scene.links.pages:
        return []
    (folder / "random").mkdir()
    _latent_pages(scene, folder / "random", shared, random=True)
    labels = scene.tables.labels
    return [
        {"latent": latent, "label": labels[latent]["label"], "score": short(labels[latent].get("random_score"))}
        for latent in sorted(scene.links.pages)
    ]


def _latent_pages(scene: Scene, folder: Path, shared: Mapping[str, object], random: bool = False) -> list[int]:
    order = sorted(scene.links.pages)
    after = dict(pairwise(order))
    before = {later: earlier for earlier, later in after.items()}
    sizes = []
    with progress(len(order), "random pages" if random else "pages", "latent") as shown:
        for firings in scene.corpora.firings():
            latent = firings.latent
            if latent not in scene.links.pages:
                continue
            around = {"before": before.get(latent), "after": after.get(latent)}
            page = _rendered({**shared, **around, **latent_page(scene, firings), "random": random})
            (folder / f"{latent}.html").write_bytes(page)
            sizes.append(len(page))
            shown.update(1)
    return sizes


def _rendered(values: dict[str, Any]) -> bytes:
    """The page of a latent, with fewer contexts where all would make it too large."""
    page = render("latent.html", LATENT_ROOT, **values)
    while len(page) > PAGE_BYTES:
        fewer = fewer_lines(values["groups"], len(page) - PAGE_BYTES)
        if fewer == values["groups"]:
            break
        values["groups"] = fewer
        page = render("latent.html", LATENT_ROOT, **values)
    return page


def _scene(inputs: SiteInputs, place: SaePageContext, settings: Site, dictionary: str = "sae") -> Scene:
    try:
        sae = load_sae(inputs.sae)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    identity, random = identity_of(inputs.sae, place.hook, place.seed), dictionary == "random"
    expected = identity | {"dictionary": dictionary, "tokenizer_sha256": tokenizer_sha256(inputs.model)}
    paths = inputs.random_codes if random else inputs.codes
    codes = {name: Codes.open(path, expected | {"corpus": name}) for name, path in paths.items()}
    sha256 = identity["sae_sha256"]
    tables = Tables.of_random(inputs.tables, sha256) if random else Tables.read(inputs.tables, place.seed, sha256)
    if tables.n_latents != sae.n_latents or tables.corpora != list(codes):
        raise EvaluationError(
            f"{inputs.tables.latents}: {tables.n_latents} latents on {tables.corpora}, but the SAE has {sae.n_latents} "
            f"and there are codes of {list(codes)}; delete this table and run again"
        )
    W_dec = random_decoder(sae, place.seed) if random else sae.W_dec
    table = TokenTable.of(inputs.model)
    contexts = ContextSettings(
        settings.top_contexts, settings.strata, settings.contexts_per_stratum, settings.window_tokens
    )
    return Scene(
        tables,
        Corpora(codes),
        TokenPieces.of(inputs.model, table),
        contexts,
        _read_by_head(inputs.model, place.hook, lambda loaded: find_promoted(W_dec, loaded, table.texts)),
        *nearest_latents(W_dec.float().numpy(), settings.neighbours),
        _random_links(tables, settings) if random else _links(sae, place, settings),
        effects=None if random or inputs.effects is None else Effects.read(inputs.effects, sha256),
    )


def _links(sae: Sae, place: SaePageContext, settings: Site) -> Links:
    seeds = {seed: f"../../seed-{seed}/latents" for seed in place.seeds if seed != place.seed}
    return Links(chosen_latents(sae.n_latents, settings.latents_per_sae), seeds)


def _random_links(tables: Tables, settings: Site) -> Links:
    firing = np.flatnonzero(tables.at_home.n_firings.to_numpy() > 0)
    drawn = np.random.Generator(np.random.PCG64([tables.n_latents, 8])).permutation(firing)
    return Links(frozenset(drawn[: settings.random_latents].tolist()))


def _read_by_head(model: Path, hook: str, find: Callable[[LoadedModel], Found]) -> Found | None:
    """Return what latents do to the output; nothing where the head does not read what they write."""
    if HookPoint.parse(SaeHooks.parse(hook).target).site not in _READ_BY_HEAD:
        return None
    return find(load_model(model, torch.device("cpu")))
