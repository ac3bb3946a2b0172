"""Run SAE Bench in a process and an environment of its own, on contexts of our store."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor

from atlas.activations.store import Shard
from atlas.errors import AtlasError
from atlas.evaluation.units import context_batches
from atlas.export.formats import verify_files
from atlas.files import atomic_path, read_plain_json, write_json, write_plain_json
from atlas.prepared import read_identity
from atlas.processes import peer_environment

RUNNER = Path(__file__).parents[2] / "peers" / "run_sae_bench.py"
THEIRS, RUN = "theirs.json", "run.json"
_SHOWN = 4000  # characters of the end of a failed run's output


class SaeBenchError(AtlasError):
    """SAE Bench could not be run, or was given an SAE that is not of this model and hook."""


@dataclass(frozen=True)
class Bench:
    """Input of every evaluation: a prepared model, the SAELens export of one of its SAEs, and where to run."""

    model: Path
    export: Path
    python: Path
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Results:
    """Files of an evaluation: `theirs` as SAE Bench wrote it, `run` what ran and its numbers."""

    theirs: Path
    run: Path


def run_core(bench: Bench, shards: Sequence[Shard], loss_tokens: int, batch_contexts: int, results: Results) -> None:
    """SAE Bench's core evaluation on the contexts on which our losses are measured.

    Raises SaeBenchError when the environment is missing, the SAE is not of this model, or SAE Bench fails.
    """
    for shard in shards:
        expected = read_identity(bench.model)["weights_sha256"]
        if shard.identity["weights_sha256"] != expected:
            raise SaeBenchError(f"{shard.path}: holds text for another model than {bench.model}; harvest it again")
    tokens = loss_contexts(shards, loss_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tokens.safetensors"
        save_file({"tokens": tokens}, file)
        own = {"tokens": str(file), "batch_contexts": even_batch(len(tokens), batch_contexts)}
        _run(bench, {"evaluation": "core", **own}, results)


def run_probes(bench: Bench, datasets: Sequence[str], ks: Sequence[int], results: Results) -> None:
    """SAE Bench's evaluation with sae-probes on data sets that sae-probes brings along; errors as `run_core`."""
    _run(bench, {"evaluation": "probes", "datasets": list(datasets), "ks": list(ks)}, results)


def loss_contexts(shards: Sequence[Shard], loss_tokens: int) -> Int[Tensor, "contexts position"]:
    """The first whole contexts within `loss_tokens`: those of our reference losses."""
    length = shards[0].context_length
    wanted = min(loss_tokens // length, sum(shard.n_rows for shard in shards) // length)
    return torch.cat([batch.tokens for batch in context_batches(shards, wanted, max(1, wanted))])


def even_batch(n_contexts: int, batch_contexts: int) -> int:
    """The largest batch of at most `batch_contexts` that leaves no rest, for which SAELens' store would begin anew."""
    return next(size for size in range(min(batch_contexts, n_contexts), 0, -1) if n_contexts % size == 0)


def _run(bench: Bench, job: dict[str, Any], results: Results) -> None:
    if not bench.python.exists():
        raise SaeBenchError(
            f"SAE Bench has no environment at {bench.python}; build it with "
            "`snakemake --cores 1 results/environments/sae_bench/ready`"
        )
    _check_sae(bench)
    place = {"model": bench.model, "sae": bench.export}
    job |= {key: str(path.absolute()) for key, path in place.items()}
    job |= {"threads": bench.threads, "device": bench.device}
    with tempfile.TemporaryDirectory() as scratch:
        file, folder = Path(scratch) / "job.json", Path(scratch) / "out"
        write_plain_json(file, job)
        command = [str(bench.python.absolute()), "-I", str(RUNNER), str(file), str(folder)]
        done = subprocess.run(
            command,
            env=peer_environment(OMP_NUM_THREADS=str(bench.threads)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode:
            raise SaeBenchError(
                f"SAE Bench failed on {bench.export} (status {done.returncode}); its output ends:\n"
                f"{done.stdout[-_SHOWN:]}"
            )
        with atomic_path(results.theirs) as temporary:
            temporary.write_bytes((folder / THEIRS).read_bytes())
        write_json(results.run, read_plain_json(folder / RUN))


def _check_sae(bench: Bench) -> None:
    exported, model = verify_files(bench.export), read_identity(bench.model)
    config = read_plain_json(bench.export / "cfg.json")
    if exported["format"] != "saelens" or exported["model"] != model["name"]:
        raise SaeBenchError(
            f"{bench.export}: is the {exported['format']} export of an SAE of model {exported['model']!r}, expected "
            f"a saelens export of one of {model['name']!r}"
        )
    if config["d_in"] != model["d_model"]:
        raise SaeBenchError(
            f"{bench.export}: reads rows of width {config['d_in']}, but {model['name']!r} has d_model "
            f"{model['d_model']}: it is an SAE of another hook or model"
        )
