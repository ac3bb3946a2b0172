"""What a configuration costs on paper: tokens, bytes, hours of a GPU and jobs, as planned by atlas.studies.cost.

    PYTHONPATH=workflow python benchmarks/scaling.py config/paper/llama_sweep.yaml --times 1 100

`--times` multiplies token budgets and training steps; sizes of models and dictionaries stay. Nothing is run.
"""

import argparse
from pathlib import Path

import yaml

from atlas.config import expand_rows, load_config
from atlas.studies import cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configuration", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 100])
    arguments = parser.parse_args()
    config = load_config(yaml.safe_load(arguments.configuration.read_text()), [str(arguments.configuration)])
    print("times  harvested tokens  stored GB  harvest h  training h  evaluation h  jobs")
    for times in arguments.times:
        print(line(config, times))


def line(config, times: int) -> str:
    """One row of the table: hours are those of the device that the cost model plans with, without its margin."""
    rows = {row.sae_id: row for study in expand_rows(config).values() for row in study}
    tokens = stored = harvest = training = evaluation = jobs = 0
    for name in {row.model for row in rows.values()}:
        model = config.models[name]
        size = cost.ModelSize(model.n_layers, model.d_model, 2 if model.dtype == "bfloat16" else 4)
        used = [row for row in rows.values() if row.model == name]
        trained = {corpus for row in used for corpus in config.mixes[row.mix].corpora}
        judged = {corpus for row in used for corpus in row.roles}
        budgets = [model.harvest.of(corpus).train_tokens * times for corpus in trained]
        budgets += [model.harvest.of(corpus).eval_tokens for corpus in judged]
        tokens += sum(budgets)
        stored += cost.store_bytes(sum(budgets), model.d_model, len(model.hooks))
        harvest += size.forward(sum(budgets)) / size.flops
        jobs += sum(-(-budget // model.harvest.shard_tokens) for budget in budgets) + 2 + 3 * len(trained | judged)
    for row in rows.values():
        model = config.models[row.model]
        size = cost.ModelSize(model.n_layers, model.d_model, 2 if model.dtype == "bfloat16" else 4)
        drawn = row.recipe.steps * row.recipe.batch_size * times
        training += cost.training_flop(row.recipe.n_latents, model.d_model, drawn) / size.flops
        evaluation += 4 * len(row.roles) * size.forward(config.evaluation.loss_tokens) / size.flops
        jobs += 2
    return (
        f"{times:>5}  {tokens:>16,}  {stored / 1e9:>9,.0f}  {harvest / 3600:>9.2f}  {training / 3600:>10.2f}"
        f"  {evaluation / 3600:>12.2f}  {jobs:>4}"
    )


if __name__ == "__main__":
    main()
