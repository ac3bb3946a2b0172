"""Latents whose meaning is known: codes on made text, and an embedding that counts words."""

from pathlib import Path

import numpy as np
from latent_scene import LENGTH, TABLE, TEXTS, FakeTokenizer, random_tokens, write_codes

from atlas.autointerp.examples import AllExamples, choose_examples, nearest_latents
from atlas.autointerp.explainers import lexical
from atlas.autointerp.scorers import embedding
from atlas.autointerp.tools import LatentExamples, ScorerTools, Tools
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords
from atlas.config.autointerp import Autointerp
from atlas.latents.token_classes import TokenTable

GAMMA, N_CONTEXTS, WIDTH = TEXTS.index("gamma"), 160, 5
# Every firing counts here; the tests of `activating_share` set it.
SETTINGS = Autointerp(
    window_tokens=WIDTH, activating_share=None, neighbours=2, swaps=4, train_examples=40, top_examples=20
)
WORDS = TEXTS[6:]
# As in most vocabularies, a token that begins a word begins with its space.
SPACED = TokenTable(TABLE.classes, [*TEXTS[:6], *(f" {word}" for word in WORDS)])


def bag_of_words(texts) -> np.ndarray:
    """Counts of the scene's words; texts without any have a vector of their own, which no other meets."""
    counts = np.zeros((len(texts), len(WORDS) + 1), np.float32)
    for row, text in enumerate(texts):
        for word in text.replace(",", " ").split():
            if word in WORDS:
                counts[row, WORDS.index(word)] += 1
        if not counts[row].any():
            counts[row, -1] = 1
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class LabelScene:
    """Latent 0 fires on "gamma" alone, the others at random; `W_dec` are orthogonal unless given."""

    def __init__(self, folder: Path, n_latents: int = 12, dense=None, W_dec=None, client=None, **settings):
        self.settings = SETTINGS.model_copy(update=settings)
        self.tokens = random_tokens(N_CONTEXTS)
        if dense is None:
            dense = planted(self.tokens, n_latents)
        self.codes = write_codes(folder / "chat.h5", dense, self.tokens)
        self.dense, self.W_dec = dense, np.eye(dense.shape[1]) if W_dec is None else W_dec
        self.windows = Windows.of({"chat": self.codes}, WIDTH)
        self.tools = Tools(self.windows, WindowWords.find(self.windows, SPACED), SPACED, FakeTokenizer(), client, 0)
        self.scorer = embedding(ScorerTools(self.tools, bag_of_words, None))

    def examples(self, seed: int = 0) -> AllExamples:
        neighbours = nearest_latents(self.W_dec, self.settings.neighbours)
        return choose_examples([self.codes], self.windows, neighbours, self.settings, seed)

    def labels(self, examples: AllExamples) -> list[str | None]:
        return lexical([LatentExamples(own, ()) for own in examples.latents], self.tools)


def planted(tokens: np.ndarray, n_latents: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    dense = (generator.random((len(tokens), n_latents)) < 0.05) * (1 + generator.random((len(tokens), n_latents)))
    dense[:, 0] = (tokens == GAMMA) * (1 + generator.random(len(tokens)))
    dense[tokens == 0] = 0
    return dense


__all__ = ["GAMMA", "LENGTH", "SETTINGS", "WIDTH", "LabelScene", "bag_of_words", "planted"]
