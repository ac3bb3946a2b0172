"""Run SAE Bench's own core evaluation, or its evaluation with sae-probes, on an SAE and a model of this machine.

A plain script for the environment `sae_bench`: the standard library, torch, safetensors, and what SAE Bench imports.

    ENVIRONMENT/bin/python -I workflow/peers/run_sae_bench.py JOB.json FOLDER

JOB (atlas.sae_bench.launch writes it) has `evaluation`, core or probes; `model`, a folder that transformers loads;
`sae`, a folder that SAELens loads; `threads`, `device`. For core `tokens`, a file with int64 `tokens` (contexts,
position), and `batch_contexts`; for probes `datasets` and `ks`. FOLDER receives `theirs.json`, which SAE Bench writes,
and `run.json`: those numbers with null for what is not a number (SAE Bench writes -1), what ran, what was checked.

SAE Bench loads models by names that TransformerLens knows. A folder is none, so its `multiple_evals` cannot be called:
what that does around `run_evals` is done here with the same functions and settings, on a HookedTransformer converted by
TransformerLens from the folder's weights, without its processing, in float32, as SAE Bench does.
"""

import importlib.metadata
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = ("sae-bench", "sae-probes", "sae-lens", "transformer-lens", "torch", "scikit-learn", "numpy")
# Largest difference of logits from those of transformers, as a share of the largest logit: float32 rounding is 1e-5.
LOGIT_TOLERANCE = 1e-3
RELEASE = "atlas"


def load_model(folder, device):
    """The model as a HookedTransformer, its tokenizer, and how far its logits are from those of transformers."""
    import torch
    from transformer_lens import HookedTransformer
    from transformer_lens.loading_from_pretrained import get_pretrained_model_config, get_pretrained_state_dict
    from transformers import AutoModelForCausalLM

    # TransformerLens guesses the architecture from words in a name, so the folder must have one that says nothing.
    Path("model").symlink_to(Path(folder).absolute(), target_is_directory=True)
    tokenizer = load_tokenizer("model")
    reference = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32, local_files_only=True)
    config = get_pretrained_model_config("model", device=device, dtype=torch.float32)
    weights = get_pretrained_state_dict("model", config, reference, dtype=torch.float32)
    model = HookedTransformer(config, tokenizer, move_to_device=False)
    unprocessed = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
    model.load_and_process_state_dict(weights, **dict.fromkeys(unprocessed, False))
    model.to(device)
    ids = torch.arange(32).remainder(config.d_vocab)[None]
    expected = reference(ids).logits
    difference = ((model(ids.to(device)).cpu() - expected).abs().max() / expected.abs().max()).item()
    if not difference <= LOGIT_TOLERANCE:
        sys.exit(
            f"{folder}: as a HookedTransformer its logits differ from those of transformers by {difference:.3g} of the "
            f"largest, more than {LOGIT_TOLERANCE:g}: SAE Bench would judge another model"
        )
    return model, tokenizer, difference


