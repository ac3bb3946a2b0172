"""Training speed and memory: ours against peers, on the same rows, in the same run.

    python benchmarks/train.py --peers results/environments --activations results/activations/smollm2-135m/chat \\
        --hook resid_post.10 --shape 576 4608 32 2048 --threads 2

Every contender trains on the same batches as a process of its own, in turn, several times over: machines differ from
minute to minute. Ours is the function behind the rule `train`; peers run their own trainers (workflow/peers). Rows per
second leave out the first steps and the start of the process; `step` is the speed of the fastest single step, which a
busy machine disturbs least. Peak memory is that of the whole process. The loss is the squared error on rows that nobody
was trained on, measured by one function for all. Without --activations rows are synthetic, of --shape's width. A
contender is a framework, or a framework with options: `atlas:parity=sparsify,matmul_dtype=bfloat16`,
`saelens:autocast=true`. Prints a table and, as the last line, JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.activations.blocks import eligible_rows
from atlas.activations.sampling import median_norm
from atlas.activations.store import Shard, open_shards
from atlas.config.frameworks import FRAMEWORKS, OURS
from atlas.config.recipe import Recipe
from atlas.frameworks.job import RowsFile, rows_files, write_job
from atlas.frameworks.launch import train_with
from atlas.frameworks.weights import held_out_loss, sae_of
from atlas.massive import MASSIVE_FACTOR

HELD_OUT = 4096
# Losses that differ by less are called the same.
SAME_LOSS = 0.01


@dataclass(frozen=True)
class Data:
    """Folder of the rows, mask of those that may be trained on, and the held-out rows themselves."""

    files: list[RowsFile]
    storage_dtype: str
    numbers: np.ndarray
    held_out: torch.Tensor
    scale: float


def main() -> None:
    arguments = parse()
    d_model, n_latents, k, batch = arguments.shape
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        place = Path(folder)
        data = stored(arguments, d_model) if arguments.activations else synthetic(place, d_model, arguments.seed)
        generator = np.random.default_rng(arguments.seed)
        epochs = -(-arguments.steps * batch // len(data.numbers))
        drawn = np.concatenate([generator.permutation(data.numbers) for _ in range(epochs)])
        order = drawn[: arguments.steps * batch].reshape(arguments.steps, batch)
        found: dict[str, list[dict[str, Any]]] = {}
        contenders = [
            (architecture, name)
            for architecture in arguments.architectures
            for name in arguments.contenders
            if architecture in FRAMEWORKS[name.split(":")[0]]
        ]
        for repetition in range(arguments.repetitions):
            for architecture, contender in contenders:
                recipe = Recipe(
                    architecture=architecture,
                    n_latents=n_latents,
                    k=k,
                    steps=arguments.steps,
                    batch_size=batch,
                    max_epochs=None,
                    lr=arguments.lr,
                    warmup_steps=arguments.warmup,
                    decay_start=arguments.warmup + 1,
                    **({"threshold_start_step": arguments.steps // 2} if architecture == "batch_topk" else {}),
                )
                framework, _, option = contender.partition(":")
                target = place / f"{architecture}-{contender}-{repetition}".replace("/", "_")
                job = target.with_suffix(".json")
                write_job(
                    job,
                    recipe,
                    data.files,
                    data.storage_dtype,
                    d_model,
                    order,
                    data.scale,
                    arguments.seed,
                    arguments.threads,
                    options=options(option),
                )
                result = train_with(framework, job, target, arguments.peers)
                sae = sae_of(target, architecture, k, data.scale)
                result["loss"] = held_out_loss(sae, data.held_out, data.scale, batch)
                found.setdefault(f"{architecture} {contender}", []).append(result)
                print(f"{architecture:<11}{contender:<34}{result['rows_per_second']:>9.0f} rows/s", file=sys.stderr)
    report(arguments, found)


def options(text: str) -> dict[str, Any]:
    """``name=value,name=value``; values are JSON, or else strings."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def stored(arguments: argparse.Namespace, d_model: int) -> Data:
    """Rows of activation files: those that training would draw, the last of them held out."""
    shards = open_shards(sorted(arguments.activations.glob("train-*.h5")))
    hook = arguments.hook
    if shards[0].d_model(hook) != d_model:
        sys.exit(f"{shards[0].path}: rows of {hook} have width {shards[0].d_model(hook)}; set --shape's D to it")
    limits = {hook: MASSIVE_FACTOR * median_norm(shards, hook)}
    first = np.cumsum([0, *(shard.n_rows for shard in shards)])
    numbers = np.concatenate([start + eligible_rows(s, limits) for start, s in zip(first[:-1], shards, strict=True)])
    held_out = torch.cat([read(shards, first, hook, number) for number in numbers[-HELD_OUT:]])
    square = np.concatenate([shard.norms(hook) for shard in shards])[numbers[:-HELD_OUT]].astype(np.float64) ** 2
    dtype = shards[0].identity["storage_dtype"]
    return Data(rows_files(shards, hook), dtype, numbers[:-HELD_OUT], held_out, float(square.mean() ** 0.5))


