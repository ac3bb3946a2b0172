"""Peak memory of jobs with a large vocabulary or a large dictionary, beside what they are granted.

    python benchmarks/memory.py --vocabulary 262144 --d-model 640 --dtype bfloat16     # the shape of Gemma 3 270M
    python benchmarks/memory.py --vocabulary 262144 --d-model 640 --dtype float32 --stages audit references
    python benchmarks/memory.py --vocabulary 4096 --latents 131072 --stages fetch_published publish evaluate

Makes a model with random weights and random text, then runs each stage as its job does, in a process of its own, and
reads the process' peak (VmHWM of Linux: its libraries and the pages of mapped files too). Nothing is downloaded. Prints
a table and, as the last line, JSON. `--allocator default` leaves the C library as it is, for comparison.

Stages: `prepare_model` and `audit` as the rules of these names, `harvest` of one shard, `references`, `evaluate` of an
SAE with random weights, and `latents`, the promoted tokens and logits of all its latents (labels and pages).
`fetch_published` and `publish` bring and audit that SAE from files of SAELens' format. An evaluation compares all pairs
of latents in each of `--null-dictionaries` random dictionaries, one after the other in the same memory: with fewer it
takes less time.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.config.data import Harvest, Model
from atlas.config.recipe import Recipe
from atlas.corpora.tokens import TokenSplit
from atlas.studies import cost

STAGES = ("prepare_model", "audit", "harvest", "references", "evaluate", "latents", "fetch_published", "publish")
HOOK, SPECIALS = "resid_post.0", {"<pad>": 0, "<s>": 1, "</s>": 2}


def main() -> None:
    arguments = parse()
    if arguments.stage:
        print(json.dumps(run_stage(arguments)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        arguments.folder = Path(folder)
        child(arguments, "source")
        if "fetch_published" in needed(arguments.stages):
            child(arguments, "release")
        # In the order of `STAGES`, in which each finds what it needs.
        found = {stage: child(arguments, stage) for stage in STAGES if stage in needed(arguments.stages)}
    size = cost.ModelSize(
        arguments.n_layers, arguments.d_model, 2 if arguments.dtype == "bfloat16" else 4, arguments.vocabulary
    )
    print(f"{'stage':<14} {'took MB':>8} {'granted MB':>10} {'seconds':>8}")
    for stage in arguments.stages:
        found[stage]["granted_mb"] = granted(stage, size, arguments)
        took = found[stage]
        print(f"{stage:<14} {took['peak_mb']:>8.0f} {took['granted_mb']:>10} {took['seconds']:>8.1f}")
    shape = {key: getattr(arguments, key) for key in ("vocabulary", "d_model", "n_layers", "dtype", "untied")}
    print(json.dumps(shape | {"allocator": arguments.allocator} | {stage: found[stage] for stage in arguments.stages}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--d-model", type=int, default=640)
    parser.add_argument("--n-layers", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--untied", action="store_true", help="a head of its own, as large as the embedding")
    parser.add_argument("--context-length", type=int, default=1024)
    parser.add_argument("--batch-contexts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a split, all of them compared")
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("--null-dictionaries", type=int, default=8, help="2 or more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--allocator", choices=("job", "default"), default="job")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--scratch", type=Path, help="where the model is written; default: the system's")
    parser.add_argument("--stage", choices=("source", "release", *STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def needed(stages: list[str]) -> set[str]:
    """The stages that were asked for, and those whose files they read."""
    earlier = {"audit": 1, "harvest": 1, "references": 3, "evaluate": 4, "latents": 1, "publish": 3}
    before = {one for stage in stages for one in STAGES[: earlier.get(stage, 0)] if one != "audit"}
    return {*stages, *before, *(["fetch_published"] if "publish" in stages else [])}


def child(arguments: argparse.Namespace, stage: str) -> dict[str, float]:
    """Run one stage in a new process; what it prints last."""
    call = [sys.executable, __file__, "--stage", stage, "--folder", str(arguments.folder)]
    sizes = ("vocabulary", "d_model", "n_layers", "context_length", "batch_contexts", "tokens", "latents")
    for key in (*sizes, "dtype", "null_dictionaries", "threads", "allocator"):
        call += [f"--{key.replace('_', '-')}", str(getattr(arguments, key))]
    call += ["--untied"] if arguments.untied else []
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def granted(stage: str, size: cost.ModelSize, arguments: argparse.Namespace) -> int:
    """Memory that the rule asks for at its first attempt."""
    memory = cost.model_memory_mb(size, 1, cost.SHARD_BYTES * arguments.tokens if stage == "harvest" else 0)
    values = cost.dictionary_values(arguments.latents, arguments.d_model)
    if stage == "evaluate":
        return cost.evaluation_memory_mb(size, values, arguments.tokens, 1)
    if stage == "fetch_published":
        return cost.fetching_memory_mb(values, 1)
    if stage == "publish":
        return cost.publishing_memory_mb(values, arguments.d_model, 1, 1)
    return memory + int(8 * values / 1e6) + 1000 if stage == "latents" else memory


def run_stage(arguments: argparse.Namespace) -> dict[str, float]:
    """One stage as its job runs it; its time without imports, and the peak of this process."""
    from atlas import devices

    devices.use_threads(arguments.threads)
    devices.make_deterministic()
    if arguments.allocator == "job":
        devices.keep_freed_memory()
    started = time.perf_counter()
    globals()[f"stage_{arguments.stage}"](arguments)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {"peak_mb": peak * 1024 / 1e6, "seconds": time.perf_counter() - started}


def stage_source(arguments: argparse.Namespace) -> None:
    """The folder that a hub would give."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(SPECIALS, unk_token="<pad>"))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(arguments.folder / "source")
    config = LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.d_model,
        intermediate_size=4 * arguments.d_model,
        num_hidden_layers=arguments.n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=arguments.context_length,
        initializer_range=0.1,  # each block changes the output enough for the audit
        tie_word_embeddings=not arguments.untied,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(getattr(torch, arguments.dtype)).save_pretrained(arguments.folder / "source")


