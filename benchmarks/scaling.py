"""Print the planned cost of a configuration: tokens, bytes, hours of a GPU and jobs, as planned by atlas.studies.cost.

    PYTHONPATH=workflow python benchmarks/scaling.py config/paper/llama_sweep.yaml --times 1 100

`--times` multiplies token budgets and training steps; sizes of models and dictionaries stay. Nothing is run. Each
configuration is counted in mode 'store' and in mode 'stream', whose training hours have the forward passes in them, and
which reads and writes no rows of training text.
"""

import argparse
from pathlib import Path

import yaml

from atlas.config.load import load_config
from atlas.config.rows import expand_rows
from atlas.config.streams import stream_groups
from atlas.studies import cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configuration", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--window-shards", type=int, default=2, help="window of mode 'stream'")
    arguments = parser.parse_args()
    raw = yaml.safe_load(arguments.configuration.read_text())
    print(
        "mode    times  harvested tokens  stored GB  window GB  harvest h  references h  training h  evaluation h  "
        "jobs  metadata files"
    )
    for mode in ("store", "stream"):
        for model in raw["models"].values():
            window = {"mode": mode, "window_shards": arguments.window_shards} if mode == "stream" else {}
            model["harvest"] = model["harvest"] | window
        config = load_config(raw, [str(arguments.configuration)])
        for times in arguments.times:
            print(line(config, times, mode))


def line(config, times: int, mode: str) -> str:
    """One row of the table: hours of the device that the cost model plans with, and of its disk, without its margin."""
    every = [row for study in expand_rows(config).values() for row in study]
    rows = {row.sae_id: row for row in every}
    groups = stream_groups(config, every)
    tokens = stored = window = jobs = files = 0
    harvest = references = training = evaluation = 0.0
    loss_tokens = config.evaluation.loss_tokens
    for name in {row.model for row in rows.values()}:
        model, size = config.models[name], size_of(config.models[name])
        used = [row for row in rows.values() if row.model == name]
        trained = {corpus for row in used for corpus in config.mixes[row.mix].corpora}
        judged = {corpus for row in used for corpus in row.roles}
        budgets = [model.harvest.of(corpus).train_tokens * times for corpus in trained]
        kept = [model.harvest.of(corpus).eval_tokens for corpus in judged]
        written = facts = 0
        if mode == "store":
            kept += budgets
        else:
            facts = model.harvest.statistics_shards * len(trained)
            first = facts * model.harvest.shard_tokens
            tokens += first
            harvest += seconds(size, size.forward(first), facts * size.bytes)
            written = cost.facts_bytes(first, len(model.hooks))
        shards = sum(-(-budget // model.harvest.shard_tokens) for budget in kept)
        rows_kept = cost.store_bytes(sum(kept), model.d_model, len(model.hooks))
        written += rows_kept
        tokens += sum(kept)
        stored += written
        harvest += seconds(size, size.forward(sum(kept)), shards * size.bytes + 3 * rows_kept)
        passes = (1 + 2 * len(model.hooks)) * len(judged)
        references += seconds(size, passes * size.forward(loss_tokens), len(judged) * size.bytes)
        # A model, its audit, shards; documents (two files), tokens and references of each corpus; proofs of distance.
        apart = len(trained) * len(judged | trained) - len(trained)
        jobs += 2 + shards + facts + 2 * len(trained | judged) + len(judged) + apart
        files += 2 + shards + facts + 3 * len(trained | judged) + len(judged) + apart
    for group in groups:
        model, size = config.models[group.model], size_of(config.models[group.model])
        passed = sum(model.harvest.of(corpus).train_tokens for corpus in group.corpora) * times
        hooks = {hook for row in group.rows for hook in (row.hook, row.target_hook) if hook}
        held = model.harvest.window_shards * model.harvest.shard_tokens * len(group.corpora)
        window = max(window, cost.store_bytes(held, model.d_model, len(hooks)))
        recipes = [(row.recipe.n_latents, row.recipe.steps * times, row.recipe.batch_size) for row in group.rows]
        training += sum(cost.stream_seconds(size, passed, recipes, on_gpu=size.is_large))
        tokens, jobs = tokens + passed, jobs + 1
    for row in rows.values():
        model, size = config.models[row.model], size_of(config.models[row.model])
        if mode == "store":
            drawn = row.recipe.steps * row.recipe.batch_size * times
            flop = cost.training_flop(row.recipe.n_latents, model.d_model, drawn)
            training += seconds(size, flop, cost.store_bytes(drawn, model.d_model, 1))
        held_out = sum(model.harvest.of(corpus).eval_tokens for corpus in row.roles)
        values = cost.dictionary_values(row.recipe.n_latents, model.d_model)
        flop = 4 * len(row.roles) * size.forward(loss_tokens)
        flop += 2.0 * values * held_out * (2 + config.evaluation.null_dictionaries)
        evaluation += seconds(size, flop, size.bytes + cost.store_bytes(held_out, model.d_model, 1))
        jobs, files = jobs + (2 if mode == "store" else 1), files + 5
    hours = "".join(
        f"  {value / 3600:>{width}.2f}"
        for value, width in zip((harvest, references, training, evaluation), (9, 12, 10, 12), strict=True)
    )
    sizes = f"{tokens:>16,}  {stored / 1e9:>9,.0f}  {window / 1e9:>9,.0f}"
    return f"{mode:<6}  {times:>5}  {sizes}{hours}  {jobs:>4}  {files:>14}"


def size_of(model) -> cost.ModelSize:
    return cost.ModelSize(model.n_layers, model.d_model, 2 if model.dtype == "bfloat16" else 4)


def seconds(size: cost.ModelSize, flop: float, moved: float) -> float:
    """Work of the device, then of the disk: nothing is taken to overlap."""
    return flop / size.flops + moved / cost.DISK_BYTES


if __name__ == "__main__":
    main()
