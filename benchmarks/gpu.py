"""Measure an accelerator: the CUDA paths against the CPU, and each stage against a bare limit or a plain peer.

    python benchmarks/gpu.py --output gpu.json          # one GPU of 80 GB, made for 8 minutes on an H100
    python benchmarks/gpu.py --tiny                     # that it runs, on any machine; nothing of use is measured

Nothing is downloaded: models have the true shapes and random weights, which cost the same time. Sections:

- same: activations, 20 updates of each architecture (dense and sparse products) and a splice, on the CPU and on the
  device; a difference beyond its limit ends the run with an error, after all numbers are printed.
- harvest: at the shapes of Llama-3.1-8B and Nemotron-Nano-9B-v2 in bfloat16, beside the bare forward pass that stores
  nothing, truncated at the same block. The ratio is the share of the machine that harvesting leaves to the model.
- train: the update at the guide's Nemotron shape, in large batches and in the guide's of 32 rows, beside plain
  formulations of the same step (fused Adam; dense codes, as dictionary_learning has them, or gathered decoder rows, as
  sparsify has) with the same rows and the same number format.
- read: batches of stored rows to the device, beside a sequential copy of the file that arrives there too.
- evaluate: one SAE spliced at the sweep's layer, beside the layers after the hook alone, and three whole passes.

Ways of a section alternate in one process; medians and ratios pair by pair. Prints tables and, as the last line, JSON
with hardware, versions and date. Sections that the device's memory cannot hold are an error, never left out.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from harvest import bare, random_split

from atlas.activations.harvest import harvest_shard
from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.config.data import Harvest
from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe
from atlas.devices import choose_device, make_deterministic, use_threads
from atlas.evaluation.references import References, compute_references
from atlas.evaluation.splice import splice_losses
from atlas.evaluation.units import Task, context_batches
from atlas.models.adapters import find_adapter
from atlas.models.forward import capture, final_hidden, logits, run_from
from atlas.models.load import LoadedModel
from atlas.models.objectives import per_token_loss
from atlas.training.architectures import ARCHITECTURES
from atlas.training.prefetch import prefetch
from atlas.training.sae import Sae
from atlas.training.state import TrainingState, choose_numerics, new_state
from atlas.training.update import update

CPU = torch.device("cpu")
MIX = Mix(phases=[{"until": 1.0, "weights": {"random": 1.0}}])


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of each section."""

    llama: dict[str, Any]
    nemotron: dict[str, Any]
    llama_hooks: tuple[str, ...]
    nemotron_hooks: tuple[str, ...]
    context: int
    contexts: int
    batch_contexts: int
    sae: tuple[int, int, int, int]  # d_model, latents, k, batch
    small_batch: int
    steps: int
    dtype: str


