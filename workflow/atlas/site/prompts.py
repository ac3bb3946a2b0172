"""A page of the reader's own sentences: which latents of each SAE fire on them, and on which token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas.activations.texts import TextRows, read_texts
from atlas.config.site import Prompts
from atlas.errors import SourceError
from atlas.files import atomic_path
from atlas.latents.token_classes import TokenTable
from atlas.massive import MASSIVE_FACTOR
from atlas.models.load import load_model
from atlas.sae_ids import SaeId
from atlas.site.pages import FOLDER, write_page
from atlas.site.run import chosen_latents
from atlas.site.text import TokenPieces, highlighted
from atlas.training.sae import load_sae


@dataclass(frozen=True)
class PromptedSae:
    """An SAE: its id, its folder, the hook it reads, and the way from the page to its pages in the atlas, if any."""

    sae_id: str
    folder: Path
    hook: str
    pages: str | None


def read_prompts(path: Path) -> list[str]:
    """The sentences of a text file, one a line; raises SourceError when it has none, or is no UTF-8."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror}); expected a text file, one sentence a line"
        ) from error
    if not (texts := [line.strip() for line in lines if line.strip()]):
        raise SourceError(f"{path}: has no text; write one sentence a line")
    return texts


@torch.inference_mode()
def write_prompts_page(
    study: str,
    name: str,
    source: Path,
    models: Mapping[str, Path],
    saes: Sequence[PromptedSae],
    settings: Prompts,
    latents_per_sae: int | None,
    target: Path,
) -> None:
    """Write the page of the sentences in `source` for every SAE of a study; `models` maps names to prepared folders.

    `latents_per_sae` is how many latents of an SAE have pages. The page holds its own style and no script. Raises
    SourceError when there is no text, AtlasError for one that is longer than the model's positions.
    """
    texts = read_prompts(source)
    shown = []
    for model, folder in models.items():
        own = [sae for sae in saes if SaeId.parse(sae.sae_id).model == model]
        found = read_texts(
            load_model(folder, torch.device("cpu")), folder, texts, list(dict.fromkeys(sae.hook for sae in own))
        )
        pieces = TokenPieces.of(folder, TokenTable.of(folder))
        shown += [_sae(sae, found[sae.hook], pieces, settings, latents_per_sae) for sae in own]
    with atomic_path(target) as temporary:
        style = (FOLDER / "assets" / "atlas.css").read_text(encoding="utf-8")
        write_page(temporary, "prompts.html", "", study=study, name=name, saes=shown, style=style, n_texts=len(texts))


def _sae(
    sae: PromptedSae, texts: Sequence[TextRows], pieces: TokenPieces, settings: Prompts, limit: int | None
) -> dict[str, Any]:
    dictionary = load_sae(sae.folder)
    norms = torch.cat([text.rows.norm(dim=1)[torch.from_numpy(text.counted)] for text in texts])
    highest = MASSIVE_FACTOR * norms.median().item()
    linked = frozenset() if sae.pages is None else chosen_latents(dictionary.n_latents, limit)

    def link(latent: int) -> str | None:
        return f"{sae.pages}/latents/{latent}.html" if latent in linked else None

    return {
        "title": SaeId.parse(sae.sae_id).title,
        "index": None if sae.pages is None else f"{sae.pages}/index.html",
        "n_latents": dictionary.n_latents,
        "texts": [_text(text, dictionary.encode(text.rows), highest, pieces, link, settings) for text in texts],
    }


def _text(
    text: TextRows, latents: Tensor, highest: float, pieces: TokenPieces, link: Any, settings: Prompts
) -> dict[str, Any]:
    """The strongest latents with the sentence as each sees it, and those of each token.

    A massive activation would be the peak of every latent that fires on it: the strongest are chosen on the others.
    """
    massive = (text.rows.norm(dim=1) > highest).numpy()
    chosen_on = torch.from_numpy(text.counted & ~massive)
    peaks = (latents * chosen_on[:, None]).max(dim=0)
    order = peaks.values.topk(min(settings.latents_per_text, len(peaks.values)))
    lines = [
        {
            "latent": latent,
            "link": link(latent),
            "peak": f"{value:.3g}",
            "text": highlighted(
                pieces, text.ids, latents[:, latent].tolist(), value, int(peaks.indices[latent]), massive.tolist()
            ),
        }
        for latent, value in zip(order.indices.tolist(), order.values.tolist(), strict=True)
        if value > 0
    ]
    return {"lines": lines, "tokens": _tokens(text, latents, massive, pieces, link, settings)}


def _tokens(
    text: TextRows, latents: Tensor, massive: Any, pieces: TokenPieces, link: Any, settings: Prompts
) -> list[dict[str, Any]]:
    found = []
    for place, values in enumerate(latents):
        strongest = values.topk(min(settings.latents_per_token, len(values)))
        fired = [
            {"latent": latent, "value": f"{value:.3g}", "link": link(latent)}
            for latent, value in zip(strongest.indices.tolist(), strongest.values.tolist(), strict=True)
            if value > 0
        ]
        note = "massive activation" if massive[place] else "" if text.counted[place] else "not of the text"
        found.append(
            {"token": pieces.text(text.ids[place]), "fired": fired, "n": int((values > 0).sum()), "note": note}
        )
    return found
