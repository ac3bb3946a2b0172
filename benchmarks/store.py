"""The activation store against the machine: batches for training against a plain sequential read of the same rows.

    PYTHONPATH=workflow .venv/bin/python benchmarks/store.py [--shards FILE ...] [--compression]

Reading. The limit is `np.copyto` from a memory map, front to back, into new arrays of a batch's size: no checksum, no
shuffle. Measured with the file in memory, for the first epoch (pages not yet mapped; ours verifies checksums) and for a
later one, and with the file dropped from memory, where the limit is the disk.
Stall. A real training update consumes the batches through the prefetcher; its share of time spent waiting.
Compression (with --compression; needs zstandard, lz4 and blosc2 installed). Lossless ratios on these very rows, and how
fast they are decompressed, against the disk: compressing pays when reading and decompressing is faster than reading.

Limit and ours run in turn in one process; ratios are taken pair by pair. Prints tables, and JSON as the last line.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.activations.layout import IDENTITY
from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.activations.writer import RowColumns, ShardWriter
from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe
from atlas.devices import choose_device, keep_freed_memory, use_threads
from atlas.training.prefetch import prefetch
from atlas.training.state import choose_numerics, new_state
from atlas.training.update import update

HOOK, CORPUS = "resid_post.0", "corpus"
MIX = Mix(phases=[{"until": 1.0, "weights": {CORPUS: 1.0}}])
TARGET = 0.7


def main() -> None:
    arguments = parse()
    use_threads(arguments.threads)
    keep_freed_memory()
    with files(arguments) as (paths, hook):
        results = {"settings": {key: str(value) for key, value in vars(arguments).items()}, "torch": torch.__version__}
        results["reading"] = reading(paths, hook, arguments.batch_size, arguments.repetitions)
        results["stall"] = stall(paths, hook, arguments)
        if arguments.compression:
            results["compression"] = compression(paths, hook, results["reading"]["cold"]["limit_GB_per_s"])
    print(json.dumps(results))


def stream_of(paths: list[Path], hook: str, batch_size: int, steps: int = 10**5) -> BatchStream:
    """A stream whose files are opened anew: nothing of it is mapped or verified."""
    return BatchStream({CORPUS: open_shards(paths)}, hook, MIX, 0, batch_size, steps)


def reading(paths: list[Path], hook: str, batch_size: int, repetitions: int) -> dict[str, dict[str, float]]:
    """GB/s of the limit and of batches, for each state of the file."""
    rates: dict[str, list[tuple[float, float]]] = {"first epoch": [], "later epoch": [], "cold": []}
    for _ in range(repetitions):
        limit, ours = sequential(paths, hook, batch_size), batches(paths, hook, batch_size)
        next(sequential(paths, hook, batch_size))  # the files are in memory
        for state in ("first epoch", "later epoch"):
            rates[state].append((next(limit), next(ours)))
        del limit, ours  # pages that something maps cannot be dropped
        cold = []
        for reader in (sequential, batches):
            drop(paths)
            cold.append(next(reader(paths, hook, batch_size)))
        rates["cold"].append(tuple(cold))
    print(f"{'reading':<14}{'limit GB/s':>12}{'ours GB/s':>12}{'ratio':>8}{'lowest':>8}{'highest':>9}  target {TARGET}")
    found = {}
    for state, pairs in rates.items():
        limit_rate, our_rate = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratios = [ours / limit for limit, ours in pairs]
        ratio = statistics.median(ratios)
        found[state] = {"limit_GB_per_s": limit_rate, "ours_GB_per_s": our_rate, "ratio": ratio}
        print(f"{state:<14}{limit_rate:>12.2f}{our_rate:>12.2f}{ratio:>8.2f}{min(ratios):>8.2f}{max(ratios):>9.2f}")
    return found


def sequential(paths: list[Path], hook: str, batch_size: int) -> Iterator[float]:
    """GB/s of each pass through maps made anew once."""
    shards = open_shards(paths)
    d_model, kind = shards[0].d_model(hook), shards[0].empty_rows(hook, 0).dtype
    maps = [
        np.memmap(s.path, kind, "r", s._hooks[hook].offset, (s.n_rows, d_model))  # the limit goes around the reader
        for s in shards
    ]
    while True:
        started, moved = time.perf_counter(), 0
        for rows in maps:
            for first in range(0, len(rows), batch_size):
                part = rows[first : first + batch_size]
                batch = np.empty(part.shape, kind)
                np.copyto(batch, part)
                moved += batch.nbytes
        yield moved / (time.perf_counter() - started) / 1e9


def batches(paths: list[Path], hook: str, batch_size: int) -> Iterator[float]:
    """GB/s of each epoch of a stream made anew."""
    stream, step = stream_of(paths, hook, batch_size), 0
    per_epoch = int(stream.steps / stream.epochs()[CORPUS])
    while True:
        started, moved = time.perf_counter(), 0
        for _ in range(per_epoch):
            moved += stream.batch(step).rows.nbytes
            step += 1
        yield moved / (time.perf_counter() - started) / 1e9


def drop(paths: list[Path]) -> None:
    """Make the system forget the files' pages."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def stall(paths: list[Path], hook: str, arguments) -> dict[str, float]:
    """Share of time that training waits for rows: with the files in memory, and read from disk."""
    device = choose_device(int(torch.cuda.is_available()))
    recipe = Recipe(
        architecture="topk", n_latents=arguments.n_latents, k=32, steps=10**6, batch_size=arguments.batch_size
    )
    print(f"{'stall':<14}{'share':>12}{'rows/s':>12}  n_latents {arguments.n_latents}, batch {arguments.batch_size}")
    found = {}
    for state in ("in memory", "cold"):
        if state == "cold":
            drop(paths)
        stream = stream_of(paths, hook, arguments.batch_size)
        model, numerics = new_state(recipe, stream.d_model, 0, device), choose_numerics(recipe, device)
        scale = stream.statistics().mean_square_norm ** -0.5
        started = time.perf_counter()
        with prefetch(stream, 0, arguments.updates) as reader:
            for _ in range(arguments.updates):
                update(model, reader.next_batch().rows.to(device).float() * scale, recipe, numerics, "benchmark")
        taken = time.perf_counter() - started
        found[state] = {
            "share": reader.stall_seconds / taken,
            "rows_per_s": arguments.updates * recipe.batch_size / taken,
        }
        print(f"{state:<14}{found[state]['share']:>12.4f}{found[state]['rows_per_s']:>12.0f}")
    return found


