"""Plant latents whose meaning is known in the real evaluation text: the ceilings and the floor of every score.

A planted latent is a set of tokens on which it fires, with activations. It goes through the code that real latents go
through. Classes whose text does not suffice, and English word lists in other languages, have fewer latents or none.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords
from atlas.codes.store import Codes, LatentEntries
from atlas.latents.token_classes import CLASSES, TokenTable

# Words of a class are chosen by the share of windows that have them.
_FREQUENT, _RARE, _RARE_MIN_WINDOWS = (0.05, 0.25), 0.05, 30
_MIN_WINDOWS = 20
_SPELLED = 0.1  # letters that begin fewer tokens
_NEAR = 2  # windows to either side
_WEAK = 0.3  # strongest activation of the background; those of the meaning begin at 1
_CLOSED = {
    "pronouns": "he she they we i you him her them us me",
    "possessives": "his their our my your its her",
    "modal verbs": "can could may might must shall should will would",
    "prepositions": "at by from into on over under with between through during against",
    "conjunctions": "and but or so because although while if unless",
    "forms of be": "is are was were be been being am",
    "forms of have": "have has had having",
    "question words": "who what when where why how which",
    "numerals": "one two three four five six seven eight nine ten hundred thousand million billion",
    "months": "january february march april june july august september october november december",
    "negations": "not no never none nothing nobody neither nor",
    "time words": "today yesterday tomorrow year years month months week weeks day days hour hours",
}
_TOPICS = {
    "computing": "code function file python data server user string class error api html javascript software input",
    "politics": "government president minister election party parliament vote political leader policy senate state",
    "war": "war army military forces troops attack killed soldiers battle weapons police security violence",
    "money": "bank market company percent price tax growth economic economy trade investment financial business",
    "health": "health medical patients disease hospital treatment doctor virus body drug cancer symptoms",
    "sport": "game team season player players match league cup win played goal coach championship",
    "school": "students school university education teacher learning course study research science",
    "film and music": "film music song album movie band story character television series book novel",
    "food": "food eat water cooking sugar recipe meat restaurant dish salt oil",
    "people": "family children mother father woman man wife son daughter parents",
    "geography": "river city north south mountain island region country population coast lake area",
    "religion": "god church religious christian muslim islam holy religion faith prayer jesus bible",
}


@dataclass(frozen=True, eq=False)
class Text:
    """Windows with their words, and how many planted latents of a class are wanted."""

    windows: Windows
    words: WindowWords
    tokens: TokenTable
    count: int
    generator: np.random.Generator

    @cached_property
    def of(self) -> Int[np.ndarray, "windows width"]:
        """Word of every counted token, −1 elsewhere."""
        return np.where(self.windows.counted, self.words.of, -1)

    @cached_property
    def n_windows(self) -> Int[np.ndarray, " words"]:
        """Number of windows that have each word."""
        rows = np.repeat(np.arange(len(self.of)), self.of.shape[1])
        pairs = np.unique(np.stack([rows, self.of.reshape(-1)])[:, self.of.reshape(-1) >= 0], axis=1)
        return np.bincount(pairs[1], minlength=len(self.words.texts))

    @cached_property
    def plain(self) -> Bool[np.ndarray, " words"]:
        """Words of at least three letters."""
        return np.array([text.isalpha() and len(text) >= 3 for text in self.words.texts])

    def fires_on(self, words: Sequence[int]) -> Bool[np.ndarray, "windows width"]:
        """Tokens of these words."""
        return np.isin(self.of, words)

    def some(self, candidates: np.ndarray) -> list:
        """As many of the candidates as are wanted, at random."""
        order = self.generator.permutation(len(candidates))[: self.count]
        return [candidates[index] for index in order]


# Yields the meaning of each latent of a class, and the tokens on which it fires.
Planting = Callable[[Text], Iterator[tuple[str, Bool[np.ndarray, "windows width"]]]]


def _single(text: Text, low: float, high: float) -> Iterator[tuple[str, np.ndarray]]:
    fits = text.plain & (text.n_windows >= low) & (text.n_windows < high)
    for word in text.some(np.flatnonzero(fits)):
        yield text.words.texts[word], text.fires_on([word])


def _frequent_word(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    low, high = (share * len(text.windows) for share in _FREQUENT)
    return _single(text, max(low, _RARE_MIN_WINDOWS), high)


def _rare_word(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    return _single(text, _RARE_MIN_WINDOWS, max(_RARE * len(text.windows), _RARE_MIN_WINDOWS + 1))


def _word_class(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    number = {word: index for index, word in enumerate(text.words.texts)}
    for name, members in _CLOSED.items():
        yield name, text.fires_on([number[word] for word in members.split() if word in number])


def _word_in_context(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    """A word only after one certain other word, where it is more often without it."""
    of, plain = text.of, np.append(text.plain, False)
    before, after = of[:, :-1], of[:, 1:]
    good = plain[before] & plain[after] & (before != after)
    window = np.broadcast_to(np.arange(len(of))[:, None], good.shape)[good]
    pairs = np.unique(np.stack([before[good], after[good], window]), axis=1)
    both, counts = np.unique(pairs[:2], axis=1, return_counts=True)
    fits = (counts >= _MIN_WINDOWS) & (counts < 0.5 * text.n_windows[both[1]])
    for first, second in text.some(both[:, fits].T):
        mask = np.zeros(of.shape, bool)
        mask[:, 1:] = (before == first) & (after == second)
        yield f"{text.words.texts[second]} after {text.words.texts[first]}", mask


def _topic(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    """Every token of the windows with a word of the topic, where the neighbouring windows have a second one."""
    number = {word: index for index, word in enumerate(text.words.texts)}
    document = text.windows.document
    for name, members in _TOPICS.items():
        known = [number[word] for word in members.split() if word in number]
        if not known:
            continue
        present = np.stack([(text.of == word).any(1) for word in known])
        near = present.copy()
        for shift in range(1, _NEAR + 1):
            same = document[shift:] == document[:-shift]
            near[:, shift:] |= present[:, :-shift] & same
            near[:, :-shift] |= present[:, shift:] & same
        yield name, (present.any(0) & (near.sum(0) >= 2))[:, None] & text.windows.counted


def _form(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    """Formats and places, which no word names."""
    tokens = text.windows.tokens
    texts = [text.tokens.texts[token] for token in np.unique(tokens)]
    place = np.searchsorted(np.unique(tokens), tokens)

    def where(condition: Callable[[str], bool]) -> np.ndarray:
        return np.array([condition(each) for each in texts])[place]

    newline, digit = where(lambda each: "\n" in each), text.tokens.classes[tokens] == CLASSES.index("digit")
    opened = np.cumsum(where(lambda each: "(" in each) - 1 * where(lambda each: ")" in each), axis=1) > 0
    upper = where(lambda each: len(each.strip()) > 1 and each.strip().isalpha() and each.strip().isupper())
    title = where(lambda each: each[:1] == " " and each.strip().isalpha() and each.strip().istitle())
    after = np.zeros(tokens.shape, bool)
    after[:, 1:] = newline[:, :-1] & ~newline[:, 1:]
    yield from (("after a newline", after), ("digits", digit), ("in brackets", opened))
    yield from (("in capitals", upper), ("capitalised", title))


def _before_token(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    """Every token before one certain token."""
    tokens, width = text.windows.tokens, text.windows.width
    used, place = np.unique(tokens, return_inverse=True)
    rows = np.repeat(np.arange(len(tokens)), width)
    n_windows = np.bincount(np.unique(np.stack([rows, place.reshape(-1)]), axis=1)[1], minlength=len(used))
    fits = (n_windows >= _RARE_MIN_WINDOWS) & (n_windows < _FREQUENT[1] * len(tokens))
    for token in text.some(used[fits]):
        mask = np.zeros(tokens.shape, bool)
        mask[:, :-1] = (tokens[:, 1:] == token) & text.windows.counted[:, :-1]
        yield f"before “{text.tokens.texts[token]}”", mask


def _spelling(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    """Tokens that begin with a certain letter, not one of the most frequent."""
    first = np.array([each.strip().lower()[:1] for each in text.tokens.texts])[text.windows.tokens]
    first = np.where(text.windows.counted, first, "")
    letters, counts = np.unique(first[np.char.isalpha(first)], return_counts=True)
    for letter in text.some(letters[counts < _SPELLED * first.size]):
        yield f"begins with {letter}", first == letter


def _two_words(text: Text) -> Iterator[tuple[str, np.ndarray]]:
    """Two words that share hardly a window."""
    fits = text.plain & (text.n_windows >= _MIN_WINDOWS) & (text.n_windows < _FREQUENT[1] * len(text.windows) / 2)
    words = text.generator.permutation(np.flatnonzero(fits))[: 2 * text.count]
    for first, second in zip(words[::2], words[1::2], strict=False):
        mask = text.fires_on([first, second])
        yield f"{text.words.texts[first]}, {text.words.texts[second]}", mask


MEANINGFUL: dict[str, Planting] = {
    "frequent_word": _frequent_word,
    "rare_word": _rare_word,
    "word_class": _word_class,
    "word_in_context": _word_in_context,
    "topic": _topic,
    "form": _form,
    "before_token": _before_token,
    "spelling": _spelling,
    "two_words": _two_words,
}
RANDOM = "random_firing"
# The planted dictionary: latents of all meanings, as dense as the median latent of the dictionary.
ALL = "all"
PLANTED_CLASSES = (*MEANINGFUL, RANDOM)


@dataclass(frozen=True, eq=False)
class PlantedCodes:
    """Codes of planted latents on one corpus; the part of Codes that examples are chosen from."""

    counted: Bool[np.ndarray, " rows"]
    massive: Bool[np.ndarray, " rows"]
    rows: list[Int[np.ndarray, " entries"]]
    values: list[Float[np.ndarray, " entries"]]

    @property
    def regular(self) -> Bool[np.ndarray, " rows"]:
        """Return which rows count and have no massive activation."""
        return self.counted & ~self.massive

    @property
    def n_firings(self) -> Int[np.ndarray, " n_latents"]:
        """Return how often each latent fires."""
        return np.array([len(rows) for rows in self.rows], np.int64)

    def latents(self, start: int, stop: int) -> LatentEntries:
        """Entries of latents start to stop, rows rising within each."""
        parts = self.rows[start:stop]
        indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in parts])]).astype(np.int64)
        rows = np.concatenate([np.empty(0, np.int64), *parts])
        return LatentEntries(start, indptr, rows, np.concatenate([np.empty(0, np.float32), *self.values[start:stop]]))

    def blocks(self) -> Iterator[LatentEntries]:
        """All latents in order, at once: there are hundreds at most."""
        yield self.latents(0, len(self.rows))


@dataclass(frozen=True, eq=False)
class Planted:
    """Planted latents: class, meaning and background of each, and their codes by corpus.

    `dense` latents fire weakly on other tokens too, until they fire as often as the dictionary's median latent.
    """

    classes: list[str]
    meanings: list[str]
    dense: list[bool]
    codes: list[PlantedCodes]

    def members(self, name: str, dense: bool) -> list[int]:
        """Numbers of the latents of a class."""
        return [i for i, own in enumerate(zip(self.classes, self.dense, strict=True)) if own == (name, dense)]


def plant(
    codes: Sequence[Codes],
    windows: Windows,
    words: WindowWords,
    tokens: TokenTable,
    densities: Float[np.ndarray, " latents"],
    count: int,
    seed: int,
) -> Planted:
    """Plant up to `count` latents of each class, alone and dense; `densities` are the shares of tokens that latents of
    the dictionary fire on, which the random latents share.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 7]))
    text = Text(windows, words, tokens, count, generator)
    found: list[tuple[str, str, np.ndarray]] = [
        (name, meaning, mask)
        for name, planting in MEANINGFUL.items()
        for meaning, mask in list(planting(text))[:count]
        if mask.any(1).sum() >= _MIN_WINDOWS
    ]
    median = float(np.median(densities)) if len(densities) else 0.0
    grid = [(name, meaning, mask, dense) for name, meaning, mask in found for dense in (False, True)]
    values = [_activations(mask, windows, median if dense else 0.0, generator) for _, _, mask, dense in grid]
    shares = np.quantile(densities, (np.arange(count) + 0.5) / count) if len(densities) and count else []
    for share in shares:
        grid.append((RANDOM, f"{share:.3g} of the tokens", np.zeros(windows.tokens.shape, bool), False))
        fires = (generator.random(windows.tokens.shape) < share) & windows.counted
        values.append(np.where(fires, 1 + generator.exponential(0.5, fires.shape), 0))
    by_corpus = [_codes_of(own, number, windows, values) for number, own in enumerate(codes)]
    return Planted([row[0] for row in grid], [row[1] for row in grid], [row[3] for row in grid], by_corpus)


def _activations(
    mask: np.ndarray, windows: Windows, density: float, generator: np.random.Generator
) -> Float[np.ndarray, "windows width"]:
    """Strong activations where the meaning is; weak ones at random, for a share `density` of the tokens in all."""
    values = np.where(mask, 1 + generator.exponential(0.5, mask.shape), 0)
    missing = density - mask[windows.counted].mean()
    if missing > 0:
        weak = (generator.random(mask.shape) < missing) & windows.counted & ~mask
        values = np.where(weak, _WEAK * generator.random(mask.shape), values)
    return values


def _codes_of(codes: Codes, number: int, windows: Windows, values: Sequence[np.ndarray]) -> PlantedCodes:
    own = np.flatnonzero(windows.corpus == number)
    rows = windows.start[own][:, None] + np.arange(windows.width)
    order = np.argsort(rows, axis=None, kind="stable")
    rows = rows.reshape(-1)[order]
    parts = [each[own].reshape(-1)[order].astype(np.float32) for each in values]
    fires = [part > 0 for part in parts]
    return PlantedCodes(
        codes.counted,
        codes.massive,
        [rows[each] for each in fires],
        [part[each] for part, each in zip(parts, fires, strict=True)],
    )
