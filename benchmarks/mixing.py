"""Are batches of blocks as good as uniform sampling? Documents per batch, corpus shares, and loss curves.

    PYTHONPATH=workflow .venv/bin/python benchmarks/mixing.py --corpora chat=FILE,FILE \\
        --monitor FILE [--seeds 6]

Documents. Effective numbers over the documents' shares p of a batch, 1 / sum p^2 and exp(entropy), of the stream's
batches and of batches drawn uniformly from the same rows.
Shares. Drawn rows of a curriculum over the given corpora, against what its phases ask for up to that step.
With --window-shards the stream is that of windows, and what it is compared with stays uniform over the whole corpus.
Loss. The real trainer on three streams: ours; uniform (all rows permuted anew each epoch); and, as a control that must
be told apart, rows in the order of their documents. For each seed all start from the same weights. The test flips the
signs of the differences to uniform sampling over seeds, all 2^n ways; its statistic is the mean difference of explained
variance on held-out rows, averaged over the looks of the second half.

Prints tables, and JSON as the last line.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.activations.mixing import measure_mixing
from atlas.activations.sampling import median_norm, sample_rows
from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.activations.windowed import Windowed
from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe
from atlas.devices import keep_freed_memory, make_deterministic, use_threads
from atlas.massive import MASSIVE_FACTOR
from atlas.training.monitor import look
from atlas.training.state import choose_numerics, folded_sae, new_state, set_decoder_bias
from atlas.training.update import update


def main() -> None:
    arguments = parse()
    use_threads(arguments.threads)
    make_deterministic()
    keep_freed_memory()
    shards = {name: open_shards(paths) for name, paths in arguments.corpora.items()}
    results = {"settings": {key: str(value) for key, value in vars(arguments).items()}}
    results["documents"] = documents(stream_of(shards, arguments, seed=0))
    results["shares"] = shares(shards, arguments)
    if arguments.seeds:
        results["loss"] = losses(shards, arguments)
    print(json.dumps(results))


def stream_of(shards: dict, arguments, seed: int, mix: Mix | None = None) -> BatchStream:
    weights = dict.fromkeys(shards, 1 / len(shards))
    mix = mix or Mix(phases=[{"until": 1.0, "weights": weights}])
    windowed = None
    if arguments.window_shards:
        windowed = Windowed.of(shards, {name: group[:1] for name, group in shards.items()}, arguments.window_shards)
    return BatchStream(shards, arguments.hook, mix, seed, arguments.batch_size, arguments.steps, windowed=windowed)


def documents(stream: BatchStream) -> dict[str, float]:
    """Effective numbers of documents per batch."""
    generator, ours, uniform = np.random.default_rng(0), [], []
    rows = stream.trainable_documents()
    for step in np.linspace(0, stream.steps - 1, min(64, stream.steps)).astype(int):
        drawn = stream.documents(int(step))
        ours.append(counts(drawn))
        uniform.append(counts({name: generator.choice(rows[name], len(d), replace=False) for name, d in drawn.items()}))
    mixing = measure_mixing(stream)
    found = {"rows_trainable": sum(map(len, rows.values())), "documents": sum(len(np.unique(d)) for d in rows.values())}
    for name, measure in (("1/sum p^2", simpson), ("exp(entropy)", perplexity)):
        found[name] = statistics.mean(map(measure, ours)), statistics.mean(map(measure, uniform))
    print(f"{found['documents']} documents, {found['rows_trainable']} trainable rows, batches of {stream.batch_size}")
    print(f"{'documents':<14}{'ours':>10}{'uniform':>10}")
    for name in ("1/sum p^2", "exp(entropy)"):
        print(f"{name:<14}{found[name][0]:>10.2f}{found[name][1]:>10.2f}")
    print(f"{'run card':<14}{mixing.effective_documents:>10.2f}{mixing.uniform_documents:>10.2f}")
    return found | {"run_card": (mixing.effective_documents, mixing.uniform_documents)}


def counts(drawn: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.unique(numbers, return_counts=True)[1] for numbers in drawn.values()])


def simpson(n: np.ndarray) -> float:
    return float(1 / ((n / n.sum()) ** 2).sum())


def perplexity(n: np.ndarray) -> float:
    p = n / n.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def shares(shards: dict, arguments) -> list[tuple[float, float, float]]:
    """(progress, wanted, drawn) share of the last corpus, which a curriculum brings in after a quarter of the steps."""
    if len(shards) < 2:
        return []
    first, *_, last = shards
    mix = Mix(phases=[{"until": 0.25, "weights": {first: 1.0}}, {"until": 1.0, "weights": {first: 0.7, last: 0.3}}])
    stream, found = stream_of({first: shards[first], last: shards[last]}, arguments, 0, mix), []
    print(f"{'progress':<14}{'wanted':>10}{'drawn':>10}  share of {last}, drawn so far")
    for progress in (0.1, 0.25, 0.3, 0.5, 0.75, 1.0):
        steps = round(progress * stream.steps)
        wanted = 0.3 * max(0.0, steps / stream.steps - 0.25) / (steps / stream.steps)
        found.append((progress, wanted, stream.drawn_shares(steps)[last]))
        print(f"{progress:<14}{wanted:>10.4f}{found[-1][2]:>10.4f}")
    return found


def losses(shards: dict, arguments) -> dict[str, dict[str, float]]:
    """Held-out explained variance of three ways to draw the same rows."""
    monitor = open_shards([arguments.monitor])
    limit = MASSIVE_FACTOR * median_norm([s for group in shards.values() for s in group], arguments.hook)
    held_out = sample_rows(monitor, arguments.hook, 4096, limit)
    stream = stream_of(shards, arguments, seed=0)
    whole = argparse.Namespace(**vars(arguments) | {"window_shards": None})
    every, order = all_rows(stream_of(shards, whole, seed=0), arguments.hook)
    curves: dict[str, list[list[float]]] = {"ours": [], "uniform": [], "by document": []}
    for seed in range(arguments.seeds):
        ours = stream_of(shards, arguments, seed)
        draws = {
            "ours": lambda step, ours=ours: ours.batch(step).rows,
            "uniform": permuted(every, arguments.batch_size, seed),
            "by document": lambda step: every[order[place(step, len(order), arguments.batch_size)]],
        }
        for name, draw in draws.items():
            curves[name].append(curve(draw, stream, held_out, seed, arguments))
            print(f"seed {seed} {name:<12}" + " ".join(f"{value:.4f}" for value in curves[name][-1]), flush=True)
    return {name: compared(curves[name], curves["uniform"], name) for name in ("ours", "by document")}


def all_rows(stream: BatchStream, hook: str) -> tuple[Tensor, Tensor]:
    """All trainable rows, and their order by document."""
    parts, numbers = [], []
    for number, pool in enumerate(stream._pools.values()):
        for shard, rows in zip(pool.shards, pool.rows, strict=True):
            parts.append(shard.read_rows(hook, 0, shard.n_rows)[torch.from_numpy(rows.astype(np.int64))])
            numbers.append(shard.document[rows].astype(np.int64) + (number << 32))
    return torch.cat(parts), torch.from_numpy(np.argsort(np.concatenate(numbers), kind="stable"))


def permuted(every: Tensor, batch_size: int, seed: int) -> Callable[[int], Tensor]:
    """Uniform sampling without repetition, epoch by epoch."""
    per_epoch = len(every) // batch_size

    def draw(step: int) -> Tensor:
        epoch, within = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(10**6 * (seed + 1) + epoch)
        order = torch.randperm(len(every), generator=generator)
        return every[order[within * batch_size : (within + 1) * batch_size]]

    return draw


def place(step: int, n_rows: int, batch_size: int) -> Tensor:
    return (step * batch_size + torch.arange(batch_size)) % n_rows


def curve(draw: Callable[[int], Tensor], stream: BatchStream, held_out: Tensor, seed: int, arguments) -> list[float]:
    """Held-out explained variance at ten looks."""
    recipe = Recipe(
        architecture="topk",
        n_latents=arguments.n_latents,
        k=32,
        lr=1e-3,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        warmup_steps=arguments.steps // 15,
    )
    device = torch.device("cpu")
    state, numerics = new_state(recipe, stream.d_model, seed, device), choose_numerics(recipe, device)
    scale = stream.statistics().mean_square_norm ** 0.5
    found = []
    for step in range(recipe.steps):
        rows = draw(step).float() / scale
        if step == 0:
            set_decoder_bias(state, rows, recipe)
        update(state, rows, recipe, numerics, "benchmark")
        if (step + 1) % (recipe.steps // 10) == 0:
            found.append(look(folded_sae(state, recipe, scale), held_out).explained_variance)
    return found


def compared(curves: list[list[float]], uniform: list[list[float]], name: str) -> dict[str, float]:
    differences = np.array(curves) - np.array(uniform)
    per_seed = differences[:, differences.shape[1] // 2 :].mean(axis=1)
    flips = np.array(list(itertools.product((1, -1), repeat=len(per_seed))))
    p = float((np.abs((flips * per_seed).mean(axis=1)) >= abs(per_seed.mean()) - 1e-15).mean())
    noise = float(np.array(uniform)[:, -1].std(ddof=1)) if len(uniform) > 1 else float("nan")
    found = {
        "mean_difference": float(per_seed.mean()),
        "sd_of_differences": float(per_seed.std(ddof=1)),
        "largest_mean_difference_of_a_look": float(np.abs(differences.mean(axis=0)).max()),
        "seed_sd_of_uniform": noise,
        "p": p,
    }
    print(f"{name} - uniform: " + ", ".join(f"{key} {value:.5f}" for key, value in found.items()))
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", required=True, metavar="NAME=FILE[,FILE...]", help="train files")
    parser.add_argument("--monitor", type=Path, help="held-out file, for the loss")
    parser.add_argument("--hook", default="resid_post.10")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--n-latents", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=6, help="seeds of the loss curves; 0: none are trained")
    parser.add_argument("--window-shards", type=int, help="draw from windows of so many shards; null: from all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    pairs = (entry.split("=", 1) for entry in arguments.corpora)
    arguments.corpora = {name: [Path(file) for file in files.split(",")] for name, files in pairs}
    if arguments.seeds and arguments.monitor is None:
        parser.error("--monitor is needed for the loss; --seeds 0 leaves it out")
    return arguments


if __name__ == "__main__":
    main()
