"""Load exports with the peer's own loader, and let the peer encode and decode rows.

A plain script for the peer's environment (see peer_job.py): the standard library, torch, safetensors and the peer.

    ENVIRONMENT/bin/python -I workflow/peers/read_export.py JOBS.json

JOBS is a list, because importing a peer takes longer than all of the rest. Each entry has `format`, `folder`, `hooks`
(the name of its hooks), `rows`, a file that holds float32 `rows`, and `target`. The target receives `latents`, dense,
and `reconstruction`; its metadata say which class of which version of the peer computed them.
"""

import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path


def saelens(job, rows):
    """SAE.load_from_disk."""
    from sae_lens import SAE

    sae = SAE.load_from_disk(job["folder"])
    return sae, sae.encode(rows), sae(rows)


def huggingface(job, rows):
    """SAE.from_pretrained, with the folder in the hub's cache as if it had been downloaded from a repository."""
    from sae_lens import SAE

    commit = "0" * 40
    with tempfile.TemporaryDirectory(dir=os.environ["HF_HUB_CACHE"]) as unique:
        name = Path(unique).name
        repository = Path(unique).with_name(f"models--sae-atlas--{name}")
        shutil.copytree(job["folder"], repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        sae = SAE.from_pretrained(f"sae-atlas/{name}", job["hooks"])
    return sae, sae.encode(rows), sae(rows)


def dictionary_learning(job, rows):
    """utils.load_dictionary; encode as forward calls it, without use_threshold for TopK."""
    from dictionary_learning.utils import load_dictionary

    dictionary, _ = load_dictionary(job["folder"], "cpu")
    reconstruction, latents = dictionary(rows, output_features=True)
    return dictionary, latents, reconstruction


def sparsify(job, rows):
    """SparseCoder.load_from_disk; its latents are values and indices, and those of value 0 mean none."""
    import torch
    from sparsify import SparseCoder

    coder = SparseCoder.load_from_disk(job["folder"])
    values, indices, pre = coder.encode(rows)
    latents = torch.zeros_like(pre).scatter_(1, indices, values)
    # Not its forward, which runs in bfloat16 where there is a GPU.
    return coder, latents, coder.decode(values, indices)


READERS = {
    "saelens": (saelens, "sae-lens"),
    "huggingface": (huggingface, "sae-lens"),
    "dictionary_learning": (dictionary_learning, "dictionary-learning"),
    "sparsify": (sparsify, "eai-sparsify"),
}


def run(job):
    """Read, compute, write."""
    import torch
    from safetensors.torch import load_file, save_file

    read, package = READERS[job["format"]]
    torch.set_num_threads(1)
    with torch.no_grad():
        model, latents, reconstruction = read(job, load_file(job["rows"])["rows"])
    described = {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "version": f"{package}=={importlib.metadata.version(package)}",
        "torch": torch.__version__,
    }
    tensors = {"latents": latents.to_dense().contiguous(), "reconstruction": reconstruction.contiguous()}
    save_file(tensors, job["target"], metadata=described)


def main(jobs_file):
    """Every job in turn, with a cache of the hub's own that no other program sees."""
    with tempfile.TemporaryDirectory() as cache:
        # Read by huggingface_hub when it is imported.
        os.environ |= {"HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        for job in json.loads(Path(jobs_file).read_text(encoding="utf-8")):
            run(job)


if __name__ == "__main__":
    main(*sys.argv[1:])
