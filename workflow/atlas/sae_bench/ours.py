"""Our numbers on the tokens that SAE Bench is given, and its formulas on our rows: which of its values are faults."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.store import shards_by_corpus
from atlas.errors import EvaluationError, TrainingError
from atlas.evaluation.chunks import reconstruct
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.evaluation.sparsity import DENSE_RATE
from atlas.evaluation.units import context_batches
from atlas.files import write_json
from atlas.folder import Folder
from atlas.sae_bench.launch import even_batch, loss_contexts
from atlas.training.sae import Sae, load_sae


def explained_variance_of_sae_bench(
    squares: Float[Tensor, "batches d_model"], errors: Float[Tensor, " batches"]
) -> float:
    """Return what SAE Bench 0.6.0 calls explained variance, from each batch's means of x² per dimension and of ‖e‖².

    It subtracts from mean ‖x‖² the square of the mean over batches *and dimensions* of mean x²: a number of the unit
    of ‖x‖⁴ in the place of ‖mean x‖² (sae_bench/evals/core/main.py, get_sparsity_and_variance_metrics). Its value
    changes when rows are scaled, and passes 1 once the mean of ‖x‖² is above d_model².
    """
    total = squares.sum(dim=1).mean() - squares.mean() ** 2
    return (1 - errors.mean() / total).item()


@torch.inference_mode()
def run_ours(
    sae_folder: Folder, shards: Sequence[Path], hook: str, loss_tokens: int, batch_contexts: int, target: Path
) -> None:
    """Write ours.json from eval shards of one corpus; raises EvaluationError if SAE and rows differ in width."""
    (opened,) = shards_by_corpus(shards, {}).values()
    try:
        sae = load_sae(sae_folder)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    if sae.d_model != opened[0].d_model(hook):
        raise EvaluationError(
            f"{sae_folder}: reads rows of width {sae.d_model}, but those of {hook} have {opened[0].d_model(hook)}: "
            "it was trained on another hook or model"
        )
    n_contexts = len(loss_contexts(opened, loss_tokens))
    batches = list(context_batches(opened, n_contexts, even_batch(n_contexts, batch_contexts)))
    write_json(target, measure(sae, [batch.rows(hook)[batch.counted] for batch in batches]))


def measure(sae: Sae, batches: Sequence[Float[Tensor, "rows d_model"]]) -> dict[str, Any]:
    """Ours over all rows, and what SAE Bench's formulas give for them and for the mean predictor, batch by batch."""
    rows = torch.cat(list(batches)).double()
    mean = rows.mean(dim=0)
    sums, fired, norms = ReconstructionSums.start(mean), torch.zeros(sae.n_latents), 0.0
    squares, errors, constant, legacy = [], [], [], []
    for batch in batches:
        latents = sae.encode(batch)
        reconstruction = reconstruct(sae, batch)
        sums.update(batch, reconstruction)
        fired += (latents > 0).sum(dim=0)
        norms += batch.double().norm(dim=1).sum().item()
        exact = batch.double()
        error = (exact - reconstruction.double()).square().sum(dim=1)
        squares.append(exact.square().mean(dim=0))
        errors.append(error.mean())
        constant.append((exact - mean).square().sum(dim=1).mean())
        legacy.append(1 - error / (exact - exact.mean(dim=0)).square().sum(dim=1))
    ours = sums.metrics()
    squares = torch.stack(squares)
    return {
        "n_counted": len(rows),
        "explained_variance": ours["explained_variance"],
        "cosine": ours["cosine"],
        "l2_ratio": ours["l2_ratio"],
        "mean_norm": norms / len(rows),
        "mean_squared_error": sums.error_square.sum().item() / len(rows),
        "l0": fired.sum().item() / len(rows),
        "fired_share": (fired > 0).float().mean().item(),
        "dense_share": (fired > DENSE_RATE * len(rows)).float().mean().item(),
        "sae_bench_formula": {
            "explained_variance": explained_variance_of_sae_bench(squares, torch.stack(errors)),
            "explained_variance_of_the_mean": explained_variance_of_sae_bench(squares, torch.stack(constant)),
            "explained_variance_legacy": torch.cat(legacy).mean().item(),
            # Each row's ‖e‖² divided by its batch's rows, and then the mean over rows.
            "mse": torch.stack(errors).sum().item() / len(rows),
        },
    }
