"""Words in their prompts through a model: what stands at their last token, at all hooks."""

from pathlib import Path

import torch

from atlas.absorption.words import GROUP, SpellingPrompts, SpellingWords, choose_words, vocabulary_words, word_prompts
from atlas.config.downstream import Absorption
from atlas.corpora.encoding import make_encoder
from atlas.models.load import LoadedModel, load_model
from atlas.probing.last_token import last_token_rows
from atlas.probing.rows import write_rows


def read_words(model: Path, hooks: list[str], settings: Absorption, device: torch.device, target: Path) -> None:
    """Write the rows of words (see `make_word_rows`) of a prepared model."""
    make_word_rows(load_model(model, device), model, hooks, settings, target)


def make_word_rows(
    loaded: LoadedModel, model_folder: Path, hooks: list[str], settings: Absorption, target: Path
) -> None:
    """Activations at the last token of every chosen word, after solved examples, at all hooks.

    Where the measure has no meaning, the file has no rows and says why: for a model that is not causal, in which what
    follows a word is part of its activation, and for a vocabulary with too few words to make a prompt of.
    """
    encoder = make_encoder(model_folder, "plain")
    words, reason = choose_words(vocabulary_words(encoder), settings.words_per_letter), None
    if loaded.objective != "causal_lm":
        reason = f"the model's objective is {loaded.objective}: first-letter absorption is defined for causal_lm"
    elif len(words.texts) <= settings.examples:
        reason = f"the vocabulary has {len(words.texts)} words of one token, a prompt needs {settings.examples + 1}"
    if reason is not None:
        words = SpellingWords([], [])
    none = SpellingPrompts([], [])
    prompts = word_prompts(encoder, words, settings.examples, settings.example_sets) if words.texts else none
    rows = last_token_rows(loaded, prompts.ids, hooks, title="words", alike=prompts.alike)
    identity = {key: loaded.identity[key] for key in ("name", "weights_sha256", "tokenizer_sha256")}
    letters = torch.tensor(words.letters, dtype=torch.int64)
    write_rows(target, {GROUP: rows}, {GROUP: letters}, {"words": words.texts, "model": identity, "reason": reason})