def stage_prepare_model(arguments: argparse.Namespace) -> None:
    from atlas.models.prepare import prepare_model

    row = Model.model_validate(
        {
            "source": {"kind": "path", "path": str(arguments.folder / "source"), "licence": "CC0-1.0"},
            "dtype": arguments.dtype,
            "random_weights": 0,  # they predict nothing, which an audit refuses of learnt ones
            "n_layers": arguments.n_layers,
            "d_model": arguments.d_model,
            "hooks": [HOOK],
            "harvest": harvest(arguments).model_dump(),
        }
    )
    prepare_model("large_vocabulary", row, None, arguments.folder / "model", arguments.folder / "lock.yaml")


def stage_audit(arguments: argparse.Namespace) -> None:
    from atlas.models.gate import audit_on_text

    text = split(arguments, "train")
    audit_on_text(
        loaded_model(arguments), text.tokens, text.counted, [HOOK], "bfloat16", arguments.folder / "audit.json"
    )


def stage_harvest(arguments: argparse.Namespace) -> None:
    """Harvest both splits one after the other: two jobs of the workflow."""
    from atlas.activations.harvest import harvest_shard

    loaded = loaded_model(arguments)
    for name in ("train", "eval"):
        harvest_shard(loaded, split(arguments, name), 0, harvest(arguments), [HOOK], shard(arguments, name))


def stage_references(arguments: argparse.Namespace) -> None:
    from atlas.activations.store import open_shards
    from atlas.evaluation.references import compute_references

    shards = open_shards([shard(arguments, "eval")])
    target = arguments.folder / "eval.h5"
    compute_references(loaded_model(arguments), shards, [HOOK], arguments.tokens, arguments.batch_contexts, target)


def stage_evaluate(arguments: argparse.Namespace) -> None:
    from atlas.config.study import Evaluation
    from atlas.evaluation.run import EvaluationInputs, run_evaluation
    from atlas.training.sae import save_sae

    sae, folder = dictionary(arguments), arguments.folder / "sae"
    save_sae(sae, folder, {"model_name": "large_vocabulary", "hook_name": HOOK})
    run_evaluation(
        EvaluationInputs(
            arguments.folder / "model",
            folder,
            [shard(arguments, "train")],
            [shard(arguments, "eval")],
            [arguments.folder / "eval.h5"],
        ),
        hook=HOOK,
        roles={"eval": "in_sample"},
        recipe=Recipe(architecture="topk", n_latents=arguments.latents, k=32, steps=2000),
        # A copy is not validated: fewer nulls than a study may have.
        settings=Evaluation(loss_tokens=arguments.tokens).model_copy(
            update={"null_dictionaries": arguments.null_dictionaries}
        ),
        seed=0,
        device=torch.device("cpu"),
        target=arguments.folder / "metrics.json",
        batch_contexts=arguments.batch_contexts,
    )


