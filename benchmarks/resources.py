"""Compare what the cost model grants with what finished jobs took: the largest of each stage.

    PYTHONPATH=workflow python benchmarks/resources.py --results results

Reads the benchmark files that every job writes (seconds, peak resident memory). Jobs of the model and of SAEs are set
beside atlas.studies.cost for the configuration; a job above its grant would have been tried again with more.
"""

import argparse
import csv
from pathlib import Path

import yaml

from atlas.config.load import load_config
from atlas.config.rows import expand_rows
from atlas.studies import cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--configuration", type=Path, default=Path("config/config.yaml"))
    arguments = parser.parse_args()
    config = load_config(yaml.safe_load(arguments.configuration.read_text()), [str(arguments.configuration)])
    granted = grants(config)
    print(f"{'stage':<14} {'jobs':>4} {'took s':>7} {'granted s':>9} {'took MB':>7} {'granted MB':>10}")
    for stage, (seconds, memory) in granted.items():
        taken = [read(path) for path in (arguments.results / "benchmarks" / stage).rglob("*.tsv")]
        if taken:
            print(
                f"{stage:<14} {len(taken):>4} {max(t for t, _ in taken):>7.0f} {seconds:>9} "
                f"{max(m for _, m in taken):>7.0f} {memory:>10}"
            )


def grants(config) -> dict[str, tuple[int, int]]:
    """Seconds and MB that the largest job of each stage is granted at its first attempt."""
    rows = [row for study in expand_rows(config).values() for row in study]
    found: dict[str, tuple[int, int]] = {}

    def grant(stage: str, minutes: int, memory: int) -> None:
        before = found.get(stage, (0, 0))
        found[stage] = (max(before[0], 60 * minutes), max(before[1], memory))

    for row in rows:
        model = config.models[row.model]
        size = cost.ModelSize(model.n_layers, model.d_model, 2 if model.dtype == "bfloat16" else 4)
        memory = cost.model_memory_mb(size, 1)
        tokens = model.harvest.train_tokens + model.harvest.eval_tokens
        values = cost.dictionary_values(row.recipe.n_latents, model.d_model)
        shard = min(model.harvest.shard_tokens, model.harvest.train_tokens)
        moved = size.bytes + 3 * cost.store_bytes(shard, model.d_model, len(model.hooks))
        grant("prepare_model", cost.minutes(0, 1, 10 * size.bytes, 1), memory)
        grant("tokenise", cost.packing_minutes(tokens, 1), cost.packing_memory_mb(1))
        kept = cost.model_memory_mb(size, 1, cost.SHARD_BYTES * shard)
        grant("harvest", cost.minutes(size.forward(shard), size.flops, moved, 1), kept)
        drawn = row.recipe.steps * row.recipe.batch_size
        work = cost.training_flop(row.recipe.n_latents, size.d_model, drawn)
        moved = cost.store_bytes(drawn, size.d_model, 1)
        grant("train", cost.minutes(work, cost.CPU_FLOPS, moved, 1), cost.megabytes(16 * values, 1))
        once = size.forward(config.evaluation.loss_tokens)
        grant("references", cost.minutes((1 + 2 * len(model.hooks)) * once, size.flops, size.bytes, 1), memory)
        corpora = len(row.roles)
        held_out = corpora * model.harvest.eval_tokens
        encoded = 2.0 * values * held_out * (2 + config.evaluation.null_dictionaries)
        read_bytes = size.bytes + cost.store_bytes(held_out, size.d_model, 1)
        grant("evaluate", cost.minutes(4 * corpora * once + encoded, size.flops, read_bytes, 1), memory)
    return found


def read(path: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of a benchmark file."""
    with path.open(newline="") as stream:
        row = next(csv.DictReader(stream, delimiter="\t"))
    return float(row["s"]), float(row["max_rss"] or "nan")


if __name__ == "__main__":
    main()
