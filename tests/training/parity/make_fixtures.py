"""Run the reference trainers and write what came out: fixtures/<case>.npz.

Documentation of how the fixtures were made, and the way to make them again; no test runs it. It needs an environment
of its own, with the references (torch 2.13.0 on the CPU made those that are committed):

    git clone https://github.com/saprmarks/dictionary_learning && git -C dictionary_learning checkout 60ec6bf
    pip install torch==2.13.0 einops eai-sparsify==1.3.3
    python tests/training/parity/make_fixtures.py dictionary_learning

The trainers are the references' own, unchanged. What they do not let one choose is set on the trainer after it is made:
the limit of silent tokens above which a latent is dead, and the bias of the latents planted as dead. Ours starts from
the same seed for `topk`, `batch_topk` and `sparsify_topk`, else from the weights that are stored as `start`.

An .npz holds, under our names and shapes, `start.<parameter>`, `<updates>.<parameter>` for each of cases.COMPARED, and
per update `threshold` and `tokens_since_fired` where the reference has them.
"""

import sys
import types
from pathlib import Path

import cases
import numpy as np
import torch

FIXTURES = Path(__file__).parent / "fixtures"
SEED = 3
# Our name of a setting: that of dictionary_learning's trainers.
_SETTINGS = {
    "lr": "lr",
    "warmup_steps": "warmup_steps",
    "decay_start": "decay_start",
    "k": "k",
    "aux_coefficient": "auxk_alpha",
    "threshold_start_step": "threshold_start_step",
    "threshold_beta": "threshold_beta",
    "group_fractions": "group_fractions",
    "l1_coefficient": "l1_penalty",
    "l0_coefficient": "sparsity_penalty",
    "target_l0": "target_l0",
    "bandwidth": "bandwidth",
    "sparsity_warmup_steps": "sparsity_warmup_steps",
}
# Our name of a parameter: theirs, and whether it is transposed.
_LINEAR = {"W_enc": ("encoder.weight", True), "b_enc": ("encoder.bias", False), "W_dec": ("decoder.weight", True)}
_NAMES = {
    "topk": _LINEAR | {"b_dec": ("b_dec", False)},
    "batch_topk": _LINEAR | {"b_dec": ("b_dec", False)},
    "matryoshka_batch_topk": {name: (name, False) for name in ("W_enc", "b_enc", "W_dec", "b_dec")},
    "relu": _LINEAR | {"b_dec": ("bias", False)},
    "gated": _LINEAR
    | {
        "b_enc": ("gate_bias", False),
        "b_dec": ("decoder_bias", False),
        "r_mag": ("r_mag", False),
        "b_mag": ("mag_bias", False),
    },
    "jumprelu": {name: (name, False) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    | {"thresholds": ("threshold", False)},
    "sparsify_topk": {
        "W_enc": ("encoder.weight", True),
        "b_enc": ("encoder.bias", False),
        "W_dec": ("W_dec", False),
        "b_dec": ("b_dec", False),
    },
}


def parameters(module: torch.nn.Module, case: str) -> dict[str, np.ndarray]:
    """The weights under our names, copied."""
    own = dict(module.named_parameters())
    found = {}
    for name, (theirs, transposed) in _NAMES[case].items():
        value = own[theirs].detach()
        found[name] = np.array((value.T if transposed else value).numpy(), copy=True)
    return found


def plant_dead(bias: torch.Tensor) -> None:
    """Make the first latents silent."""
    with torch.no_grad():
        bias[: cases.PLANTED_DEAD] = cases.PLANTED_BIAS


def run_dictionary_learning(case: str, settings: dict) -> dict[str, np.ndarray]:
    """All updates of one trainer of dictionary_learning."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainers = {
        "topk": TopKTrainer,
        "batch_topk": BatchTopKTrainer,
        "matryoshka_batch_topk": MatryoshkaBatchTopKTrainer,
        "relu": StandardTrainer,
        "gated": GatedSAETrainer,
        "jumprelu": JumpReluTrainer,
    }
    chosen = {_SETTINGS[key]: value for key, value in settings.items() if key in _SETTINGS}
    torch.manual_seed(SEED)  # JumpReluTrainer does not seed itself
    trainer = trainers[case](
        steps=cases.STEPS,
        activation_dim=cases.D_MODEL,
        dict_size=cases.N_LATENTS,
        layer=0,
        lm_name="none",
        seed=SEED,
        device="cpu",
        **chosen,
    )
    if "dead_feature_tokens" in settings:
        trainer.dead_feature_threshold = settings["dead_feature_tokens"]
    plant_dead(dict(trainer.ae.named_parameters())[_NAMES[case]["b_enc"][0]])
    found = {f"start.{name}": value for name, value in parameters(trainer.ae, case).items()}
    thresholds, counters = [], []
    for step in range(cases.STEPS):
        trainer.update(step, torch.from_numpy(cases.batch(step)))
        if "threshold_start_step" in settings:
            thresholds.append(float(trainer.ae.threshold))
        if hasattr(trainer, "num_tokens_since_fired"):
            counters.append(trainer.num_tokens_since_fired.numpy().copy())
        if step + 1 in cases.COMPARED:
            found |= {f"{step + 1}.{name}": value for name, value in parameters(trainer.ae, case).items()}
    return found | _per_update(thresholds, counters)


def run_sparsify(case: str, settings: dict) -> dict[str, np.ndarray]:
    """All updates of sparsify's trainer, on a model whose only layer puts out our rows."""
    from datasets import Dataset
    from sparsify import SaeConfig, TrainConfig, Trainer

    class Rows(torch.nn.Module):
        """Token i is row i of all batches, one after another."""

        device = torch.device("cpu")

        def __init__(self):
            super().__init__()
            table = torch.from_numpy(np.concatenate([cases.batch(step) for step in range(cases.STEPS)]))
            self.rows = torch.nn.Embedding.from_pretrained(table)
            self.dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}

        @property
        def base_model(self):
            return self

        def forward(self, input_ids):
            return self.rows(input_ids)

    found, counters = {}, []

    class Recording(Trainer):
        """Looks at the weights where the trainer would save them, which is after every update."""

        def save(self):
            (sae,) = self.saes.values()
            (silent,) = self.num_tokens_since_fired.values()
            if len(counters) == cases.STEPS:  # once more at the end
                return
            counters.append(silent.numpy().copy())
            if len(counters) in cases.COMPARED:
                # It puts decoder rows back to unit norm before an update, ours after it.
                after = parameters(sae, case)
                norms = np.linalg.norm(after["W_dec"], axis=1, keepdims=True) + np.finfo(np.float32).eps
                found.update({f"{len(counters)}.{name}": value for name, value in after.items()})
                found[f"{len(counters)}.W_dec"] = after["W_dec"] / norms

    tokens = np.arange(cases.STEPS * cases.BATCH_SIZE).reshape(cases.STEPS, cases.BATCH_SIZE)
    trainer = Recording(
        TrainConfig(
            SaeConfig(num_latents=cases.N_LATENTS, k=settings["k"]),
            batch_size=1,
            optimizer="adam",
            lr=settings["lr"],
            lr_warmup_steps=settings["warmup_steps"],
            auxk_alpha=settings["aux_coefficient"],
            dead_feature_threshold=settings["dead_feature_tokens"],
            hookpoints=["rows"],
            init_seeds=[SEED],
            save_every=1,
            log_to_wandb=False,
        ),
        Dataset.from_dict({"input_ids": tokens}).with_format("torch"),
        Rows(),
    )
    (sae,) = trainer.saes.values()
    plant_dead(sae.encoder.bias)
    found |= {f"start.{name}": value for name, value in parameters(sae, case).items()}
    trainer.fit()
    return found | _per_update([], counters)


def _per_update(thresholds: list[float], counters: list[np.ndarray]) -> dict[str, np.ndarray]:
    found = {"threshold": np.array(thresholds, dtype=np.float32)} if thresholds else {}
    return found | ({"tokens_since_fired": np.stack(counters).astype(np.int32)} if counters else {})


def import_trainers(checkout: Path) -> None:
    """Make dictionary_learning's modules importable without its __init__, which wants a library for language models."""
    package = types.ModuleType("dictionary_learning")
    package.__path__ = [str(checkout / "dictionary_learning")]
    sys.modules["dictionary_learning"] = package


if __name__ == "__main__":
    torch.set_num_threads(1)
    import_trainers(Path(sys.argv[1]))
    FIXTURES.mkdir(exist_ok=True)
    for case, (reference, settings) in cases.CASES.items():
        run = run_dictionary_learning if reference == "dictionary_learning" else run_sparsify
        arrays = run(case, settings)
        np.savez_compressed(FIXTURES / f"{case}.npz", **arrays)
        print(case, {name: array.shape for name, array in arrays.items() if not name[0].isdigit()})