def read(shards: list[Shard], first: np.ndarray, hook: str, number: int) -> torch.Tensor:
    place = int(np.searchsorted(first, number, side="right")) - 1
    row = int(number - first[place])
    return shards[place].read_rows(hook, row, row + 1)


def synthetic(folder: Path, d_model: int, seed: int, n_rows: int = 65_536) -> Data:
    """Sparse sums of random directions with weights that differ by powers of ten, and noise, as bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(4 * d_model, d_model, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    rates = 10 ** torch.empty(len(directions)).uniform_(-3, -1, generator=generator)
    path, parts = folder / "rows.bin", []
    with path.open("wb") as stream:
        for _ in range(-(-(n_rows + HELD_OUT) // 8192)):
            codes = (torch.rand(8192, len(directions), generator=generator) < rates).float()
            codes *= torch.rand(codes.shape, generator=generator) + 0.5
            rows = codes @ directions + 0.02 * torch.randn(8192, d_model, generator=generator)
            parts.append(rows.to(torch.bfloat16))
            stream.write(parts[-1].view(torch.uint16).numpy().tobytes())
    rows = torch.cat(parts)
    scale = rows[:n_rows].double().square().sum(dim=1).mean().sqrt().item()
    return Data([RowsFile(str(path), 0, len(rows))], "bfloat16", np.arange(n_rows), rows[n_rows:], scale)


def report(arguments: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> None:
    d_model, n_latents, k, batch = arguments.shape
    threads, steps = arguments.threads, arguments.steps
    print(f"d_model {d_model}, {n_latents} latents, k {k}, batch {batch}, {steps} steps, {threads} threads")
    print(
        f"{'':<46}{'rows/s':>9}{'min':>9}{'max':>9}{'step':>9}{'ours ×':>8}{'held-out loss':>15}{'':>9}{'peak MB':>9}"
    )
    table = {}
    for name, results in found.items():
        rates = [result["rows_per_second"] for result in results]
        ours = found.get(f"{name.split()[0]} {OURS}")
        rate, loss = statistics.median(rates), results[0]["loss"]
        row = {
            "rows_per_second": rate,
            "min": min(rates),
            "max": max(rates),
            "fastest_step": max(batch / result["fastest_step_seconds"] for result in results),
            "loss": loss,
            "peak_memory_mb": max(result["peak_memory_mb"] for result in results),
            "version": results[0]["version"],
        }
        if ours:
            pairs = zip(ours, results, strict=True)
            row["ours_times"] = statistics.median(a["rows_per_second"] / b["rows_per_second"] for a, b in pairs)
            row["loss_over_ours"] = loss / ours[0]["loss"]
        table[name] = row
        ratio, relative = row.get("ours_times"), row.get("loss_over_ours")
        print(
            f"{name:<46}{rate:>9.0f}{row['min']:>9.0f}{row['max']:>9.0f}{row['fastest_step']:>9.0f}"
            f"{'' if ratio is None else f'{ratio:.2f}':>8}{loss:>15.5f}"
            f"{'' if relative is None else f'{relative - 1:+.2%}':>9}{row['peak_memory_mb']:>9.0f}"
        )
        if relative is not None and abs(relative - 1) > SAME_LOSS:
            print(f"    the loss of {name} differs from ours by more than {SAME_LOSS:.0%}")
    if not arguments.peers:
        print("no peers: build their environments and name the folder with --peers")
    print(json.dumps({"shape": arguments.shape, "threads": threads, "steps": steps, "found": table}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder with an environment for each peer")
    parser.add_argument("--contenders", nargs="+", help="frameworks, each with an option or not")
    parser.add_argument("--architectures", nargs="+", default=["topk", "batch_topk"])
    parser.add_argument("--shape", type=int, nargs=4, default=(576, 4608, 32, 2048), metavar=("D", "F", "K", "B"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--activations", type=Path, help="folder with train-*.h5 of one corpus")
    parser.add_argument("--hook", default="resid_post.10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where jobs and weights are written meanwhile")
    arguments = parser.parse_args()
    if arguments.contenders is None:
        arguments.contenders = [OURS, f"{OURS}:matmul_dtype=float32"]
        if arguments.peers:
            arguments.contenders += ["dictionary_learning", "sparsify", "saelens"]
    return arguments


if __name__ == "__main__":
    main()
