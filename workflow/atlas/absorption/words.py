"""Words that are read, and the prompts that hold them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from atlas.token_text import texts_inside

if TYPE_CHECKING:  # the encoder's module takes seconds to import
    from atlas.corpora.encoding import Encoder

# Under which rows of words are kept.
GROUP = "words"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SOLVED = "{word} has the first letter: {letter}"


@dataclass(frozen=True)
class SpellingWords:
    """Single-token words (with a leading space where the vocabulary has one) and the place of their letter, 0 to 25."""

    texts: list[str]
    letters: list[int]


def vocabulary_words(encoder: "Encoder") -> list[str]:
    """Entries of the vocabulary that are words: ASCII letters only, after at most one space, two letters or more.

    Single letters are left out: naming their first letter needs no knowledge of spelling.
    """
    tokenizer, words = encoder.tokenizer, set()
    indices = [index for index in range(len(tokenizer)) if index not in encoder.not_counted]
    for text in texts_inside(tokenizer, [[index] for index in indices]):
        word = text.removeprefix(" ")
        if len(word) > 1 and word.isascii() and word.isalpha():
            words.add(text)
    return sorted(words)


def choose_words(words: Sequence[str], per_letter: int, seed: int = 0) -> SpellingWords:
    """At most `per_letter` words of each letter, drawn with a fixed seed; one spelling of words that differ in case or
    in the leading space alone, so that training and test words are different words.
    """
    generator = random.Random(seed)
    spellings: dict[str, list[str]] = {}
    for word in words:
        spellings.setdefault(word.strip().lower(), []).append(word)
    chosen = {word: generator.choice(same) for word, same in sorted(spellings.items())}
    by_letter = [[text for word, text in chosen.items() if word[0] == letter] for letter in LETTERS]
    kept = [generator.sample(group, min(per_letter, len(group))) for group in by_letter]
    texts = [text for group in kept for text in group]
    return SpellingWords(texts, [place for place, group in enumerate(kept) for _ in group])


@dataclass(frozen=True)
class SpellingPrompts:
    """Ids of a prompt per word, and the places of words whose prompts have the same solved examples."""

    ids: list[list[int]]
    alike: list[list[int]]


def word_prompts(
    encoder: "Encoder", words: SpellingWords, examples: int, n_sets: int, seed: int = 0
) -> SpellingPrompts:
    """A prompt per word: `examples` solved ones, each with another word, then the word itself, last.

    There are `n_sets` sets of examples, and one more for a word that is in all of them; each word gets one by chance,
    whatever its letter. There must be more words than `examples`. Nothing follows the word: in a causal model its
    activation cannot depend on it. Where the tokenizer writes the word in several tokens in this place, the last one
    is read.
    """
    generator, texts = random.Random(seed), words.texts
    sets = [generator.sample(texts, examples) for _ in range(n_sets)]
    alike: dict[int, list[int]] = {}
    prompts = []
    for place, word in enumerate(texts):
        free = [number for number, members in enumerate(sets) if word not in members]
        if not free:
            free = [len(sets)]
            sets.append(generator.sample([other for other in texts if other != word], examples))
        chosen = generator.choice(free)
        alike.setdefault(chosen, []).append(place)
        lines = [_SOLVED.format(word=other, letter=other.strip()[0].upper()) for other in sets[chosen]]
        prompts.append("".join(f"\n{line}" for line in [*lines, word]))
    encoded = cast(list[list[int]], encoder.encode(prompts))
    ids = [[*encoder.prefix, *each[:-1]] for each in encoded]  # without the separator of documents
    return SpellingPrompts(ids, list(alike.values()))