def stage_release(arguments: argparse.Namespace) -> None:
    """The files that another project would have written."""
    from safetensors.torch import save_file

    sae, folder = dictionary(arguments), arguments.folder / "release"
    folder.mkdir()
    tensors = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    save_file(tensors, folder / "sae_weights.safetensors")
    config = {"architecture": "topk", "k": sae.k, "d_in": sae.d_model, "d_sae": sae.n_latents, "dtype": "float32"}
    metadata = {"sae_lens_version": "6.0.0", "hook_name": "blocks.0.hook_resid_post"}
    (folder / "cfg.json").write_text(json.dumps(config | {"apply_b_dec_to_input": True, "metadata": metadata}))


def published_sae(arguments: argparse.Namespace):
    from atlas.config.saes import PublishedSae

    return PublishedSae.model_validate(
        {
            "source": {"kind": "path", "path": str(arguments.folder / "release"), "licence": "CC0-1.0"},
            "format": "saelens",
            "model": "large_vocabulary",
            "hook": HOOK,
            "n_latents": arguments.latents,
            "accept_reading": True,  # random weights explain nothing, however they are read
        }
    )


def stage_fetch_published(arguments: argparse.Namespace) -> None:
    from atlas.published.fetch import fetch_published

    target, lock = arguments.folder / "fetched", arguments.folder / "lock.yaml"
    fetch_published("large", published_sae(arguments), arguments.d_model, [], target, lock)


def stage_publish(arguments: argparse.Namespace) -> None:
    from atlas.published.publish import PublishingInputs, publish_sae

    inputs = PublishingInputs(
        arguments.folder / "model", arguments.folder / "fetched", [shard(arguments, "train")], corpora=[]
    )
    publish_sae(inputs, "large", published_sae(arguments), {"eval": "in_sample"}, arguments.folder / "published")


def stage_latents(arguments: argparse.Namespace) -> None:
    from atlas.autointerp.explainers import promoted_tokens
    from atlas.site.logits import decoder_logits

    loaded, sae = loaded_model(arguments), dictionary(arguments)
    texts = [f" word{token}" for token in range(arguments.vocabulary)]
    promoted_tokens(sae.W_dec, loaded, texts)
    decoder_logits(sae.W_dec, loaded)


def harvest(arguments: argparse.Namespace) -> Harvest:
    return Harvest(
        context_length=arguments.context_length,
        train_tokens=arguments.tokens,
        eval_tokens=arguments.tokens,
        batch_contexts=arguments.batch_contexts,
        shard_tokens=arguments.tokens,
    )


def split(arguments: argparse.Namespace, name: str) -> TokenSplit:
    """Random tokens, a document a context; other ones for each name."""
    shape = (arguments.tokens // arguments.context_length, arguments.context_length)
    seed = ("train", "eval").index(name)
    tokens = np.random.default_rng(seed).integers(len(SPECIALS), arguments.vocabulary, shape, dtype=np.uint32)
    document = np.repeat(np.arange(shape[0], dtype=np.int32)[:, None], shape[1], axis=1)
    fingerprint = hashlib.sha256(tokens.tobytes()).hexdigest()
    return TokenSplit(tokens, document, np.ones(shape, bool), fingerprint, name, name, arguments.context_length)


def shard(arguments: argparse.Namespace, name: str) -> Path:
    return arguments.folder / "activations" / name / f"{name}-000.h5"


def loaded_model(arguments: argparse.Namespace):
    from atlas.models.load import load_model

    return load_model(arguments.folder / "model", torch.device("cpu"))


def dictionary(arguments: argparse.Namespace):
    """An SAE that was never trained: its memory is that of any other."""
    from atlas.training.sae import Sae

    draw = torch.randn(arguments.latents, arguments.d_model, generator=torch.Generator().manual_seed(0))
    decoder = torch.nn.functional.normalize(draw, dim=1)
    zeros = torch.zeros(arguments.latents), torch.zeros(arguments.d_model)
    return Sae("topk", decoder.T.contiguous(), zeros[0], decoder, zeros[1], k=32)


if __name__ == "__main__":
    main()
