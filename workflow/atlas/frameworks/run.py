"""One run of the study `frameworks`: from activation files to weights, and from weights to an SAE of ours."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from atlas.activations.sampling import median_norm, sample_rows
from atlas.activations.store import shards_by_corpus
from atlas.activations.stream import BatchStream
from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe
from atlas.errors import DamagedFileError
from atlas.files import AGAIN, atomic_path, read_json, read_plain_json, sha256_file, write_json
from atlas.folder import Folder
from atlas.frameworks.job import order_of_stream, rows_files, scale_of_stream, write_job
from atlas.frameworks.launch import RESULT_FILE, WEIGHTS_FILE, train_with
from atlas.frameworks.weights import held_out_loss, sae_of
from atlas.massive import MASSIVE_FACTOR
from atlas.training.sae import save_sae


def train_run(
    framework: str,
    shards: list[Path],
    *,
    hook: str,
    mix: Mix,
    recipe: Recipe,
    seed: int,
    options: Mapping[str, Any],
    environments: Path,
    threads: int,
    device: torch.device,
    folder: Folder,
) -> None:
    """Train with a framework on the batches that our trainer would draw; weights and result go to `folder`.

    result.json holds what the runner measured, and what the job was.
    """
    groups = shards_by_corpus(shards, {})
    stream = BatchStream(groups, hook, mix, seed, recipe.batch_size, recipe.steps, recipe.exclude_massive)
    every = [shard for group in groups.values() for shard in group]
    scale = scale_of_stream(recipe, stream)
    folder.mkdir(parents=True, exist_ok=True)
    # On the disk of the results, so that what is kept can be renamed.
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        write_job(
            place / "job.json",
            recipe,
            rows_files(every, hook),
            every[0].identity["storage_dtype"],
            stream.d_model,
            order_of_stream(stream, every),
            scale,
            seed,
            threads,
            device.type,
            dict(options),
        )
        result = train_with(framework, place / "job.json", place / "out", environments)
        told = read_plain_json(place / "job.json")
        job = {key: value for key, value in told.items() if key not in ("files", "order")}
        with atomic_path(folder / WEIGHTS_FILE) as temporary:
            (place / "out" / WEIGHTS_FILE).rename(temporary)
            # The file is the framework's, so its hash stands in ours.
            hashed = {"weights_sha256": sha256_file(temporary)}
            write_json(folder / RESULT_FILE, {"framework": framework, **result, **hashed, "job": job})


def convert_run(
    folder: Folder, shards: list[Path], *, model: str, hook: str, training: list[Path], rows: int, target: Folder
) -> None:
    """Write a run's weights as an SAE of ours to `target`, and its loss on a sample of eval rows to held_out.json.

    `training` are the training shards, whose median norm says which rows are massive; they are left out.
    """
    result = read_json(folder / RESULT_FILE)
    job = result["job"]
    if (found := sha256_file(folder / WEIGHTS_FILE)) != result["weights_sha256"]:
        raise DamagedFileError(
            f"{folder / WEIGHTS_FILE}: SHA-256 {found}, but {RESULT_FILE} says {result['weights_sha256']}: altered "
            f"since it was trained; {AGAIN}"
        )
    sae = sae_of(folder, job["architecture"], job["k"], job["scale"])
    save_sae(
        sae,
        target,
        {"model_name": model, "hook_name": hook, "trained_by": f"{result['framework']} {result['version']}"},
    )
    (eval_shards,) = shards_by_corpus(shards, {}).values()
    trained = [shard for group in shards_by_corpus(training, {}).values() for shard in group]
    sample = sample_rows(eval_shards, hook, rows, MASSIVE_FACTOR * median_norm(trained, hook))
    loss = held_out_loss(sae, sample, job["scale"], job["batch_size"])
    write_json(target / "held_out.json", {"loss": loss, "rows": len(sample)})
