"""Which words are read, and the prompts in which they stand."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from atlas.corpora.encoding import Encoder

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SOLVED = "{word} has the first letter: {letter}"


@dataclass(frozen=True)
class Words:
    """Single-token words (with a leading space where the vocabulary has one) and the place of their letter, 0 to 25."""

    texts: list[str]
    letters: list[int]


def vocabulary_words(encoder: Encoder) -> list[str]:
    """Entries of the vocabulary that are words: ASCII letters only, after at most one space, two letters or more.

    A single letter is its own first letter: nothing would have to be known.
    """
    tokenizer, words = encoder.tokenizer, set()
    for index in range(len(tokenizer)):
        if index in encoder.not_counted:
            continue
        text = tokenizer.decode([index])
        word = text.removeprefix(" ")
        if len(word) > 1 and word.isascii() and word.isalpha():
            words.add(text)
    return sorted(words)


def choose_words(words: Sequence[str], per_letter: int, seed: int = 0) -> Words:
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
    return Words(texts, [place for place, group in enumerate(kept) for _ in group])


def prompt_ids(encoder: Encoder, words: Words, examples: int, seed: int = 0) -> list[list[int]]:
    """Ids of a prompt per word: `examples` solved ones, each with another word, then the word itself, last.

    There must be more words than `examples`. Nothing follows the word: in a causal model its activation cannot depend
    on it. Where the tokenizer writes the word in several tokens in this place, the last one is read.
    """
    generator, texts = random.Random(seed), []
    for word in words.texts:
        others = generator.sample(words.texts, examples + 1)
        solved = [other for other in others if other != word][:examples]
        lines = [_SOLVED.format(word=other, letter=other.strip()[0].upper()) for other in solved]
        texts.append("".join(f"\n{line}" for line in [*lines, word]))
    return [[*encoder.prefix, *ids[:-1]] for ids in encoder.encode(texts)]  # without the separator of documents
