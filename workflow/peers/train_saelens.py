"""Train with SAELens: its SAETrainer.fit on a TopKTrainingSAE or BatchTopKTrainingSAE, over an iterator of our rows.

Its defaults stand where the recipe has no word for a setting: decoder rows start at norm 0.1 and are free, latents are
rescaled by their norms, its threshold follows from 0 with a weight of at least 0.01, and the weight of its auxiliary
loss, which is not divided by the residual's variance, is 1 (0 if the job's is 0). A latent is dead after as many
forward passes as make up the job's tokens. Its learning rate starts at lr / warmup_steps. What is returned is its
inference form, decoder norms folded. Two documented options for speed: `use_sparse_activations` (TopK only) and
`autocast` to bfloat16.
"""

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from peer_job import Job, Rows, run

_THRESHOLD_LR = 0.01  # its default


def train(job: Job, rows: Rows) -> dict:
    """Weights of its SAE for inference."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer
    from safetensors.torch import load_file

    sparse = job.option("use_sparse_activations", (False, True))
    own = {"use_sparse_activations": sparse}
    kind, config = TopKTrainingSAE, TopKTrainingSAEConfig
    if job.architecture == "batch_topk":
        kind, config = BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
        # Its threshold starts at 0, so that a memory as long as the recipe's may outlast the training.
        own = {"topk_threshold_lr": max(_THRESHOLD_LR, 1 - job.threshold_beta)}
    sae = kind(
        config(
            d_in=job.d_model,
            d_sae=job.n_latents,
            k=job.k,
            device=job.device,
            aux_loss_coefficient=1.0 if job.aux_coefficient > 0 else 0.0,
            **own,
        )
    )
    decay = {} if job.decay_start is None else {"lr_decay_steps": job.steps - job.decay_start}
    settings = SAETrainerConfig(
        total_training_samples=job.steps * job.batch_size,
        train_batch_size_samples=job.batch_size,
        lr=job.lr,
        lr_end=job.lr / 10,  # not used by a constant rate, but asked for
        lr_warm_up_steps=job.warmup_steps,
        device=job.device,
        autocast=job.option("autocast", (False, True)),
        dead_feature_window=max(1, job.dead_feature_tokens // job.batch_size),
        logger=LoggingConfig(log_to_wandb=False),
        **decay,
    )
    trainer = SAETrainer(settings, sae, data_provider=(rows.batch(step) for step in range(job.steps)))
    trainer.fit()
    with tempfile.TemporaryDirectory() as folder:
        weights, _ = sae.save_inference_model(folder)
        found = load_file(weights)
    if "threshold" in found:
        found["threshold"] = found["threshold"][0]
    return found


if __name__ == "__main__":
    run(train, "sae-lens")
