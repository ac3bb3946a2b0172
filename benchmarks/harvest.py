"""Harvest against its limit: the bare forward pass, truncated at the same block, that stores nothing.

    PYTHONPATH=workflow .venv/bin/python benchmarks/harvest.py [--model results/models/smollm2-135m] [--tokens 16384]

Both run in turn, in one process, on the same contexts; the ratio is taken pair by pair, because the speed of a
shared machine drifts. Prints a table and writes results/benchmarks/harvest.json.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from atlas.activations.harvest import harvest_shard
from atlas.config.data import Harvest
from atlas.corpora.tokens import TokenSplit
from atlas.devices import choose_device, use_threads
from atlas.files import write_json
from atlas.hook_points import HookPoint
from atlas.models.forward import capture
from atlas.models.load import load_model


def main() -> None:
    arguments = parse()
    use_threads(arguments.threads)
    loaded = load_model(arguments.model, choose_device(int(torch.cuda.is_available())))
    harvest = Harvest(
        context_length=arguments.context_length,
        batch_contexts=arguments.batch_contexts,
        train_tokens=arguments.tokens,
        eval_tokens=arguments.tokens,
        shard_tokens=arguments.tokens,
    )
    split = random_split(arguments.tokens // arguments.context_length, harvest, loaded.identity["vocabulary_size"])
    hooks = sorted(arguments.hooks, key=HookPoint.parse)
    bare(loaded, split, harvest, hooks)  # warm-up
    pairs = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for number in range(arguments.pairs):
            target = Path(folder) / f"{number}.h5"
            seconds = (
                timed(bare, loaded, split, harvest, hooks),
                timed(harvest_shard, loaded, split, 0, harvest, hooks, target),
            )
            pairs.append(seconds)
            target.unlink()
    report(arguments, pairs)


def bare(loaded, split: TokenSplit, harvest: Harvest, hooks: list[str]) -> None:
    """The same forward passes, up to the same block; the activations are dropped."""
    tokens = torch.from_numpy(split.tokens.astype(np.int64))
    for batch in tokens.split(harvest.batch_contexts):
        capture(loaded, batch.to(loaded.device), hooks[-1:])
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()


def random_split(n_contexts: int, harvest: Harvest, vocabulary: int) -> TokenSplit:
    shape = (n_contexts, harvest.context_length)
    tokens = np.random.default_rng(0).integers(0, vocabulary, shape, dtype=np.uint32)
    return TokenSplit(
        tokens=tokens,
        document=np.zeros(shape, np.int32),
        counted=np.ones(shape, bool),
        fingerprint="benchmark",
        corpus="random",
        split="train",
        context_length=harvest.context_length,
    )


def timed(function, *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def report(arguments, pairs: list[tuple[float, float]]) -> None:
    ratios = [bare_seconds / harvest_seconds for bare_seconds, harvest_seconds in pairs]
    rates = {
        "bare_tokens_per_second": statistics.median(arguments.tokens / pair[0] for pair in pairs),
        "harvest_tokens_per_second": statistics.median(arguments.tokens / pair[1] for pair in pairs),
        "harvest_over_bare": statistics.median(ratios),
        "harvest_over_bare_min": min(ratios),
        "harvest_over_bare_max": max(ratios),
    }
    for name, value in rates.items():
        print(f"{name:28} {value:10.3f}")
    settings = {key: str(value) for key, value in vars(arguments).items()}
    write_json("results/benchmarks/harvest.json", {"settings": settings, "torch": torch.__version__, **rates})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("results/models/smollm2-135m"))
    parser.add_argument(
        "--hooks", nargs="+", default=["resid_post.4", "resid_post.10", "resid_post.19", "resid_post.28"]
    )
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--context-length", type=int, default=256)
    parser.add_argument("--batch-contexts", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files are written: the disk measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
