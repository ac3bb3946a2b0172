"""What a configuration costs on paper: tokens, bytes, hours of a GPU and jobs, as planned by atlas.studies.cost.

    PYTHONPATH=workflow python benchmarks/scaling.py config/paper/llama_sweep.yaml --times 1 100

`--times` multiplies token budgets and training steps; sizes of models and dictionaries stay. Nothing is run.
"""

import argparse
from pathlib import Path

import yaml

from atlas.config.load import load_config
from atlas.config.rows import expand_rows
from atlas.studies import cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configuration", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 100])
    arguments = parser.parse_args()
    config = load_config(yaml.safe_load(arguments.configuration.read_text()), [str(arguments.configuration)])
    print("times  harvested tokens  stored GB  harvest h  references h  training h  evaluation h  jobs  metadata files")
    for times in arguments.times:
        print(line(config, times))


def line(config, times: int) -> str:
    """One row of the table: hours of the device that the cost model plans with, and of its disk, without its margin."""
    rows = {row.sae_id: row for study in expand_rows(config).values() for row in study}
    tokens = stored = jobs = files = 0
    harvest = references = training = evaluation = 0.0
    loss_tokens = config.evaluation.loss_tokens
    for name in {row.model for row in rows.values()}:
        model, size = config.models[name], size_of(config.models[name])
        used = [row for row in rows.values() if row.model == name]
        trained = {corpus for row in used for corpus in config.mixes[row.mix].corpora}
        judged = {corpus for row in used for corpus in row.roles}
        budgets = [model.harvest.of(corpus).train_tokens * times for corpus in trained]
        budgets += [model.harvest.of(corpus).eval_tokens for corpus in judged]
        written = cost.store_bytes(sum(budgets), model.d_model, len(model.hooks))
        shards = sum(-(-budget // model.harvest.shard_tokens) for budget in budgets)
        tokens += sum(budgets)
        stored += written
        harvest += seconds(size, size.forward(sum(budgets)), shards * size.bytes + 3 * written)
        passes = (1 + 2 * len(model.hooks)) * len(judged)
        references += seconds(size, passes * size.forward(loss_tokens), len(judged) * size.bytes)
        # A model, its audit, shards; documents (two files), tokens and references of each corpus; proofs of distance.
        apart = len(trained) * len(judged | trained) - len(trained)
        jobs += 2 + shards + 2 * len(trained | judged) + len(judged) + apart
        files += 2 + shards + 3 * len(trained | judged) + len(judged) + apart
    for row in rows.values():
        model, size = config.models[row.model], size_of(config.models[row.model])
        drawn = row.recipe.steps * row.recipe.batch_size * times
        flop = cost.training_flop(row.recipe.n_latents, model.d_model, drawn)
        training += seconds(size, flop, cost.store_bytes(drawn, model.d_model, 1))
        held_out = sum(model.harvest.of(corpus).eval_tokens for corpus in row.roles)
        values = cost.dictionary_values(row.recipe.n_latents, model.d_model)
        flop = 4 * len(row.roles) * size.forward(loss_tokens)
        flop += 2.0 * values * held_out * (2 + config.evaluation.null_dictionaries)
        evaluation += seconds(size, flop, size.bytes + cost.store_bytes(held_out, model.d_model, 1))
        jobs, files = jobs + 2, files + 5
    hours = "".join(
        f"  {value / 3600:>{width}.2f}"
        for value, width in zip((harvest, references, training, evaluation), (9, 12, 10, 12), strict=True)
    )
    return f"{times:>5}  {tokens:>16,}  {stored / 1e9:>9,.0f}{hours}  {jobs:>4}  {files:>14}"


def size_of(model) -> cost.ModelSize:
    return cost.ModelSize(model.n_layers, model.d_model, 2 if model.dtype == "bfloat16" else 4)


def seconds(size: cost.ModelSize, flop: float, moved: float) -> float:
    """Work of the device, then of the disk: nothing is taken to overlap."""
    return flop / size.flops + moved / cost.DISK_BYTES


if __name__ == "__main__":
    main()