def compression(paths: list[Path], hook: str, disk: float) -> dict[str, dict[str, float]]:
    """Ratio and speed of lossless codecs on 32 MB of rows, in pieces of 1 MB."""
    shard = open_shards(paths)[0]
    rows = shard.read_rows(hook, 0, min(shard.n_rows, 32 * 10**6 // (2 * shard.d_model(hook))))
    raw = rows.view(torch.uint16).numpy().tobytes()
    pieces = [raw[first : first + 2**20] for first in range(0, len(raw), 2**20)]
    print(f"{'codec':<22}{'ratio':>8}{'compress':>10}{'decompress':>12}{'with disk':>11}  GB/s, disk {disk:.2f}")
    found = {}
    for name, (squeeze, restore) in codecs().items():
        started = time.perf_counter()
        packed = [squeeze(piece) for piece in pieces]
        middle = time.perf_counter()
        restored = [restore(piece) for piece in packed]
        ended = time.perf_counter()
        if restored != pieces:
            sys.exit(f"{name} is not lossless")
        ratio = len(raw) / sum(map(len, packed))
        speed = len(raw) / (ended - middle) / 1e9
        # Reading and decompressing overlap: the slower of the two.
        found[name] = {"ratio": ratio, "decompress_GB_per_s": speed, "with_disk_GB_per_s": min(speed, disk * ratio)}
        print(
            f"{name:<22}{ratio:>8.3f}{len(raw) / (middle - started) / 1e9:>10.2f}{speed:>12.2f}"
            f"{found[name]['with_disk_GB_per_s']:>11.2f}"
        )
    return found


def codecs() -> dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    try:
        import blosc2
        import lz4.frame
        import zstandard
    except ImportError as error:
        sys.exit(f"--compression: {error}; pip install zstandard lz4 blosc2 (not needed for anything else)")

    def planes(data: bytes) -> bytes:
        """All low bytes, then all high bytes: signs and exponents repeat, mantissas do not."""
        return np.frombuffer(data, np.uint8).reshape(-1, 2).T.tobytes()

    def joined(data: bytes) -> bytes:
        return np.frombuffer(data, np.uint8).reshape(2, -1).T.tobytes()

    def zstd(level: int) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
        return zstandard.ZstdCompressor(level).compress, zstandard.ZstdDecompressor().decompress

    def blosc(codec, order) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
        return lambda data: blosc2.compress2(data, codec=codec, clevel=3, filters=[order], typesize=2, nthreads=1), (
            blosc2.decompress2
        )

    squeeze, restore = zstd(3)
    return {
        "lz4": (lz4.frame.compress, lz4.frame.decompress),
        "zstd 1": zstd(1),
        "zstd 3": (squeeze, restore),
        "byte planes, zstd 3": (lambda data: squeeze(planes(data)), lambda data: joined(restore(data))),
        "shuffle, lz4": blosc(blosc2.Codec.LZ4, blosc2.Filter.SHUFFLE),
        "shuffle, zstd 3": blosc(blosc2.Codec.ZSTD, blosc2.Filter.SHUFFLE),
        "bitshuffle, lz4": blosc(blosc2.Codec.LZ4, blosc2.Filter.BITSHUFFLE),
        "bitshuffle, zstd 3": blosc(blosc2.Codec.ZSTD, blosc2.Filter.BITSHUFFLE),
    }


@contextmanager
def files(arguments) -> Iterator[tuple[list[Path], str]]:
    """The given files and hook, or a file of random rows."""
    if arguments.shards:
        yield arguments.shards, arguments.hook
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "train-000.h5"
        n_rows, d_model = arguments.rows, arguments.d_model
        number = np.arange(n_rows)
        # Every 256th row is not counted, as the first token of a context.
        columns = RowColumns(number, number // 256, number % 256, number % 256 != 0)
        writer = ShardWriter(path, columns, {HOOK: d_model}, "bfloat16")
        for places in np.array_split(number, max(1, n_rows // 4096)):
            writer.write(HOOK, places, torch.randn(len(places), d_model).bfloat16())
        known = dict.fromkeys(IDENTITY, "benchmark") | {"storage_dtype": "bfloat16", "shard": 0, "n_shards": 1}
        writer.finish(known | {"context_length": 256})
        yield [path], HOOK


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, nargs="+", help="files of one split; without, random rows are written")
    parser.add_argument("--hook", default="resid_post.10", help="hook of the given files")
    parser.add_argument("--folder", type=Path, default=Path(), help="where random rows are written: the disk measured")
    parser.add_argument("--d-model", type=int, default=576)
    parser.add_argument("--rows", type=int, default=196608)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--n-latents", type=int, default=2304)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compression", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
