"""Folders of trained SAEs as training writes them: random weights, a complete run card."""

import copy

import torch

from atlas.runcard import REQUIRED, write_run_card
from atlas.training.architectures import ARCHITECTURES
from atlas.training.sae import Sae, save_sae

MODEL = {
    "name": "tiny",
    "source": {"kind": "hub", "id": "someone/tiny", "revision": "main", "licence": "Apache-2.0"},
    "revision": "4f2a" * 10,
    "architecture": "llama",
    "d_model": 24,
    "dtype": "float32",
    "licence": "Apache-2.0",
    "weights_sha256": "b" * 64,
}
CORPUS = {
    "source": {"kind": "path", "path": "data/chat.jsonl", "licence": "CC-BY-4.0"},
    "licence": "CC-BY-4.0",
    "template": "conversation",
    "fingerprint": {"train": "c" * 64, "eval": "d" * 64},
}
CARD = {
    "names": {"model": "tiny", "mix": "chat", "recipe": "small"},
    "model": MODEL,
    "store": {"rows": 4096, "context_length": 32, "llm_batch_contexts": 8, "storage_dtype": "bfloat16"},
    "optimisation": {"optimizer": "Adam", "lr": 0.001, "steps": 150, "batch_size": 128},
    "corpora": {"chat": CORPUS},
    "drawn_shares": {"chat": 1.0},
    "evaluation_roles": {"chat": "in_sample", "news": "oos"},
    "monitored": {"in_sample": "chat", "oos": "news"},
    "tokens": {"rows_trainable": 4000, "rows_drawn": 19200},
    "exclude_massive": True,
    "numerics": {"products": "float32", "master_weights": "float32", "saved": "float32"},
    "seed": 7,
    "versions": {"python": "3.11", "torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.6", "atlas": "0.1.0"},
    "outcomes": {
        "train": {"explained_variance": 0.8125, "l0": 4.0},
        "in_sample": {"explained_variance": 0.7654, "l0": 4.0, "silent_share": 0.02},
        "oos": {"explained_variance": 0.6543, "l0": 4.0, "silent_share": 0.05},
    },
    "warnings": ["few_tokens: 19200 rows drawn"],
}


def random_sae(architecture="topk", d_model=24, n_latents=60, d_target=None, seed=0) -> Sae:
    """An SAE, or with `d_target` a transcoder, whose latents fire on some rows and whose biases matter."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    width = d_model if d_target is None else d_target
    W_dec = draw(n_latents, width)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    own = {name: 0.3 * draw(n_latents) for name in ARCHITECTURES[architecture].latent_parameters}
    own |= {"thresholds": own["thresholds"].abs()} if "thresholds" in own else {}
    has_threshold = ARCHITECTURES[architecture].has_threshold
    return Sae(
        architecture,
        W_enc=draw(d_model, n_latents) / d_model**0.5,
        b_enc=0.3 * draw(n_latents) - 0.3,
        W_dec=W_dec,
        b_dec=2 * draw(width),
        k=20 if "topk" in architecture else None,  # more than are positive on some rows
        threshold=torch.tensor(0.4).item() if has_threshold else None,
        latent_parameters=own,
        is_transcoder=d_target is not None,
    )


def write_trained(folder, sae: Sae, hook: str | None = None, **changes):
    """The folder of a trained SAE; `changes` replace sections of the run card."""
    target = "mlp_out.3" if sae.is_transcoder else None
    hook = hook or ("mlp_in.3" if sae.is_transcoder else "resid_post.3")
    architecture = changes.get("model", MODEL)["architecture"]
    metadata = {"model_name": "tiny", "model_architecture": architecture, "hook_name": hook}
    save_sae(sae, folder, metadata | ({"target_hook_name": target} if target else {}))
    write_run_card(folder / "run_card.yaml", card_of(sae, hook, target) | changes)
    return folder


def card_of(sae: Sae, hook: str, target: str | None) -> dict:
    """A complete card; fields that no export looks at are filled in."""
    section = {
        "architecture": sae.architecture,
        "d_model": sae.d_model,
        "d_target": sae.d_target,
        "n_latents": sae.n_latents,
        "k": sae.k,
        "l1_coefficient": None,
        "threshold": sae.threshold,
        "threshold_beta": 0.999,
        "threshold_start_step": 50,
        "normalisation": {"rows_divided_by": 12.5, "folded_into_weights": True},
    }
    if sae.architecture == "matryoshka_batch_topk":
        section["group_fractions"] = [0.1, 0.25, 0.65]
    card = copy.deepcopy(CARD) | {"hook": hook, "target_hook": target, "sae": section}
    for section, keys in REQUIRED.items():
        values = card.setdefault(section, {})
        for key in keys:
            values.setdefault(key, "filled in")
    return card