# hidden sizes, layers and heads as the models' own config.json say.
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
}
# Nemotron-Nano-9B-v2: 56 blocks, of which 4 attend and 25 are feed-forward; hybrid_override_pattern of its config.json.
PATTERN = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
KINDS = {"M": "linear_attention", "-": "mlp", "*": "full_attention"}
NEMOTRON_9B = {
    "hidden_size": 4480,
    "intermediate_size": 15680,
    "layers_block_type": [KINDS[letter] for letter in PATTERN],
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 80,
    "ssm_state_size": 128,
    "n_groups": 8,
    "vocab_size": 131072,
}
FULL = Size(
    LLAMA_8B,
    NEMOTRON_9B,
    ("resid_post.4", "resid_post.10", "resid_post.19", "resid_post.28"),
    ("resid_post.28",),
    context=512,
    contexts=64,
    batch_contexts=8,
    sae=(4480, 35840, 64, 4096),
    small_batch=32,
    steps=30,
    dtype="bfloat16",
)
TINY = Size(
    {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
     "num_key_value_heads": 2, "vocab_size": 256},
    {"hidden_size": 32, "intermediate_size": 64, "layers_block_type": [KINDS[letter] for letter in "M-*M"],
     "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "mamba_num_heads": 4, "mamba_head_dim": 8,
     "ssm_state_size": 8, "n_groups": 1, "vocab_size": 256},
    ("resid_post.1", "resid_post.2"),
    ("resid_post.2",),
    context=16,
    contexts=8,
    batch_contexts=4,
    sae=(32, 64, 4, 64),
    small_batch=16,
    steps=3,
    dtype="float32",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where files are written: the disk measured")
    parser.add_argument("--output", type=Path, help="JSON with the same numbers")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    make_deterministic()
    has_gpu = torch.cuda.is_available()
    if not has_gpu and not arguments.tiny:
        sys.exit("no GPU: torch sees none; `--tiny` shows on a CPU that this script runs, and measures nothing of use")
    device, size = choose_device(int(has_gpu)), TINY if arguments.tiny else FULL
    results: dict[str, Any] = {"machine": machine(device), "tiny": arguments.tiny}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        results["same"] = same(device, folder)
        for kind, fields, hooks in (
            ("llama", size.llama, size.llama_hooks),
            ("nemotron_h", size.nemotron, size.nemotron_hooks),
        ):
            loaded = random_model(kind, fields, size.dtype, device)
            results[f"harvest {kind}"] = harvesting(loaded, size, hooks, arguments.rounds, folder / kind)
            if kind == "llama":
                results["evaluate"] = evaluating(loaded, size, hooks[-2], arguments.rounds, folder / kind)
            del loaded
            if has_gpu:
                torch.cuda.empty_cache()
        large, small = size.sae[3], size.small_batch
        for architecture, batch in (("topk", large), ("batch_topk", large), ("batch_topk", small)):
            key = f"train {architecture}, {batch} rows"
            results[key] = training(size, architecture, batch, arguments.rounds, device)
        results["read"] = reading(folder / "llama", size.llama_hooks[0], size.sae[3], arguments.rounds, device)
    for section, values in results.items():
        print(section)
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            print(f"  {key:<44}{value:>12.4g}" if isinstance(value, float) else f"  {key:<44}{value}")
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results))
    if wrong := {name: value for name, value in results["same"].items() if not value <= limit_of(name)}:
        sys.exit(f"CPU and {device.type} differ beyond the limits: {wrong}")


def machine(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(0) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "transformers": transformers.__version__,
        "date": datetime.date.today().isoformat(),
    }


def random_model(kind: str, fields: dict[str, Any], dtype: str, device: torch.device) -> LoadedModel:
    """A causal model with random weights, made on the device: nothing is read or written."""
    config = transformers.CONFIG_MAPPING[kind](**fields)
    torch.manual_seed(0)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(config)
    finally:
        torch.set_default_dtype(kept)
    identity = {
        "name": kind,
        "revision": "random weights, seed 0",
        "weights_sha256": kind,
        "tokenizer_sha256": "none",
        "objective": "causal_lm",
        "dtype": dtype,
        "vocabulary_size": config.vocab_size,
        "d_model": config.hidden_size,
        "n_layers": config.num_hidden_layers,
    }
    return LoadedModel(model.eval().requires_grad_(False), None, find_adapter(kind), identity, device)


def settings_of(size: Size) -> Harvest:
    tokens = size.context * size.contexts
    return Harvest(
        context_length=size.context,
        batch_contexts=size.batch_contexts,
        train_tokens=tokens,
        eval_tokens=tokens,
        shard_tokens=tokens,
    )


# Largest differences that another order of sums explains, by what a name in `same` begins with.
LIMITS = {"float32 activations": 1e-4, "bfloat16 activations": 0.05, "20 updates": 0.02, "spliced": 1e-3}
# Latents and k: dense products on a GPU, and few enough kept latents for its sparse kernels.
SHAPES = {"dense": (64, 4), "sparse": (2048, 4)}


def limit_of(name: str) -> float:
    return next(limit for start, limit in LIMITS.items() if name.startswith(start))


