"""Run SAEBench's own calculator on made rows and write what came out: saebench_rows.npz.

Documentation of how the file was made, and the way to make it again; no test runs it. It needs SAEBench in an
environment of its own (the calculator names sae_lens and transformer_lens in annotations alone, so empty modules with
the classes SAE and HookedTransformer serve as well):

    pip install torch==2.13.0 sae-bench==0.6.0
    python tests/absorption/make_saebench_rows.py

Rows and latents are random, some latents aligned with the probe, some of the main ones silent on a third of the words,
so that every branch is taken: fractions of 0, of 1 and between, full absorption and none.
"""

import types
from pathlib import Path

import numpy as np
import torch
from sae_bench.evals.absorption.feature_absorption_calculator import FeatureAbsorptionCalculator

TARGET = Path(__file__).parent / "saebench_rows.npz"
N_WORDS, D_MODEL, N_LATENTS = 90, 24, 60
MAINS = ([5, 6], [7], [20])


def make_inputs(seed: int):
    """Rows with more or less of the probe in them, a dictionary with seven latents near it, TopK latents."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    probe = normal(D_MODEL)
    direction = probe / probe.norm()
    rows = normal(N_WORDS, D_MODEL) + direction * (5 * torch.rand(N_WORDS, 1, generator=generator) - 0.5)
    W_dec = torch.nn.functional.normalize(normal(N_LATENTS, D_MODEL), dim=1)
    W_dec[5:12] = torch.nn.functional.normalize(W_dec[5:12] + 1.5 * direction, dim=1)
    values, places = (rows @ W_dec.T).topk(10, dim=1)
    latents = torch.zeros(N_WORDS, N_LATENTS).scatter_(1, places, values.relu())
    latents[::3, 5:8] = 0
    return rows, latents, W_dec, probe


def saebench(rows, latents, W_dec, probe, main):
    """Fraction and full absorption of each word by SAEBench: its model and SAE are look-ups in the rows made here."""
    words = [f"w{place}" for place in range(len(rows))]

    class Model:
        def run_with_cache(self, prompts, names_filter):
            return None, {names_filter[0]: torch.stack([rows[words.index(prompt)] for prompt in prompts])[:, None]}

        def to_tokens(self, prompt):
            return torch.zeros(1, 1)

    def encode(batch):
        return torch.stack([latents[(rows == row).all(1)][0] for row in batch])

    calculator = FeatureAbsorptionCalculator(
        model=Model(), icl_word_list=words, max_icl_examples=0, base_template="{word}", word_token_pos=0
    )
    calculator._build_prompts = lambda chosen: [types.SimpleNamespace(word=w, base=w, answer="") for w in chosen]
    sae = types.SimpleNamespace(W_dec=W_dec, device="cpu", encode=encode)
    found = calculator.calculate_absorption(sae, words, probe, main, layer=0, show_progress=False).word_results
    return [float(one.absorption_fraction) for one in found], [bool(one.is_full_absorption) for one in found]


def main() -> None:
    arrays = {}
    for seed, chosen in enumerate(MAINS):
        inputs = make_inputs(seed)
        fraction, full = saebench(*inputs, chosen)
        names = ("rows", "latents", "W_dec", "probe")
        arrays |= {f"{seed}.{name}": tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        arrays |= {
            f"{seed}.main": np.array(chosen),
            f"{seed}.fraction": np.array(fraction),
            f"{seed}.full": np.array(full),
        }
    np.savez_compressed(TARGET, **arrays)


if __name__ == "__main__":
    main()
