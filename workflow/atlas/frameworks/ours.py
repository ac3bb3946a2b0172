"""Our trainer on a job: the same command line, files and measures as the runners of peers.

    python -m atlas.frameworks.ours JOB.json FOLDER

What trains is `atlas.training.train.train_sae`, the function behind the rule `train`, with its checkpoints and its look
at held-out rows, of which there is one, at the end. `options`: `matmul_dtype` and `parity` as in a recipe.
"""

import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atlas.config.recipe import Recipe
from atlas.devices import choose_device, keep_freed_memory, make_deterministic, use_threads
from atlas.files import sha256_strings
from atlas.frameworks.job import TAKEN
from atlas.runcard import REQUIRED
from atlas.training.card import TRAINING_SECTIONS
from atlas.training.sae import load_sae
from atlas.training.train import train_sae

sys.path.append(str(Path(__file__).parents[2] / "peers"))

from peer_job import Job, Rows, run  # pyright: ignore[reportMissingImports]  # in workflow/peers, on no path

_MONITORED = 256


@dataclass(frozen=True)
class _Batch:
    rows: torch.Tensor
    corpora: dict[str, int]


@dataclass(frozen=True)
class _Statistics:
    n_rows: int
    mean: torch.Tensor
    mean_square_norm: float
    median_norm: float


class JobStream:
    """The batches of a job as the trainer reads them: in the storage dtype, not yet normalised."""

    def __init__(self, rows: Rows):
        self._rows, self.d_model = rows, rows.job.d_model

    def batch(self, step: int) -> _Batch:
        """The rows of one step."""
        self._rows.ask()
        return _Batch(self._rows.stored(step), {"job": self._rows.job.batch_size})

    @cached_property
    def identity(self) -> str:
        """Hash of the files and the order."""
        job = self._rows.job
        return sha256_strings([str(job.files), job.order, str(job.scale)])

    def where(self, step: int) -> list[tuple[Path, int]]:
        """File and row number of every row of a batch."""
        files, first = self._rows.job.files, self._rows.first
        numbers = self._rows.order[step]
        places = np.searchsorted(first, numbers, side="right") - 1
        return [(Path(files[i]["path"]), int(n - first[i])) for i, n in zip(places, numbers, strict=True)]

    def statistics(self) -> _Statistics:
        """The mean square norm is that of the job's scale; of the rest the trainer of an SAE uses nothing."""
        scale = self._rows.job.scale
        return _Statistics(int(self._rows.first[-1]), torch.zeros(self.d_model), scale**2, scale)

    def drawn_shares(self, steps: int) -> dict[str, float]:
        """All rows are the job's."""
        return {"job": 1.0}


def train(job: Job, rows: Rows) -> dict[str, torch.Tensor]:
    """Train on a job; weights in the layout of all runners, for rows divided by the job's scale."""
    use_threads(job.threads)
    make_deterministic()
    keep_freed_memory()
    recipe = recipe_of(job)
    monitors = {"in_sample": rows.stored(0)[:_MONITORED]}
    device = choose_device(int(job.device == "cuda"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        train_sae(recipe, JobStream(rows), monitors, job.seed, device, place, place / "state", card_of(job))
        sae = load_sae(place)
    weights = {"W_enc": sae.W_enc, "b_enc": sae.b_enc / job.scale, "W_dec": sae.W_dec, "b_dec": sae.b_dec / job.scale}
    return weights | ({} if sae.threshold is None else {"threshold": torch.tensor(sae.threshold / job.scale)})


def recipe_of(job: Job) -> Recipe:
    """The recipe of a job, with one look at held-out rows, at the end."""
    left_out = ("threshold_beta", "threshold_start_step") if job.architecture == "topk" else ()
    taken = {name: getattr(job, name) for name in (*TAKEN, "lr") if name not in left_out}
    return Recipe(
        **taken,
        matmul_dtype=job.option("matmul_dtype", ("auto", "float32", "bfloat16")),
        parity=job.option("parity", (None, "dictionary_learning", "sparsify")),
        monitor_every=job.steps,
        max_epochs=None,
    )


def card_of(job: Job) -> dict[str, Any]:
    """Return what a run card must have besides training's own fields; the card is not kept."""
    of_job = "see the job"
    card = {section: dict.fromkeys(keys, of_job) for section, keys in REQUIRED.items()}
    return {section: fields for section, fields in card.items() if section not in TRAINING_SECTIONS} | {
        "model": card["model"] | {"d_model": job.d_model},
        "hook": "resid_post.0",
        "target_hook": None,
        "epochs": {"job": job.steps * job.batch_size / sum(file["n_rows"] for file in job.files)},
    }


if __name__ == "__main__":
    run(train, "torch")
