"""Train with dictionary_learning: its TopKTrainer or BatchTopKTrainer, one `update` per batch as its trainSAE does.

What its trainer leaves open is set as the job says. The number of silent tokens after which a latent is dead is no
argument of the trainer, and is set on it. Its trainSAE autocasts to bfloat16 on CUDA only; the option `autocast` asks
for that, and on the CPU for what it does not offer there.
"""

import contextlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from peer_job import Job, Rows, run


def train(job: Job, rows: Rows) -> dict:
    """Weights of its autoencoder after the last update."""
    import torch
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = {"topk": TopKTrainer, "batch_topk": BatchTopKTrainer}[job.architecture](
        steps=job.steps,
        activation_dim=job.d_model,
        dict_size=job.n_latents,
        k=job.k,
        layer=0,
        lm_name="none",
        lr=job.lr,
        auxk_alpha=job.aux_coefficient,
        warmup_steps=job.warmup_steps,
        decay_start=job.decay_start,
        threshold_beta=job.threshold_beta,
        threshold_start_step=job.threshold_start_step,
        seed=job.seed,
        device=job.device,
    )
    trainer.dead_feature_threshold = job.dead_feature_tokens
    autocast = contextlib.nullcontext()
    if job.option("autocast", (False, True)):
        autocast = torch.autocast(job.device, torch.bfloat16)
    for step in range(job.steps):
        with autocast:
            trainer.update(step, rows.batch(step).to(job.device))
    ae = trainer.ae
    weights = {"W_enc": ae.encoder.weight.T, "b_enc": ae.encoder.bias, "W_dec": ae.decoder.weight.T, "b_dec": ae.b_dec}
    return weights | ({"threshold": torch.as_tensor(ae.threshold)} if job.architecture == "batch_topk" else {})


if __name__ == "__main__":
    run(train, "dictionary-learning")
