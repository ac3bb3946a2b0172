"""Template brittleness: what an SAE does differently on the same tokens in other surroundings."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int
from torch import Tensor

from atlas.errors import EvaluationError
from atlas.evaluation.chunks import chunk_rows
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.finance.estimates import SHARE, Estimate, per_group
from atlas.finance.text import KindedRows
from atlas.latents.drift import js_divergence
from atlas.training.sae import Sae

_LONGEST_WRAPPER = 1024


@dataclass(frozen=True, eq=False)
class Matched:
    """The same tokens of the same documents in several corpora: row i of each is one token, `group` its document's."""

    rows: Mapping[str, Int[np.ndarray, " tokens"]]
    group: Int[np.ndarray, " tokens"]
    n_groups: int


def match_tokens(plain: KindedRows, others: Mapping[str, KindedRows]) -> Matched:
    """Tokens that are usable in `plain` and in all of `others`, which hold its documents in other wrappers.

    Raises EvaluationError when a document of both is not the same text, or when nothing is left to compare.
    """
    rows = np.arange(len(plain.tokens))
    places = {name: np.full(len(rows), -1) for name in others}
    by_document = {name: _rows_by_document(text) for name, text in {"": plain, **others}.items()}
    for document, ours in by_document[""].items():
        for name, text in others.items():
            theirs = by_document[name].get(document)
            if theirs is not None:
                first = _offset(plain.tokens[ours], text.tokens[theirs], f"{text.name}, document {document}")
                n = min(len(ours), len(theirs) - first)
                places[name][ours[:n]] = theirs[first : first + n]
    shared = plain.usable.copy()
    for name, text in others.items():
        shared &= (places[name] >= 0) & text.usable[np.maximum(places[name], 0)]
    if not shared.any():
        raise EvaluationError(f"{', '.join(text.name for text in others.values())}: no token is also in {plain.name}")
    found = {"plain": rows[shared], **{name: place[shared] for name, place in places.items()}}
    # Rows of all corpora rise together: documents stand in one order in all of them.
    return Matched(found, plain.groups.index(plain.document[shared]), plain.groups.count)


def _rows_by_document(text: KindedRows) -> dict[int, Int[np.ndarray, " rows"]]:
    """Return the indices of each document's counted rows, in order."""
    rows = np.flatnonzero(text.counted & (text.document >= 0))
    parts = np.split(rows, np.flatnonzero(np.diff(text.document[rows])) + 1) if len(rows) else []
    return {int(text.document[part[0]]): part for part in parts}


def _offset(ours: np.ndarray, theirs: np.ndarray, where: str) -> int:
    """Return the number of wrapper tokens before the document."""
    for first in range(min(len(theirs), _LONGEST_WRAPPER)):
        n = min(len(ours), len(theirs) - first)
        if n and (ours[:n] == theirs[first : first + n]).all():
            return first
    raise EvaluationError(f"{where}: has not the tokens of the same document without its wrapper; is it another text?")


class TemplateTotals:
    """One dictionary on the matched tokens of all corpora, `plain` among them; sums per document group."""

    def __init__(self, sae: Sae, texts: Mapping[str, KindedRows], matched: Matched, center: Float[Tensor, " d_model"]):
        self._names, self._n_groups = list(texts), matched.n_groups
        self._sums = {name: ReconstructionSums.start(center, matched.n_groups) for name in texts}
        self._counts = {name: np.zeros((sae.n_latents, matched.n_groups)) for name in texts}
        self._turnover = {name: np.zeros(matched.n_groups) for name in texts}
        self._tokens = per_group(np.ones(len(matched.group)), matched.group, matched.n_groups)
        for chunk in np.array_split(np.arange(len(matched.group)), -(-len(matched.group) // chunk_rows(sae))):
            self._add(sae, texts, matched, chunk)

    @torch.inference_mode()
    def _add(self, sae: Sae, texts: Mapping[str, KindedRows], matched: Matched, chunk: np.ndarray) -> None:
        group = matched.group[chunk]
        owners = torch.from_numpy(group).to(sae.W_dec.device)
        plain = None
        for name in self._names:
            values = texts[name].read(matched.rows[name][chunk]).to(sae.W_dec.device)
            codes = sae.encode(values)
            self._sums[name].update(values, sae.decode(codes, values), owners)
            fired = codes > 0
            plain = fired if plain is None else plain
            row, latent = (index.cpu().numpy() for index in fired.nonzero(as_tuple=True))
            np.add.at(self._counts[name], (latent, group[row]), 1)
            either = (fired | plain).sum(1)
            kept = torch.where(either > 0, (fired & plain).sum(1) / either.clamp(min=1), 1.0)
            self._turnover[name] += per_group(1 - kept.cpu().numpy(), group, self._n_groups)

    def explained_change(self, name: str, samples: int) -> Estimate:
        """Explained variance on the matched tokens in corpus `name` less that in `plain`."""
        here, there = self._sums[self._names[0]], self._sums[name]
        return Estimate.of(lambda draws: there.explained(draws) - here.explained(draws), self._n_groups, samples)

    def turnover(self, name: str, samples: int) -> Estimate:
        """Mean over tokens of 1 − |A ∩ B| / |A ∪ B|, A and B the latents that fire on a token in `plain` and `name`."""
        above = self._turnover[name]
        return Estimate.of(lambda draws: (draws @ above) / (draws @ self._tokens), self._n_groups, samples, SHARE)

    def rate_divergence(self, name: str, samples: int) -> Estimate:
        """Jensen–Shannon divergence, bits, of the shares of all firings that latents have in `plain` and in `name`."""
        first, second = self._counts[self._names[0]], self._counts[name]

        def divergence(draws: np.ndarray) -> np.ndarray:
            pairs = zip((first @ draws.T).T, (second @ draws.T).T, strict=True)
            return np.array([js_divergence(*pair) for pair in pairs])

        return Estimate.of(divergence, self._n_groups, samples, SHARE)


def rows_moved(texts: Mapping[str, KindedRows], matched: Matched, name: str, samples: int) -> Estimate:
    """Σ‖x' − x‖² / Σ‖x − x̄‖² over matched tokens: how far the activations themselves move, whatever the SAE."""
    width = texts["plain"].read(matched.rows["plain"][:1]).shape[1]
    plain = ReconstructionSums.start(torch.zeros(width), matched.n_groups)
    for chunk in np.array_split(np.arange(len(matched.group)), -(-len(matched.group) // 4096)):
        here, there = (texts[key].read(matched.rows[key][chunk]) for key in ("plain", name))
        plain.update(here, there, torch.from_numpy(matched.group[chunk]))
    return Estimate.of(lambda draws: 1 - plain.explained(draws), matched.n_groups, samples, (0.0, np.inf))
