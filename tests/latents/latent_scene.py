"""Planted codes: a dense (rows, latents) array becomes a codes file, on text whose tokens are chosen."""

import json
from pathlib import Path

import numpy as np

from atlas.codes.layout import IDENTITY
from atlas.codes.store import Codes
from atlas.codes.writer import CodeRows, CodesWriter
from atlas.config.latents import Embedder as EmbedderSpec
from atlas.latents.text import CorpusText
from atlas.latents.token_classes import CLASSES, TokenTable
from tiny import tiny_bert

# One token id per class, and ten words.
TEXTS = ["<s>", "\n", " ", "7", ",", "**", *"alpha beta gamma delta epsilon zeta eta theta iota kappa".split()]
TABLE = TokenTable(np.array([*range(6), *[CLASSES.index("word")] * 10], np.uint8), TEXTS)
LENGTH = 20


class FakeTokenizer:
    def __len__(self) -> int:
        return len(TEXTS)

    def decode(self, ids, **options) -> str:
        return " ".join(TEXTS[index] for index in ids)


def write_codes(
    path: Path,
    dense: np.ndarray,
    tokens: np.ndarray,
    contexts_per_document: int = 2,
    counted: np.ndarray | None = None,
    massive: np.ndarray | None = None,
    block_rows: int = 64,
    **identity,
) -> Codes:
    """Documents of whole contexts; tokens with id 0 are not counted unless `counted` says otherwise."""
    n_rows = len(tokens)
    document = np.arange(n_rows) // (LENGTH * contexts_per_document)
    counted = tokens != 0 if counted is None else counted
    massive = np.zeros(n_rows, bool) if massive is None else massive
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = CodesWriter(path, dense.shape[1], CodeRows(tokens, document, counted, massive), block_rows)
    for first in range(0, n_rows, block_rows):
        row, latent = np.nonzero(dense[first : first + block_rows])
        writer.write(latent, row + first, dense[first + row, latent].astype(np.float32))
    known = dict.fromkeys(IDENTITY, "x") | {"context_length": LENGTH, "corpus": "chat", "corpus_fingerprint": "f"}
    writer.finish(known | identity)
    return Codes.open(path)


def text_of(codes: Codes, role: str = "in_sample") -> CorpusText:
    return CorpusText.of(codes, role, TABLE, 1)


def random_tokens(n_contexts: int, seed: int = 0, words: float = 0.7) -> np.ndarray:
    """Words with the given share, else one token of the other classes; first of each context special."""
    generator = np.random.default_rng(seed)
    tokens = np.where(
        generator.random(n_contexts * LENGTH) < words,
        generator.integers(6, 16, n_contexts * LENGTH),
        generator.integers(1, 6, n_contexts * LENGTH),
    )
    tokens[::LENGTH] = 0
    return tokens


def random_firings(tokens: np.ndarray, rates, seed: int = 0) -> np.ndarray:
    """Each latent fires at its rate, with activations uniform in [1, 2]."""
    generator = np.random.default_rng(seed)
    shape = (len(tokens), len(rates))
    return (generator.random(shape) < np.asarray(rates)) * (1 + generator.random(shape))


MODULES = ["Transformer", "Pooling", "Normalize"]


def sentence_model(folder: Path, modules=MODULES, mode: str = "pooling_mode_mean_tokens") -> EmbedderSpec:
    """A tiny BERT with the files that sentence-transformers puts beside it."""
    tiny_bert(folder)
    listed = [{"type": f"sentence_transformers.models.{name}", "path": f"{i}_{name}"} for i, name in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, mode: True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    return EmbedderSpec(source={"kind": "path", "path": str(folder)}, n_layers=3, d_model=32)
