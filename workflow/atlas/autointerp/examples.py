"""Examples of every latent from one pass over the codes: what an explainer sees, and what its labels are tested on.

Explainer and test have no document in common. A latent's strongest windows activate it (`activating_share`): the
explainer sees the very strongest and some of every stratum, the test has some of every stratum. Negatives are windows
of test documents that do not activate it: some at random, and some that activate its nearest latents by decoder cosine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.autointerp.windows import WindowFirings, Windows, firings
from atlas.codes.store import Codes
from atlas.config.autointerp import Autointerp

NEGATIVES = ("random", "hard")
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Examples:
    """Windows of one latent, with the activations on the tokens of its activating windows (0 where it is silent)."""

    latent: int
    train: Int[np.ndarray, " train"]
    train_activations: Float[np.ndarray, "train width"]
    test: Int[np.ndarray, " test"]
    test_activations: Float[np.ndarray, "test width"]
    negatives: dict[str, Int[np.ndarray, " negatives"]]
    neighbour_cosine: float | None


@dataclass(frozen=True, eq=False)
class AllExamples:
    """Examples of every latent of a dictionary; `n_firings` counts firings on counted rows, in windows or not."""

    latents: list[Examples]
    n_firings: Int[np.ndarray, " n_latents"]


def choose_examples(
    codes: Sequence[Codes],
    windows: Windows,
    neighbours: tuple[Int[np.ndarray, "n_latents neighbours"], Float[np.ndarray, "n_latents neighbours"]],
    settings: Autointerp,
    seed: int,
) -> AllExamples:
    """Examples of all latents; `neighbours` are the nearest latents of each and their cosines, nearest first."""
    training = windows.training(seed)
    test_windows, positives, active, n_firings = np.flatnonzero(~training), [], [], []
    for block in firings(codes, windows):
        n_firings.append(block.n_counted)
        for chosen, own in _positives(block, training, settings, seed):
            positives.append(chosen)
            active.append(own)
    latents = []
    for latent, (train, train_values, test, test_values) in enumerate(positives):
        others = np.ones(len(windows), bool)
        others[active[latent]] = False
        generator = _generator(seed, latent, 1)
        random = test_windows[others[test_windows]]
        random = generator.permutation(random)[: settings.random_negatives]
        hard, cosine = _hard(latent, neighbours, positives, others, settings)
        negatives = {"random": np.sort(random), "hard": hard}
        latents.append(Examples(latent, train, train_values, test, test_values, negatives, cosine))
    return AllExamples(latents, np.concatenate(n_firings))


def nearest_latents(
    W_dec: Float[np.ndarray, "n_latents d_model"], count: int
) -> tuple[Int[np.ndarray, "n_latents neighbours"], Float[np.ndarray, "n_latents neighbours"]]:
    """The `count` latents of highest decoder cosine to each, nearest first, and the cosines."""
    norms = np.linalg.norm(W_dec, axis=1, keepdims=True)
    unit = (W_dec / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
    count = min(count, len(unit) - 1)
    nearest, cosines = np.empty((len(unit), count), np.int64), np.empty((len(unit), count), np.float32)
    for first in range(0, len(unit), _CHUNK):
        block = unit[first : first + _CHUNK] @ unit.T
        rows = np.arange(len(block))
        block[rows, rows + first] = -np.inf
        order = np.argsort(-block, axis=1, kind="stable")[:, :count]
        nearest[first : first + len(block)], cosines[first : first + len(block)] = order, block[rows[:, None], order]
    return nearest, cosines


def matched_highlights(
    positives: Bool[np.ndarray, "positives width"], n_negatives: int, generator: np.random.Generator
) -> Bool[np.ndarray, "negatives width"]:
    """A highlight pattern for each negative, copied from an activating example: the pattern alone tells nothing.

    As often as possible every pattern is used equally often. Delphi 0.1.3 highlights the same place of every negative,
    which a rule that never reads the label tells from the activating ones.
    """
    repeats = -(-n_negatives // len(positives))
    order = np.concatenate([generator.permutation(len(positives)) for _ in range(repeats)])
    return positives[order[:n_negatives]]


def _positives(
    block: WindowFirings, training: np.ndarray, settings: Autointerp, seed: int
) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
    """Yield each latent's activating examples with activations, and all windows that activate it."""
    n_windows, width = len(training), settings.window_tokens
    key = block.latent * n_windows + block.window
    begins = np.flatnonzero(np.append(True, np.diff(key) != 0)) if len(key) else np.empty(0, np.int64)
    largest = np.maximum.reduceat(block.value, begins) if len(key) else block.value
    latent, window = block.latent[begins], block.window[begins]
    ends = np.append(begins, len(key))
    bounds = np.searchsorted(latent, np.arange(block.n_latents + 1))
    for index, (low, high) in enumerate(pairwise(bounds)):
        generator = _generator(seed, block.first + index, 0)
        own, strength = window[low:high], largest[low:high]
        order = np.lexsort((own, -strength))
        order = order[: _n_activating(strength[order], n_windows, settings)]
        seen = training[own[order]]
        train = _for_explainer(order[seen], settings, generator)
        test = _strata(order[~seen], settings.test_examples, settings.quantiles, generator)
        found = []
        for chosen in (train, test):
            values = np.zeros((len(chosen), width), np.float32)
            for row, number in enumerate(chosen + low):
                entries = slice(ends[number], ends[number + 1])
                values[row, block.place[entries]] = block.value[entries]
            found += [own[chosen], values]
        yield tuple(found), np.sort(own[order])