def same(device: torch.device, folder: Path) -> dict[str, float]:
    """Differences between the CPU and the device at small shapes, relative to the largest value.

    Of updates: the norm of the difference of the weights over that of what training changed. Adam makes whole steps of
    gradients that are nothing but rounding, so single weights say little.
    """
    found = {}
    for kind, fields, hook in (("llama", TINY.llama, "resid_post.1"), ("nemotron_h", TINY.nemotron, "resid_post.2")):
        for dtype in ("float32", "bfloat16"):
            on_cpu, moved = on_both(kind, fields, dtype, device)
            tokens = torch.from_numpy(random_split(8, settings_of(TINY), 256).tokens.astype(np.int64))
            rows = [capture(each, tokens.to(each.device), [hook])[hook].float().cpu() for each in (on_cpu, moved)]
            found[f"{dtype} activations, {kind}"] = difference(*rows)
    for way, (n_latents, k) in SHAPES.items():
        for architecture in ARCHITECTURES:
            recipe = small_recipe(architecture, n_latents, k)
            if way == "dense" or recipe.k is not None:
                found[f"20 updates, {architecture}, {way}"] = difference_of_updates(recipe, way, device)
    on_cpu, moved = on_both("llama", TINY.llama, "float32", device)
    losses = [spliced(each, TINY, TINY.llama_hooks[0], folder / f"same-{n}") for n, each in enumerate((on_cpu, moved))]
    return found | {"spliced losses": difference(*losses)}


def on_both(kind: str, fields: dict[str, Any], dtype: str, device: torch.device) -> tuple[LoadedModel, LoadedModel]:
    """One random model on the CPU and on the device."""
    on_cpu, moved = (random_model(kind, fields, dtype, CPU) for _ in range(2))
    moved.model.load_state_dict(on_cpu.model.state_dict())
    return on_cpu, dataclasses.replace(moved, model=moved.model.to(device), device=device)


def small_recipe(architecture: str, n_latents: int, k: int) -> Recipe:
    own = {
        "topk": {"k": k},
        "batch_topk": {"k": k, "threshold_start_step": 10},
        "matryoshka_batch_topk": {"k": k, "threshold_start_step": 10, "group_fractions": (0.25, 0.75)},
        "relu": {"l1_coefficient": 1e-3},
        "gated": {"l1_coefficient": 1e-3},
        "jumprelu": {"target_l0": float(k)},
    }[architecture]
    fields = {"architecture": architecture, "n_latents": n_latents, "steps": 100, "batch_size": 64}
    return Recipe(**fields, **own, lr=1e-3, warmup_steps=2, matmul_dtype="float32")


def difference_of_updates(recipe: Recipe, way: str, device: torch.device) -> float:
    d_model, generator = TINY.sae[0], torch.Generator().manual_seed(0)
    batches = [torch.randn(recipe.batch_size, d_model, generator=generator) for _ in range(20)]
    start = weights_of(new_state(recipe, d_model, 0, CPU))
    trained = []
    for place in (CPU, device):
        state, numerics = new_state(recipe, d_model, 0, place), choose_numerics(recipe, place)
        if place.type == "cuda" and numerics.sparse != (way == "sparse"):
            sys.exit(
                f"{recipe.architecture} with {recipe.n_latents} latents does not take the {way} way: is Triton here?"
            )
        for rows in batches:
            update(state, rows.to(place), recipe, numerics, "benchmark")
        trained.append(weights_of(state))
    return float((trained[1] - trained[0]).norm() / (trained[0] - start).norm())


def weights_of(state: TrainingState) -> torch.Tensor:
    return torch.cat([value.detach().cpu().flatten() for value in state.parameters.values()])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def spliced(loaded: LoadedModel, size: Size, hook: str, folder: Path) -> torch.Tensor:
    split, harvest = (
        random_split(size.contexts, settings_of(size), loaded.identity["vocabulary_size"]),
        settings_of(size),
    )
    folder.mkdir(exist_ok=True)
    harvest_shard(loaded, dataclasses.replace(split, split="eval"), 0, harvest, [hook], folder / "eval-000.h5")
    shards = open_shards([folder / "eval-000.h5"])
    compute_references(loaded, shards, [hook], size.context * size.contexts, size.batch_contexts, folder / "r.h5")
    references = References.open(folder / "r.h5", hook, shards[0].identity)
    sae = random_sae(loaded.identity["d_model"], size).to(loaded.device)
    table = splice_losses(loaded, sae, hook, shards, references, size.batch_contexts)
    return torch.from_numpy(np.asarray(table.sae, dtype=np.float64))