def load_tokenizer(folder):
    """The tokenizer as it was saved: for some architectures the choice of AutoTokenizer ignores the saved class."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    stated = json.loads((Path(folder) / "tokenizer_config.json").read_text()).get("tokenizer_class")
    own = stated in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (PreTrainedTokenizerFast if own else AutoTokenizer).from_pretrained(folder, local_files_only=True)


def load_sae(job, model):
    """The SAE as SAE Bench formats it; ends with the reason if it is not one of this model."""
    from sae_bench.sae_bench_utils import general_utils
    from sae_lens import SAE

    sae = SAE.load_from_disk(job["sae"], device=job["device"])
    hook = sae.cfg.metadata.hook_name
    if hook not in model.hook_dict:
        sys.exit(f"{job['sae']}: its hook {hook!r} is none of the model's: {', '.join(list(model.hook_dict)[:8])}, ...")
    if sae.cfg.d_in != model.cfg.d_model:
        sys.exit(f"{job['sae']}: reads rows of width {sae.cfg.d_in}, but the model has d_model {model.cfg.d_model}")
    sae.cfg.metadata.prepend_bos = False  # contexts are given whole
    _, sae, _ = general_utils.load_and_format_sae(RELEASE, sae, job["device"])
    return sae


def core(job, target):
    """Its core evaluation on the given contexts, each once, in their order."""
    import torch
    from datasets import Dataset
    from sae_bench.evals.core import main
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.sae_bench_utils import get_eval_uuid, get_sae_bench_version, get_sae_lens_version
    from sae_lens import ActivationsStore
    from safetensors.torch import load_file

    model, tokenizer, difference = load_model(job["model"], job["device"])
    sae = load_sae(job, model)
    tokens = load_file(job["tokens"])["tokens"]
    n_batches = len(tokens) // job["batch_contexts"]
    dataset = Dataset.from_dict({"tokens": tokens.tolist()})
    store = ActivationsStore.from_sae(model, sae, dataset, context_size=tokens.shape[1], streaming=False)
    drawn = torch.cat([store.get_batch_tokens(job["batch_contexts"]).cpu() for _ in range(n_batches)])
    if not torch.equal(drawn, tokens):
        sys.exit(f"{job['tokens']}: SAELens' ActivationsStore gives other contexts than these, or in another order")
    store.reset_input_dataset()
    config = CoreEvalConfig(
        model_name=sae.cfg.model_name,
        llm_dtype="float32",
        batch_size_prompts=job["batch_contexts"],
        n_eval_reconstruction_batches=n_batches,
        n_eval_sparsity_variance_batches=n_batches,
        dataset="local contexts",
        context_size=tokens.shape[1],
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
    )
    ignored = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    # A token that the tokenizer lacks is None, which it compares with tensors to no effect but an error.
    ignored -= {None}
    metrics, features = main.run_evals(sae, store, model, config, ignore_tokens=ignored)
    metrics["misc_metrics"] = main.calculate_misc_metrics(features)
    result = {"metrics": metrics, "feature_metrics": features, "eval_cfg": config}
    result |= {"sae_id": "custom_sae", "sae_set": RELEASE}
    cleaned = main.replace_nans_with_negative_one(result)
    main.save_single_eval_result(
        cleaned, get_eval_uuid(), get_sae_lens_version(), get_sae_bench_version(), str(target), sae
    )
    counted = ~torch.isin(tokens, torch.tensor(sorted(ignored)))
    return {
        "metrics": {name: value for group in metrics.values() for name, value in group.items()},
        "largest_logit_difference": difference,
        "n_contexts": len(tokens),
        "n_tokens": tokens.numel(),
        "n_counted": int(counted.sum()),
        "batch_contexts": job["batch_contexts"],
        **facts_of(sae),
    }


def probes(job, target):
    """Its evaluation with sae-probes, on activations that sae-probes takes from our model."""
    from sae_bench.evals.sparse_probing_sae_probes.eval_config import SparseProbingSaeProbesEvalConfig
    from sae_bench.evals.sparse_probing_sae_probes.main import run_eval
    from sae_probes import DATASETS
    from sae_probes.generate_model_activations import ensure_dataset_activations

    if unknown := [name for name in job["datasets"] if name not in DATASETS]:
        sys.exit(f"data sets {', '.join(unknown)} are none of the {len(DATASETS)} of sae-probes, e.g. {DATASETS[0]}")
    model, _, difference = load_model(job["model"], job["device"])
    sae = load_sae(job, model)
    name = sae.cfg.model_name
    # Made here, because sae-probes too would load the model by its name.
    ensure_dataset_activations(name, job["datasets"], [sae.cfg.hook_name], "rows", device=job["device"], model=model)
    config = SparseProbingSaeProbesEvalConfig(
        model_name=name, dataset_names=job["datasets"], ks=job["ks"], results_path="probes", model_cache_path="rows"
    )
    run_eval(config, [(RELEASE, sae)], job["device"], "out")
    (found,) = Path("out").glob("*.json")
    target.write_bytes(found.read_bytes())
    details = {entry["dataset_name"]: entry for entry in json.loads(found.read_text())["eval_result_details"]}
    if missing := [name for name in job["datasets"] if name not in details]:
        sys.exit(f"sae-probes gave no result for data sets {', '.join(missing)}")
    aucs = {
        name: {str(k): details[name][f"sae_top_{k}_test_auc"] for k in job["ks"]}
        | {"dense": details[name]["llm_test_auc"]}
        for name in job["datasets"]
    }
    seen = {name: seen_in_training(name, config.random_seed) for name in job["datasets"]}
    return {"test_auc": aucs, "seen_in_training": seen, "largest_logit_difference": difference, **facts_of(sae)}


def seen_in_training(name, seed):
    """Share of the test prompts that sae-probes also trains on: it keeps prompts that a data set has twice."""
    from sae_probes import utils_data

    prompts = utils_data.read_numbered_dataset_df(name)["prompt"].to_numpy()
    # As in its generate_sae_activations_normal and get_xy_traintest.
    labels = utils_data.get_yvals(name)[:5000]
    n_train = min(len(prompts) - 100, 1024)
    train, test = utils_data.get_train_test_indices(labels, n_train, len(labels) - n_train - 1, seed=seed)
    known = set(prompts[train])
    return sum(prompt in known for prompt in prompts[test]) / len(test)


def facts_of(sae):
    """Return what decides whether SAE Bench's loaders of custom SAEs would take this one; its evaluations only warn."""
    from sae_bench.sae_bench_utils.general_utils import check_decoder_norms

    return {
        "d_in": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        "sae_class": type(sae).__qualname__,
        "decoder_rows_have_unit_norm": bool(check_decoder_norms(sae.W_dec.data)),
    }


def without_nan(value):
    """The same nested value with None for what is not finite."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(job_file, folder):
    """Run the job in a folder of its own, with caches that no other program sees, and without the hub."""
    job, folder = json.loads(Path(job_file).read_text(encoding="utf-8")), Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"HF_HOME": scratch, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "disabled"}
        os.chdir(scratch)
        import torch

        torch.set_num_threads(job["threads"])
        started = time.monotonic()
        with torch.no_grad():
            result = {"core": core, "probes": probes}[job["evaluation"]](job, folder / "theirs.json")
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        result |= {"evaluation": job["evaluation"], "versions": versions, "seconds": time.monotonic() - started}
        (folder / "run.json").write_text(json.dumps(without_nan(result), indent=1), encoding="utf-8")
        os.chdir("/")


if __name__ == "__main__":
    main(*(str(Path(argument).absolute()) for argument in sys.argv[1:]))
