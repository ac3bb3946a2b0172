"""Train with sparsify: its own Trainer, unchanged, on a model whose only layer puts out the rows of the job.

The trainer wants tokens and a language model. Here a context stands for a batch, its tokens all being the batch's
number, and the model looks the rows up, so that what runs is the trainer's own loop: its hook, loss, projection of
gradients and optimiser. With its Adam the learning rate always falls linearly from the end of the warm-up on; a job
with another schedule is refused. It does not clip gradients. Logging is off, and nothing is saved before the end. Its
bfloat16 autocast is for CUDA only.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from peer_job import Job, Rows, run


def train(job: Job, rows: Rows) -> dict:
    """Weights of its sparse coder after the last update."""
    import torch
    from sparsify import SaeConfig, TrainConfig, Trainer

    if job.architecture != "topk":
        sys.exit(f"sparsify has no architecture {job.architecture!r}: expected 'topk'")
    if job.decay_start is None or not 0 <= job.decay_start - job.warmup_steps <= 1:
        sys.exit(
            f"decay_start is {job.decay_start}: sparsify's learning rate falls from the end of the warm-up on, "
            f"step {job.warmup_steps}; expected {job.warmup_steps + 1}"
        )

    class LookUp(torch.nn.Module):
        def forward(self, numbers):
            return rows.batch(int(numbers[0, 0])).unsqueeze(0).to(job.device)

    class Model(torch.nn.Module):
        """The number of a batch stands for its rows."""

        device = torch.device(job.device)

        def __init__(self):
            super().__init__()
            self.rows = LookUp()

        @property
        def base_model(self):
            return self

        @property
        def dummy_inputs(self):
            return {"numbers": torch.zeros(1, 1, dtype=torch.long)}

        def forward(self, numbers):
            return self.rows(numbers)

    class Batches(torch.utils.data.Dataset):
        """One context per batch: its number, once for every row."""

        def __len__(self):
            return job.steps

        def __getitem__(self, step):
            return {"input_ids": torch.full((job.batch_size,), step)}

    class Unsaved(Trainer):
        def save(self):
            pass

    trainer = Unsaved(
        TrainConfig(
            SaeConfig(num_latents=job.n_latents, k=job.k),
            batch_size=1,
            optimizer="adam",
            lr=job.lr,
            lr_warmup_steps=job.warmup_steps,
            auxk_alpha=job.aux_coefficient,
            dead_feature_threshold=job.dead_feature_tokens,
            hookpoints=["rows"],
            init_seeds=[job.seed],
            log_to_wandb=False,
        ),
        Batches(),
        Model(),
    )
    rows.requested.clear()  # the trainer looks at one batch to learn the width
    trainer.fit()
    (sae,) = trainer.saes.values()
    return {"W_enc": sae.encoder.weight.T, "b_enc": sae.encoder.bias, "W_dec": sae.W_dec, "b_dec": sae.b_dec}


if __name__ == "__main__":
    run(train, "eai-sparsify")