def random_sae(d_model: int, size: Size) -> Sae:
    generator = torch.Generator().manual_seed(0)
    n_latents = max(size.sae[1] // 8, 64)
    decoder = functional.normalize(torch.randn(n_latents, d_model, generator=generator), dim=1)
    biases = {"b_enc": torch.zeros(n_latents), "b_dec": torch.zeros(d_model)}
    return Sae(
        "topk", k=size.sae[2], threshold=None, latent_parameters={}, W_enc=decoder.T.clone(), W_dec=decoder, **biases
    )


def harvesting(loaded: LoadedModel, size: Size, hooks: tuple[str, ...], rounds: int, folder: Path) -> dict[str, float]:
    folder.mkdir()
    harvest, n_tokens = settings_of(size), size.context * size.contexts
    split = random_split(size.contexts, harvest, loaded.identity["vocabulary_size"])
    target = folder / "train-000.h5"
    ways = {
        "bare": lambda: bare(loaded, split, harvest, list(hooks)),
        "harvest": lambda: harvest_shard(loaded, split, 0, harvest, list(hooks), target),
    }
    taken = alternate(ways, rounds, loaded.device)
    return rates(taken, n_tokens, "tokens") | {"harvest over bare": ratio(taken, "bare", "harvest")}


def evaluating(loaded: LoadedModel, size: Size, hook: str, rounds: int, folder: Path) -> dict[str, float]:
    harvest, n_tokens = settings_of(size), size.context * size.contexts
    split = dataclasses.replace(random_split(size.contexts, harvest, loaded.identity["vocabulary_size"]), split="eval")
    harvest_shard(loaded, split, 0, harvest, [hook], folder / "eval-000.h5")
    shards = open_shards([folder / "eval-000.h5"])
    compute_references(loaded, shards, [hook], n_tokens, size.batch_contexts, folder / "references.h5")
    references = References.open(folder / "references.h5", hook, shards[0].identity)
    sae = random_sae(loaded.identity["d_model"], size).to(loaded.device)
    batches = list(context_batches(shards, references.n_contexts, size.batch_contexts))
    tasks = [Task.of(loaded, batch) for batch in batches]
    rows = [batch.rows(hook).to(loaded.device) for batch in batches]

    def suffix() -> None:
        for task, activation in zip(tasks, rows, strict=True):
            logits(loaded, run_from(loaded, task.inputs, hook, activation))

    def whole() -> None:
        for task in tasks:
            for _ in range(3):
                per_token_loss(loaded, task.inputs, final_hidden(loaded, task.inputs))

    ways = {
        "splice": lambda: splice_losses(loaded, sae, hook, shards, references, size.batch_contexts),
        "layers after the hook": suffix,
        "three whole passes": whole,
    }
    taken = alternate(ways, rounds, loaded.device)
    return rates(taken, n_tokens, "tokens") | {
        "splice over the layers after the hook": ratio(taken, "splice", "layers after the hook"),
        "three whole passes over splice": ratio(taken, "three whole passes", "splice"),
    }


def training(size: Size, architecture: str, batch: int, rounds: int, device: torch.device) -> dict[str, float]:
    d_model, n_latents, k, _ = size.sae
    recipe = Recipe(architecture=architecture, n_latents=n_latents, k=k, steps=10**6, batch_size=batch, lr=1e-4)
    numerics = choose_numerics(recipe, device)
    rows = torch.randn(batch, d_model, generator=torch.Generator().manual_seed(0)).to(device)
    rows /= rows.square().sum(dim=1).mean().sqrt()
    state = new_state(recipe, d_model, 0, device)
    steps = {"ours": lambda: update(state, rows, recipe, numerics, "benchmark")}
    for way in ("dense codes", "gathered rows") if architecture == "topk" else ("dense codes",):
        step = plain_step(architecture, way, size, numerics.dtype, device)
        steps[way] = lambda step=step: step(rows)

    def repeated(step: Callable) -> Callable:
        return lambda: [step() for _ in range(size.steps)]

    taken = alternate({name: repeated(step) for name, step in steps.items()}, rounds, device)
    found = rates(taken, size.steps * batch, "rows")
    if device.type == "cuda":
        for name, step in steps.items():
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            step()
            found[f"{name} GB beside all weights"] = (torch.cuda.max_memory_allocated() - before) / 1e9
    return found | {f"{name} over ours": ratio(taken, name, "ours") for name in steps if name != "ours"}


def plain_step(architecture: str, way: str, size: Size, dtype: torch.dtype, device: torch.device) -> Callable:
    """One step as it is commonly written, with dense gradients, clipping, Adam and unit decoder rows."""
    d_model, n_latents, k, _ = size.sae
    generator = torch.Generator().manual_seed(0)
    decoder = functional.normalize(torch.randn(n_latents, d_model, generator=generator), dim=1)
    w_enc, w_dec = (torch.nn.Parameter(w.to(device)) for w in (decoder.T.contiguous(), decoder.clone()))
    b_enc, b_dec = (torch.nn.Parameter(torch.zeros(n, device=device)) for n in (n_latents, d_model))
    optimiser = torch.optim.Adam([w_enc, w_dec, b_enc, b_dec], lr=1e-4, fused=device.type == "cuda")

    def rebuild(pre: torch.Tensor) -> torch.Tensor:
        if architecture == "batch_topk":
            values, places = pre.flatten().topk(k * len(pre), sorted=False)
            return torch.zeros_like(pre).flatten().scatter(0, places, values).view_as(pre) @ w_dec
        values, places = pre.topk(k, dim=1, sorted=False)
        if way == "gathered rows":
            return functional.embedding_bag(places, w_dec, per_sample_weights=values.float(), mode="sum")
        return torch.zeros_like(pre).scatter(1, places, values) @ w_dec

    def step(rows: torch.Tensor) -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            rebuilt = rebuild(((rows - b_dec) @ w_enc + b_enc).relu()) + b_dec
        loss = (rebuilt.float() - rows).square().sum(dim=1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([w_enc, w_dec, b_enc, b_dec], 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            w_dec.div_(w_dec.norm(dim=1, keepdim=True))

    return step


def reading(folder: Path, hook: str, batch: int, rounds: int, device: torch.device) -> dict[str, float]:
    """One epoch of a training's batches on the device, beside the file's rows in order."""
    path = folder / "train-000.h5"
    shards = open_shards([path])
    n_rows = shards[0].n_rows
    batch = min(batch, n_rows)
    n_bytes = n_rows // batch * batch * shards[0].read_rows(hook, 0, 1).nbytes

    def ours() -> None:
        steps = n_rows // batch
        with prefetch(BatchStream({"random": open_shards([path])}, hook, MIX, 0, batch, steps), 0, steps) as batches:
            for _ in range(steps):
                batches.next_batch().rows.to(device)

    def sequential() -> None:
        for first in range(0, n_rows // batch * batch, batch):
            shards[0].read_rows(hook, first, first + batch).to(device)

    taken = alternate({"batches": ours, "sequential": sequential}, rounds, device)
    found = {f"{name} GB/s": n_bytes / statistics.median(values) / 1e9 for name, values in taken.items()}
    return found | {"batches over sequential": ratio(taken, "sequential", "batches")}


def alternate(ways: dict[str, Callable], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each way in turn, `rounds` times after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                taken[name].append(time.perf_counter() - started)
    return taken


def rates(taken: dict[str, list[float]], amount: int, what: str) -> dict[str, float]:
    return {f"{name} {what}/s": amount / statistics.median(values) for name, values in taken.items()}


def ratio(taken: dict[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))


if __name__ == "__main__":
    main()
