"""Examples of all latents: one pass over the codes, against Delphi's own loader on the same activations.

    PYTHONPATH=workflow .venv/bin/python benchmarks/autointerp.py [--environment results/environments/delphi]

Made codes: `--k` random latents of `--latents` on every one of `--tokens` tokens, in documents of four contexts. Ours:
windows, and for every latent 40 training examples, 50 test examples, 50 random and 50 hard negatives. Delphi's
LatentDataset: as many training and test examples, decoded, and 50 random negatives, from a cache that our writer made
of the same codes; for `--delphi-latents` of the latents, because it takes long. Target: 1,200 latents in 30 s. The
environment is made by ``snakemake results/environments/delphi/ready``; without it only ours is measured. Ends with a
line of JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.autointerp.delphi_cache import write_delphi_cache
from atlas.autointerp.examples import choose_examples, nearest_latents
from atlas.autointerp.windows import Windows
from atlas.codes.layout import IDENTITY
from atlas.codes.store import Codes
from atlas.codes.writer import CodeRows, CodesWriter
from atlas.config.autointerp import Autointerp
from atlas.export.environments import run_isolated

CONTEXT, BLOCK = 256, 32_768


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        codes = made_codes(Path(folder) / "codes.h5", arguments)
        settings = Autointerp()
        started = time.perf_counter()
        windows = Windows.of({"made": codes}, settings.window_tokens)
        W_dec = np.random.default_rng(0).standard_normal((codes.n_latents, 576)).astype(np.float32)
        found = choose_examples([codes], windows, nearest_latents(W_dec, settings.neighbours), settings, 0)
        seconds = time.perf_counter() - started
        number = sum(len(own.train) + len(own.test) + sum(map(len, own.negatives.values())) for own in found.latents)
        result = {"entries": codes.n_entries, "ours": rates(seconds, codes.n_latents, number)}
        if arguments.environment:
            result["delphi"] = delphi(codes, Path(folder), arguments)
            result["times_faster"] = result["delphi"]["ms_per_latent"] / result["ours"]["ms_per_latent"]
    print(json.dumps({"settings": {key: str(value) for key, value in vars(arguments).items()}} | result))


def rates(seconds: float, latents: int, examples: int) -> dict[str, float]:
    """Return what a table needs."""
    per_latent = 1000 * seconds / max(1, latents)
    return {"seconds": seconds, "latents": latents, "examples": examples, "ms_per_latent": per_latent}


def made_codes(path: Path, arguments: argparse.Namespace) -> Codes:
    """Every row has k random latents; tokens are random."""
    generator, n_rows = np.random.default_rng(0), arguments.tokens
    rows = np.arange(n_rows)
    columns = CodeRows(generator.integers(0, 49152, n_rows), rows // (4 * CONTEXT), rows >= 0, rows < 0)
    writer = CodesWriter(path, arguments.latents, columns, BLOCK)
    for first in range(0, n_rows, BLOCK):
        own = rows[first : first + BLOCK]
        latent = np.argpartition(generator.random((len(own), arguments.latents), np.float32), arguments.k, axis=1)
        value = generator.random(len(own) * arguments.k, np.float32) + 0.1
        writer.write(latent[:, : arguments.k].reshape(-1), np.repeat(own, arguments.k), value)
    writer.finish(dict.fromkeys(IDENTITY, "made") | {"context_length": CONTEXT})
    return Codes.open(path)


def delphi(codes: Codes, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of Delphi's loader, in its own environment."""
    write_delphi_cache(codes, folder / "cache", module="made", model_name="made", n_splits=5)
    job = {
        "task": "read",
        "target": str(folder / "cache"),
        "module": "made",
        "n_latents": arguments.delphi_latents,
        "tokenizer": str(arguments.model.absolute()),
        "threads": arguments.threads,
        "sampler": {"n_examples_train": 40, "n_examples_test": 50},
        "constructor": {"example_ctx_len": 32, "n_non_activating": 50, "min_examples": 1, "center_examples": False},
        "result": str(folder / "result.json"),
    }
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).parents[1] / "workflow/peers/delphi_cache.py"
    run_isolated(arguments.environment / "bin/python", [str(script), str(folder / "job.json")], "Delphi's loader")
    found = json.loads((folder / "result.json").read_text())
    return rates(found["seconds"], found["records"], found["examples"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2**18)
    parser.add_argument("--latents", type=int, default=1200)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--environment", type=Path, help="virtual environment that holds Delphi")
    parser.add_argument("--delphi-latents", type=int, default=100)
    parser.add_argument("--model", type=Path, default=Path("results/models/smollm2-135m"), help="for its tokenizer")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
