"""Measure how often 95 % intervals over documents hold the truth, for simulated documents and for a store's.

Real documents: those of training shards are the population, whose explained variance is known; samples of a few of them
are drawn, each gets its interval. `--latents` simulates a share of latents beyond a limit. Three ways are compared: the
jackknife (`cluster_interval`), draws of documents (`draws_interval`), and percentiles of draws, used before. `--areas`
simulates AUCs of labels on few examples: `auc_interval` beside percentiles of draws.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtri

from atlas.activations.store import open_shards
from atlas.evaluation.chunks import chunk_rows, row_chunks
from atlas.evaluation.facts import TrainingFacts
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.statistics.auc import auc_interval, wins
from atlas.statistics.clusters import Groups, cluster_interval
from atlas.statistics.draws import document_draws, drawn_auc, draws_interval, percentile_interval
from atlas.training.sae import load_sae

DRAWS = 400
SIZES = (4, 6, 8, 12, 16, 24, 40, 60, 100, 200)
Statistic = Callable[[np.ndarray], np.ndarray]


def simulated(kind: str, n: int, generator: np.random.Generator) -> tuple[Statistic, float]:
    """A ratio of sums over documents and its truth."""
    length = np.ones(n) if kind == "equal" else generator.exponential(1.0, n) + 0.05
    loss, truth = 2.0 + 0.5 * generator.normal(size=n), 2.0
    if kind == "heavy":
        loss, truth = np.exp(0.5 * generator.normal(size=n)), float(np.exp(0.125))
    return lambda draws: (draws @ (loss * length)) / (draws @ length), truth


def latents(n: int, generator: np.random.Generator) -> tuple[Statistic, float]:
    """A share of dense latents (more than a tenth of the tokens), whose rates differ from document to document."""
    mean, spread = np.exp(np.linspace(np.log(1e-3), np.log(0.4), 128)), 0.8

    def rates(count: int, source: np.random.Generator) -> np.ndarray:
        wander = np.exp(spread * source.normal(size=(len(mean), count)) - spread**2 / 2)
        return np.minimum(mean[:, None] * wander, 1)

    length = np.round(generator.exponential(300, n) + 30)
    firings = generator.binomial(length.astype(int), rates(n, generator))
    truth = (rates(20_000, np.random.Generator(np.random.PCG64(0))).mean(1) > 0.1).mean()
    return lambda draws: (draws @ firings.T > 0.1 * (draws @ length)[:, None]).mean(1), float(truth)


def real_sums(shards: list[Path], sae_folder: Path, hook: str, every: int) -> ReconstructionSums:
    """Sums per document over each `every`-th regular row of training shards."""
    opened, sae = open_shards(shards), load_sae(sae_folder)
    facts = TrainingFacts.of({"population": opened}, hook).source
    groups = Groups.of(np.concatenate([shard.document[shard.counted] for shard in opened]))
    sums = ReconstructionSums.start(facts.mean, groups.count)
    for shard, start, stop in row_chunks(opened, chunk_rows(sae)):
        kept = (shard.counted & (shard.norms(hook) <= facts.limit))[start:stop][::every]
        rows = shard.read_rows(hook, start, stop)[::every].float()[torch.from_numpy(kept)]
        document = torch.from_numpy(groups.index(shard.document[start:stop][::every][kept]))
        sums.update(rows, sae.decode(sae.encode(rows)), document)
    return sums


def real(sums: ReconstructionSums) -> Callable[[int, np.random.Generator], tuple[Statistic, float]]:
    """Draws documents of the sums with replacement; the truth is the explained variance of all of them."""
    seen = (sums.count > 0).numpy()
    count, square, error = (getattr(sums, name).numpy()[seen] for name in ("count", "square", "error_square"))
    gram = (sums.row_sum[seen] @ sums.row_sum[seen].T).numpy()

    def explained(draws: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        inner = np.einsum("si,ij,sj->s", draws, gram[np.ix_(chosen, chosen)], draws)
        return 1 - (draws @ error[chosen]) / (draws @ square[chosen] - inner / (draws @ count[chosen]))

    truth = explained(np.ones((1, len(count))), np.arange(len(count)))[0]

    def draw(n: int, generator: np.random.Generator) -> tuple[Statistic, float]:
        chosen = generator.integers(0, len(count), n)
        return lambda draws: explained(draws, chosen), truth

    return draw


def coverage(draw: Callable, sizes: tuple[int, ...], cases: int) -> Iterator[tuple[float, ...]]:
    """For each number of documents: coverage and median width of the jackknife, of draws, and of their percentiles."""
    for n in sizes:
        generator, found = np.random.Generator(np.random.PCG64(n)), []
        counts = document_draws(n, DRAWS).T.astype(float)
        for _ in range(cases):
            statistic, truth = draw(n, generator)
            value, drawn = float(statistic(np.ones((1, n)))[0]), statistic(counts)
            ends = [cluster_interval(statistic, n), draws_interval(value, drawn, n), percentile_interval(drawn)]
            if None not in ends:
                found.append([(low <= truth <= high, high - low) for low, high in ends])
        table = np.array(found, dtype=float)
        yield n, *(value for way in range(3) for value in (table[:, way, 0].mean(), np.median(table[:, way, 1])))


def areas(cases: int) -> Iterator[tuple]:
    """For each kind, number of examples and truth: coverage and mean width of `auc_interval` and of percentiles.

    Answers are normal; normal with what examples of one document share, the positives in 8 documents; or 0 and 1.
    """
    for kind in ("normal", "documents", "binary"):
        for n in (5, 10, 20, 50):
            for truth in (0.5, 0.7, 0.9, 0.97):
                generator = np.random.Generator(np.random.PCG64([n, int(100 * truth)]))
                found = np.array([_area_case(kind, n, truth, generator) for _ in range(cases)])
                held, width = (found[..., 0] <= truth) & (truth <= found[..., 1]), found[..., 1] - found[..., 0]
                yield kind, n, truth, *np.column_stack([held.mean(0), width.mean(0)]).ravel()


def _area_case(kind: str, n: int, truth: float, generator: np.random.Generator) -> list[list[float]]:
    """Both intervals of one simulated latent."""
    n_documents = 60
    high = generator.integers(8 if kind == "documents" else n_documents, size=n)
    low, shared = generator.integers(n_documents, size=n), 0.7 if kind == "documents" else 0.0
    effect = shared * generator.normal(size=n_documents)
    own = np.sqrt(1 - shared**2) * generator.normal(size=(2, n))
    positives, negatives = np.sqrt(2) * ndtri(truth) + effect[high] + own[0], effect[low] + own[1]
    if kind == "binary":
        positives, negatives = (generator.random(n) < 2 * truth - 1).astype(float), np.zeros(n)
    draws = document_draws(n_documents, DRAWS)
    area = drawn_auc(wins(positives, negatives), draws[high], draws[low])
    percentiles = area.interval or [np.nan, np.nan]
    return [auc_interval(area.value, len(set(high)), len(set(low))), percentiles]


def main() -> None:
    """Print one line per population and number of documents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, nargs="*", default=[], help="training shards, with --sae and --hook")
    parser.add_argument("--sae", type=Path, help="folder of an SAE of the hook")
    parser.add_argument("--hook", help="for example resid_post.19")
    parser.add_argument("--latents", action="store_true", help="a share of latents beyond a limit")
    parser.add_argument("--areas", action="store_true", help="AUCs of labels on few examples")
    parser.add_argument("--every", type=int, default=3, help="rows of which one is looked at")
    parser.add_argument("--cases", type=int, default=600)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.areas:
        print("answers, examples of each class, truth, then coverage and width of auc_interval, and of percentiles")
        for kind, n, truth, *numbers in areas(given.cases):
            print(kind, n, truth, *(f"{number:.3f}" for number in numbers), flush=True)
        return
    populations: dict[str, Callable] = {}
    if given.shards:
        populations[given.hook] = real(real_sums(given.shards, given.sae, given.hook, given.every))
    elif given.latents:
        populations["share of dense latents"] = latents
    else:
        for kind in ("equal", "lengths", "heavy"):
            populations[kind] = lambda n, generator, kind=kind: simulated(kind, n, generator)
    print("population, documents, then coverage and width of the jackknife, of draws, and of percentiles of draws")
    for name, draw in populations.items():
        for n, *numbers in coverage(draw, tuple(given.sizes), given.cases):
            print(name, n, *(f"{number:.3f}" for number in numbers), flush=True)


if __name__ == "__main__":
    main()
