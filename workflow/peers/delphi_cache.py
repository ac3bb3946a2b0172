"""Delphi's own cache of activations, and how long its loader takes: a plain script for Delphi's environment.

    ENVIRONMENT/bin/python -I workflow/peers/delphi_cache.py JOB.json

JOB has `task`. `write`: dense `latents` (contexts, positions, latents) float32 and `tokens` from the safetensors file
`source` go through Delphi's InMemoryCache, LatentCache.save_splits and save_config into `target`, with `module`,
`model_name`, `batch_size`, `n_splits` and `config`, fields of Delphi's CacheConfig. `read`: LatentDataset reads the
cache in `target`, and makes the examples of its first `n_latents` latents; `result` receives seconds and numbers of
examples.
"""

import json
import sys
import time
from pathlib import Path


def write(job):
    """Write a cache as LatentCache.run does, with latents that are given in place of a model's."""
    import torch
    from delphi.config import CacheConfig
    from delphi.latents import LatentCache
    from safetensors.torch import load_file

    given = load_file(job["source"])
    cache = LatentCache(None, {}, batch_size=job["batch_size"])
    # As LatentCache.run: whole batches only.
    for number, batch in enumerate(cache.load_token_batches(given["tokens"].numel(), given["tokens"])):
        first = number * job["batch_size"]
        cache.cache.add(given["latents"][first : first + job["batch_size"]], batch, number, job["module"])
    cache.cache.save()
    cache.width = given["latents"].shape[2]
    cache.save_splits(job["n_splits"], Path(job["target"]))
    cache.save_config(Path(job["target"]), CacheConfig(**job["config"]), job["model_name"])
    return {"torch": torch.__version__}


def read(job):
    """Examples of latents as Delphi's own pipeline makes them."""
    import torch
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents import LatentDataset
    from transformers import AutoTokenizer

    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"], local_files_only=True)
    started = time.perf_counter()
    data = LatentDataset(
        raw_dir=job["target"],
        modules=[job["module"]],
        latents={job["module"]: torch.arange(job["n_latents"])},
        tokenizer=tokenizer,
        sampler_cfg=SamplerConfig(**job["sampler"]),
        constructor_cfg=ConstructorConfig(**job["constructor"]),
    )
    found = [(len(record.train), len(record.test), len(record.not_active)) for record in data]
    return {"seconds": time.perf_counter() - started, "records": len(found), "examples": sum(map(sum, found))}


def main(job_file):
    """Do the task."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    result = {"write": write, "read": read}[job["task"]](job)
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
