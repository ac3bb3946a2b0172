"""Splicing an SAE: from stored activations and references, against three whole forward passes.

    python benchmarks/evaluate.py --layer 19 --tokens 1024 --threads 1 --clock cpu

Needs a finished sweep (model, activations, an SAE); references of the same tokens are computed first. Timed per SAE:

- whole: clean, zero-ablated and spliced pass of the whole model, each with its cross-entropy, and KL to the clean
  output, on the text itself: what a peer does that keeps nothing.
- ours: reconstruct the stored rows, run the layers after the hook, cross-entropy and KL beside the references.
- suffix: the layers after the hook and the logits, in the model's number format; no loss, no SAE: the least that any
  evaluation from stored activations costs. "suffix+loss" adds the cross-entropy, as a model given labels does.

Once per model, hook and corpus, hence not in "ours": "references". Ways alternate, one round after the other, and
medians are compared. Prints a table, the metrics of both ways, and as the last line JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.activations.store import open_shards
from atlas.config.study import Evaluation
from atlas.devices import choose_device, keep_freed_memory, use_threads
from atlas.evaluation.chunks import reconstruct
from atlas.evaluation.losses import loss_metrics
from atlas.evaluation.references import References, compute_references
from atlas.evaluation.splice import splice_losses
from atlas.evaluation.units import Task, context_batches
from atlas.models.forward import final_hidden, logits, run_from, run_with
from atlas.models.load import load_model
from atlas.models.objectives import kl, per_token_loss
from atlas.training.sae import load_sae

METRICS = ("loss_clean", "loss_zero", "loss_sae", "kl")


def main(arguments: argparse.Namespace) -> None:
    use_threads(arguments.threads)
    keep_freed_memory()
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[arguments.clock]
    device, hook = choose_device(arguments.gpu), f"resid_post.{arguments.layer}"
    root, model, corpus = arguments.results, arguments.model, arguments.corpus
    loaded = load_model(root / "models" / model, device)
    sae = load_sae(root / "saes" / model / hook / arguments.sae).to(device)
    shards = open_shards(sorted((root / "activations" / model / corpus).glob("eval-*.h5")))
    with tempfile.TemporaryDirectory() as folder:
        path, started = Path(folder) / "references.h5", clock()
        compute_references(loaded, shards, [hook], arguments.tokens, arguments.batch_contexts, path)
        references_time = clock() - started
        references = References.open(path, hook, shards[0].identity)
        batches = list(context_batches(shards, references.n_contexts, arguments.batch_contexts))
        tasks = [Task.of(loaded, batch) for batch in batches]
        rows = [batch.rows(hook).to(device) for batch in batches]

        def whole() -> dict[str, float]:
            sums, count = dict.fromkeys(METRICS, 0.0), 0
            for task in tasks:
                clean = final_hidden(loaded, task.inputs)
                zero = run_with(loaded, task.inputs, hook, at_counted(task, torch.zeros_like))
                rebuilt = at_counted(task, lambda x: reconstruct(sae, x.flatten(0, 1)).view(x.shape))
                spliced = run_with(loaded, task.inputs, hook, rebuilt)
                for name, hidden in (("clean", clean), ("zero", zero), ("sae", spliced)):
                    loss = per_token_loss(loaded, task.inputs, hidden)[task.mask]
                    sums[f"loss_{name}"] += loss.double().sum().item()
                sums["kl"] += kl(loaded, clean, spliced)[:, :-1][task.mask[:, 1:]].double().sum().item()
                count += int(task.mask.sum())
            return {name: value / count for name, value in sums.items()}

        def ours() -> dict[str, float]:
            table = splice_losses(loaded, sae, hook, shards, references, arguments.batch_contexts)
            metrics, _ = loss_metrics(table, loaded.objective, Evaluation(bootstrap_samples=100))
            return {name: metrics[name] for name in METRICS}

        def suffix() -> None:
            for task, activation in zip(tasks, rows, strict=True):
                logits(loaded, run_from(loaded, task.inputs, hook, activation))

        def suffix_loss() -> None:
            for task, activation in zip(tasks, rows, strict=True):
                per_token_loss(loaded, task.inputs, run_from(loaded, task.inputs, hook, activation))

        ways = {"whole": whole, "ours": ours, "suffix": suffix, "suffix+loss": suffix_loss}
        found = {"whole": whole(), "ours": ours()}
        suffix()
        taken = alternate(ways, arguments.rounds, clock)
    report(taken, found, references_time, references.n_contexts * shards[0].context_length)


def at_counted(task: Task, edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """`edit` at the counted positions only."""
    return lambda x: torch.where(task.counted[..., None], edit(x), x).to(x.dtype)


def alternate(ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each way, one round after the other; every way has been called before."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            started = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def report(taken: dict[str, float], found: dict[str, dict[str, float]], references_time: float, n_tokens: int) -> None:
    """Print the table, both ways' metrics and the JSON."""
    for name, seconds in (taken | {"references (once)": references_time}).items():
        print(f"{name:20s} {seconds:8.2f} s {n_tokens / seconds:9.0f} tokens/s")
    for metric in METRICS:
        print(f"{metric:20s} whole {found['whole'][metric]:.5f}   ours {found['ours'][metric]:.5f}")
    ratios = {name: taken[name] / taken["ours"] for name in ("whole", "suffix", "suffix+loss")}
    print(
        f"{ratios['whole']:.2f} times as fast as three whole passes; {1 / ratios['suffix']:.2f} of the suffix's cost, "
    )
    print(f"{1 / ratios['suffix']:.2f} of the suffix's cost, {1 / ratios['suffix+loss']:.2f} with its loss")
    print(json.dumps({"tokens": n_tokens, "seconds": taken, "references": references_time, "metrics": found}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=19)
    parser.add_argument("--sae", default="chat/topk/seed-0", help="folder under the hook's")
    parser.add_argument("--corpus", default="chat")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--batch-contexts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: where other work runs too")
    parser.add_argument("--gpu", type=int, default=0)
    main(parser.parse_args())