def _n_activating(strength: Float[np.ndarray, " windows"], n_windows: int, settings: Autointerp) -> int:
    """Count the windows that activate a latent, of those in which it fires, given strongest first.

    They are the strongest `activating_share` of all windows, without those whose strength is below `activating_floor`
    times the median of the strongest ones. Windows as strong as the weakest of them activate the latent too: the order
    of the text never cuts a tie.
    """
    if settings.activating_share is None or not len(strength):
        return len(strength)
    count = max(1, round(settings.activating_share * n_windows))
    least = settings.activating_floor * float(np.median(strength[: settings.top_examples or 1]))
    if count < len(strength):
        least = max(least, float(strength[count - 1]))
    return int(np.sum(strength >= least))


def _for_explainer(order: np.ndarray, settings: Autointerp, generator: np.random.Generator) -> np.ndarray:
    top, rest = order[: settings.top_examples], order[settings.top_examples :]
    return np.concatenate([top, _strata(rest, settings.train_examples - len(top), settings.quantiles, generator)])


def _strata(order: np.ndarray, count: int, quantiles: int, generator: np.random.Generator) -> np.ndarray:
    """`count` of the windows, which are given strongest first: from every stratum as many, in the order given."""
    if len(order) <= count:
        return order
    strata = np.array_split(np.arange(len(order)), min(quantiles, max(count, 1)))
    drawn = [generator.permutation(stratum) for stratum in strata]
    # In turn one of each stratum, until there are enough: strata that are too small give what they have.
    turns = np.concatenate([np.arange(len(part)) for part in drawn])
    return order[np.sort(np.concatenate(drawn)[np.argsort(turns, kind="stable")][:count])]


def _hard(
    latent: int, neighbours, positives: list[tuple[np.ndarray, ...]], others: np.ndarray, settings: Autointerp
) -> tuple[np.ndarray, float | None]:
    """Test windows that activate the nearest latents but not this one, as many of each, and their mean cosine."""
    nearest, cosines = neighbours[0][latent], neighbours[1][latent]
    candidates = [positives[other][2] for other in nearest]
    candidates = [windows[others[windows]] for windows in candidates]
    windows = np.concatenate([np.empty(0, np.int64), *candidates])
    turns = np.concatenate([np.empty(0, np.int64), *(np.arange(len(part)) for part in candidates)])
    cosine = np.repeat(cosines, [len(part) for part in candidates])
    order = np.argsort(turns, kind="stable")
    order = order[np.sort(np.unique(windows[order], return_index=True)[1])][: settings.hard_negatives]
    return np.sort(windows[order]), float(cosine[order].mean()) if len(order) else None


def _generator(seed: int, latent: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, latent, purpose]))
