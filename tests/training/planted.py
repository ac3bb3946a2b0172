"""Rows with a known sparse dictionary, served as the activation stream would serve them."""

from dataclasses import dataclass
from pathlib import Path

import torch

from atlas.config.recipe import Recipe
from atlas.training.adam import Adam
from atlas.training.architectures import ARCHITECTURES
from atlas.training.state import TrainingState, new_state
from atlas.training.train import train_sae

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    rows: torch.Tensor
    corpora: dict[str, int]


@dataclass(frozen=True)
class Statistics:
    n_rows: int
    mean: torch.Tensor
    mean_square_norm: float
    median_norm: float


class PlantedStream:
    """Rows that are sums of `active` of `n_features` random unit directions, plus an offset, times `scale`."""

    def __init__(self, d_model=32, n_features=48, active=3, batch_size=512, scale=5.0, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(n_features, d_model, generator=generator)
        self.dictionary = directions / directions.norm(dim=1, keepdim=True)
        self.offset = torch.randn(d_model, generator=generator)
        self.active, self.batch_size, self.scale, self.seed, self.dtype = active, batch_size, scale, seed, dtype
        self.d_model, self.broken = d_model, {}
        self.identity = f"planted {d_model} {n_features} {active} {batch_size} {scale} {seed}"

    def rows(self, number, n_rows):
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        n_features = len(self.dictionary)
        chosen = torch.rand(n_rows, n_features, generator=generator).topk(self.active, dim=1).indices
        strength = 1 + torch.rand(n_rows, self.active, generator=generator)
        weights = torch.zeros(n_rows, n_features).scatter_(1, chosen, strength)
        return (self.scale * (weights @ self.dictionary + self.offset)).to(self.dtype)

    def batch(self, step):
        rows = self.rows(step, self.batch_size)
        if step in self.broken:
            rows[0, 0] = self.broken[step]
        return Batch(rows, {"planted": len(rows)})

    def where(self, step):
        return [(Path(f"planted-{row // 128:03d}.h5"), 1000 * step + row) for row in range(self.batch_size)]

    def statistics(self):
        rows = self.rows(10**6, 8192).double()
        norms = rows.norm(dim=1)
        return Statistics(10**5, rows.mean(dim=0), float(norms.square().mean()), float(norms.median()))

    def drawn_shares(self, steps):
        return {"planted": 1.0}


_THRESHOLD = {"k": 3, "threshold_start_step": 10, "threshold_beta": 0.9}
SPARSITY = {
    "topk": {"k": 3},
    "batch_topk": _THRESHOLD,
    "matryoshka_batch_topk": _THRESHOLD | {"group_fractions": [0.25, 0.75]},
    "relu": {"l1_coefficient": 0.05},
    "gated": {"l1_coefficient": 0.05},
    "jumprelu": {"target_l0": 3.0, "bandwidth": 0.05},
}


def recipe(architecture="topk", **overrides):
    fields = {
        "architecture": architecture,
        "n_latents": 64,
        "steps": 40,
        "batch_size": 256,
        "lr": 3e-3,
        "warmup_steps": 5,
    }
    fields |= SPARSITY[architecture]
    fields |= {"matmul_dtype": "float32", "monitor_every": 10, "checkpoint_every": 10, "dead_feature_tokens": 10**6}
    return Recipe(**(fields | overrides))


def exact_state(settings, d_model, seed) -> TrainingState:
    """`new_state` in float64: two ways to the same update then differ by about 1e-13 after some steps.

    In float32 they part as soon as rounding decides which latents are kept or which gate opens, and rounding depends
    on the processor.
    """
    return in_float64(new_state(settings, d_model, seed, CPU), settings)


def in_float64(state: TrainingState, settings) -> TrainingState:
    """The state before the first update, with weights, moments and threshold in float64."""
    parameters = {name: torch.nn.Parameter(value.detach().double()) for name, value in state.parameters.items()}
    optimizer = Adam.of(parameters, ARCHITECTURES[settings.architecture].betas)
    return TrainingState(parameters, optimizer, state.threshold.double(), state.tokens_since_fired, state.step)


def card_fields():
    corpus = {"source": {"kind": "path"}, "licence": "CC0-1.0", "template": "plain", "fingerprint": {"train": "a"}}
    return {
        "names": {"model": "m", "mix": "x", "recipe": "r"},
        "model": {
            "name": "tiny",
            "source": {"kind": "path"},
            "revision": "r0",
            "architecture": "llama",
            "d_model": 32,
            "dtype": "float32",
            "licence": "MIT",
            "weights_sha256": "00",
        },
        "hook": "resid_post.2",
        "target_hook": None,
        "store": {"rows": 1, "context_length": 16, "llm_batch_contexts": 8, "storage_dtype": "float32"},
        "corpora": {"planted": corpus},
        "token_fingerprints": {"planted": "b"},
        "mix": {"phases": [{"until": 1.0, "weights": {"planted": 1.0}}]},
        "epochs": {"planted": 1.0},
        "mixing": {"effective_documents": 8.0, "uniform_documents": 8.0},
        "evaluation_roles": {"planted": "in_sample"},
        "monitored": {"in_sample": "planted"},
    }


def train(folder, recipe, stream, seed=0, monitors=None, card=None):
    """Train into `folder`/sae with checkpoints in `folder`/state; returns `folder`/sae."""
    if monitors is None:
        monitors = {"in_sample": stream.rows(10**7, 512), "oos": stream.rows(10**7 + 1, 512) * 1.5}
    card = card_fields() if card is None else card
    train_sae(recipe, stream, monitors, seed, CPU, Path(folder) / "sae", Path(folder) / "state", card)
    return Path(folder) / "sae"
