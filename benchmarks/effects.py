"""Effects of latents: branches of shared contexts against one run of the whole model per latent, in the same run.

    python benchmarks/effects.py --results results --sae smollm2-135m/resid_post.19/chat/topk/seed-0 --corpus chat \\
        --latents 400 --beside 4 --threads 2

Ours measures all that a latent's row holds: removal, two nulls, clamps with their nulls, the SAE's whole effect. The
other runs the whole model once for each latent, on the contexts of the same firings, with the latent removed, and
nothing else; of `--beside` latents, in turn with ours. With `--contexts` both use the first contexts alone, with as
many firings in each as there are of all latents: seconds are then scaled to all firings of a latent. The ratio of the
processor seconds says which is faster on a machine that is busy with other things. The last line is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.activations.store import open_shards
from atlas.causal.effects import allowed_rows, measure
from atlas.causal.firings import choose_firings, other_latents
from atlas.causal.interventions import Change, Intervention, intervened
from atlas.causal.outcomes import compare_states
from atlas.codes.store import Codes
from atlas.config.causal import Causal
from atlas.models.forward import final_hidden
from atlas.models.load import in_float32, load_model
from atlas.training.sae import load_sae


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    model, hook, *_ = arguments.sae.split("/")
    results = arguments.results
    loaded = in_float32(load_model(results / "models" / model, torch.device("cpu")))
    sae = load_sae(results / "saes" / arguments.sae)
    codes = Codes.open(results / "codes" / arguments.sae / f"{arguments.corpus}.h5")
    shards = open_shards(sorted((results / "activations" / model / arguments.corpus).glob("eval-*.h5")))
    settings = Causal()
    allowed = allowed_rows(loaded, shards, codes.massive, settings.horizon)
    length = shards[0].context_length
    n_contexts = len(allowed) // length
    kept = min(arguments.contexts or n_contexts, n_contexts)
    allowed[kept * length :] = False
    every = settings.firings
    settings = settings.model_copy(update={"firings": max(1, round(every * kept / n_contexts))})
    scale = every / settings.firings
    latents = np.flatnonzero(codes.n_firings > 0)[: arguments.latents]
    firings = choose_firings(codes, allowed, latents, settings.firings, 0)
    others = other_latents(sae.W_dec, codes.n_firings, latents)
    tokens = torch.from_numpy(np.concatenate([shard.tokens for shard in shards]).astype(np.int64)).view(-1, length)

    found = {"ours": [0.0, 0.0], "whole model": [0.0, 0.0]}
    step = -(-len(latents) // arguments.beside)
    for number in range(arguments.beside):
        part = slice(number * step, (number + 1) * step)
        with Clock(found["ours"]):
            measure(loaded, sae, hook, shards, allowed, firings[part], others[part], settings, 0)
        with Clock(found["whole model"]):
            remove(loaded, sae, hook, tokens, firings[number * step])
    report = {"latents": len(latents), "beside": arguments.beside, "contexts": kept, "threads": arguments.threads}
    for name, (wall, processor) in found.items():
        each = scale / (len(latents) if name == "ours" else arguments.beside)
        report[name] = {"seconds_per_latent": wall * each, "processor_seconds_per_latent": processor * each}
        print(f"{name}: {wall * each:.2f} s per latent, {processor * each:.2f} s of processor time")
    for key in ("seconds_per_latent", "processor_seconds_per_latent"):
        report[f"times_faster_{key}"] = report["whole model"][key] / report["ours"][key]
    report["ours_minutes_for_all"] = found["ours"][0] * scale / 60
    report["ours_processor_minutes_for_all"] = found["ours"][1] * scale / 60
    print(json.dumps(report))


def remove(loaded, sae, hook, tokens, firing) -> None:
    """The whole model on the contexts of a latent's firings with the latent removed, and without that."""
    length = tokens.shape[1]
    ids, position = tokens[firing.row // length], torch.from_numpy(firing.row % length)
    where = torch.arange(length)[None] == position[:, None]
    removed = Intervention.of(loaded, sae, hook, Change.of("ablate", firing.latent), where)
    each = torch.arange(len(ids))
    with torch.inference_mode(), intervened(loaded, removed):
        changed = final_hidden(loaded, ids)[each, position]
    # The clean states would be shared by all latents: they are not counted against it.
    compare_states(loaded, changed, changed[:, None], ids[each, position + 1])


class Clock:
    """Adds the seconds and processor seconds of a block."""

    def __init__(self, total: list[float]):
        self._total = total

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_) -> None:
        self._total[0] += time.perf_counter() - self._start[0]
        self._total[1] += time.process_time() - self._start[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--sae", required=True, help="id of the SAE: model/hook/mix/recipe/seed-n")
    parser.add_argument("--corpus", default="chat")
    parser.add_argument("--latents", type=int, default=400)
    parser.add_argument("--beside", type=int, default=4, help="latents for which the whole model is run")
    parser.add_argument("--contexts", type=int, help="contexts that are used; default: all")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
