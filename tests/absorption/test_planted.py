"""Planted dictionaries: one latent per letter, and for a known share of words a latent that takes its place."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.absorption.letters import candidates, dense_probe, few_latents_f1, main_latents
from atlas.absorption.run import absorption, raw_absorption, run_absorption, run_raw_absorption
from atlas.absorption.study_table import write_absorption_table
from atlas.absorption.words import GROUP
from atlas.config.downstream import Absorption
from atlas.files import read_json, write_json
from atlas.probing.probes import stratified_split
from atlas.probing.rows import LabelledRows, write_rows
from atlas.training.sae import Sae

D_MODEL = 64
SETTINGS = Absorption(splits=2, test_share=0.5)
N_WORDS = 50


class PlantedSae(Sae):
    """An SAE whose latents are given: a letter's latent on most words, on the others a latent of the word itself."""

    def encode(self, rows):
        return self.planted(rows)


def planted_words(n_letters: int, seed: int = 0, letter_size: float = 3.0):
    """Rows: a direction per letter, one per word, little noise; letters on axes that no two share."""
    generator = np.random.default_rng(seed)
    axes = np.linalg.qr(generator.normal(size=(D_MODEL, D_MODEL)))[0][:n_letters]
    letters = np.repeat(np.arange(n_letters), N_WORDS)
    own = generator.normal(size=(len(letters), D_MODEL))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    rows = letter_size * axes[letters] + own + 0.02 * generator.normal(size=own.shape)
    return rows.astype(np.float32), letters, axes.astype(np.float32)


def planted_dictionary(rows, letters, axes, share: float):
    """Latents and decoder: of each letter the last `share` of its words is absorbed by a latent of its own."""
    absorbed = np.arange(len(rows)) % N_WORDS >= round(N_WORDS * (1 - share))
    places = np.flatnonzero(absorbed)
    norms = np.linalg.norm(rows[places], axis=1, keepdims=True)
    W_dec = np.concatenate([axes, rows[places] / norms]).astype(np.float32)
    latents = np.zeros((len(rows), len(W_dec)), np.float32)
    whole = np.flatnonzero(~absorbed)
    latents[whole, letters[whole]] = (rows[whole] * axes[letters[whole]]).sum(1)
    latents[places, len(axes) + np.arange(len(places))] = norms[:, 0]
    return latents, W_dec, absorbed


def sae_of(rows, latents, W_dec) -> Sae:
    """An SAE that encodes exactly these rows as these latents: looked up by row."""
    table = {row.tobytes(): latent for row, latent in zip(rows, latents, strict=True)}
    sae = PlantedSae(
        "relu", torch.zeros(D_MODEL, len(W_dec)), torch.zeros(len(W_dec)), torch.from_numpy(W_dec), torch.zeros(D_MODEL)
    )
    look_up = lambda batch: torch.from_numpy(np.stack([table[row.tobytes()] for row in batch.numpy()]))  # noqa: E731
    object.__setattr__(sae, "planted", look_up)
    return sae


def random_saes(n: int, n_latents: int = 40) -> list[Sae]:
    result = []
    for seed in range(n):
        W_dec = torch.nn.functional.normalize(
            torch.randn(n_latents, D_MODEL, generator=torch.Generator().manual_seed(seed)), dim=1
        )
        zeros = torch.zeros(n_latents)
        result.append(Sae("topk", W_dec.T.contiguous(), zeros, W_dec, torch.zeros(D_MODEL), k=8))
    return result


def measure(n_letters: int, share: float, settings: Absorption = SETTINGS) -> dict:
    rows, letters, axes = planted_words(n_letters)
    latents, W_dec, _ = planted_dictionary(rows, letters, axes, share)
    data = LabelledRows(torch.from_numpy(rows), torch.from_numpy(letters))
    return absorption(data, sae_of(rows, latents, W_dec), random_saes(settings.splits), settings)


def raw(n_letters: int) -> dict:
    rows, letters, _ = planted_words(n_letters)
    data = LabelledRows(torch.from_numpy(rows), torch.from_numpy(letters))
    return raw_absorption(data, torch.zeros(D_MODEL), SETTINGS)


def truth(n_letters: int, share: float, settings: Absorption = SETTINGS) -> float:
    """Absorbed share of the test words, mean over splits."""
    rows, letters, axes = planted_words(n_letters)
    absorbed = planted_dictionary(rows, letters, axes, share)[2]
    splits = [stratified_split(letters, settings.test_share, number) for number in range(settings.splits)]
    return float(np.mean([absorbed[split.test].mean() for split in splits]))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.48])
def test_planted_absorption_is_recovered(share):
    result = measure(20, share)
    assert result["valid"]
    assert result["reasons"] == []
    expected = truth(20, share)
    assert expected == pytest.approx(share, abs=0.03)
    for name in ("mean_absorption_fraction", "full_absorption_rate"):
        found = result["sae"][name]
        assert found["value"] == pytest.approx(expected, abs=0.02)
        low, high = found["interval"]
        assert low <= found["value"] <= high
    assert result["sae"]["n_split"]["value"] == 1
    assert {letter["n_to_dense"] for letter in result["letters"]} == ({1} if share == 0 else {None})


def test_too_few_letters_are_not_valid():
    result = measure(8, 0.2)
    assert not result["valid"]
    assert result["reasons"][0].startswith("8 letters have a probe with F1 above 0.6")
    assert result["sae"]["mean_absorption_fraction"]["value"] == pytest.approx(truth(8, 0.2), abs=0.02)


def test_letters_that_rows_do_not_hold_are_not_valid():
    rows, letters, axes = planted_words(20, letter_size=0.0)
    latents, W_dec, _ = planted_dictionary(rows + 1e-3, letters, axes, 0.0)
    data = LabelledRows(torch.from_numpy(rows), torch.from_numpy(letters))
    result = absorption(data, sae_of(rows, latents, W_dec), random_saes(2), SETTINGS)
    assert not result["valid"]
    assert result["sae"] is None
    assert result["letters"] == []
    assert result["n_letters_with_probe"] == [0, 0]


def split_letter(parts: int):
    """One letter of ten; its words fire one of `parts` latents, those of another letter the latent after them."""
    letters = np.repeat(np.arange(10), N_WORDS)
    latents = np.zeros((len(letters), parts + 9), np.float32)
    words = np.flatnonzero(letters == 0)
    latents[words, np.arange(len(words)) % parts] = 2
    latents[letters > 0, parts - 1 + letters[letters > 0]] = 2
    return letters == 0, latents, stratified_split(letters, 0.5, 0)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_split_letter_is_counted(parts):
    is_letter, latents, split = split_letter(parts)
    chosen = candidates(latents, is_letter, split, 10)
    f1 = few_latents_f1(latents, chosen, is_letter, split)
    assert set(main_latents(chosen, f1, 0.03)) == set(range(parts))
    assert f1[parts - 1] == 1


@pytest.mark.parametrize("units", [1e-3, 1.0, 1e3])
def test_sparse_probe_does_not_depend_on_units(units):
    is_letter, latents, split = split_letter(4)
    assert set(candidates(latents * units, is_letter, split, 10)) == {0, 1, 2, 3}


def test_latents_that_say_nothing_are_no_candidates():
    is_letter, latents, split = split_letter(1)
    assert len(candidates(np.zeros_like(latents), is_letter, split, 10)) == 0
    assert list(candidates(latents, is_letter, split, 10)) == [0]  # the others speak for other letters


def test_dense_probe_finds_the_direction_in_the_space_of_the_rows():
    rows, letters, axes = planted_words(20)
    offset = rows + np.linspace(-50, 50, D_MODEL, dtype=np.float32)
    split = stratified_split(letters, 0.5, 0)
    for shifted in (rows, offset, 1000 * rows):
        probe = dense_probe(shifted, letters == 3, split)
        cosine = probe.direction @ axes[3] / np.linalg.norm(probe.direction)
        assert cosine > 0.9
        assert probe.f1 > 0.95


@pytest.mark.parametrize(
    ("hook", "known", "expected"),
    [
        ("mlp_in.1-to-mlp_out.1", None, "a transcoder writes"),
        ("resid_post.1", "the vocabulary has 0 words of one token", "the vocabulary has 0 words"),
    ],
)
def test_what_is_not_defined_is_null_with_the_reason(tmp_path, hook, known, expected):
    rows, target = tmp_path / "rows.safetensors", tmp_path / "absorption.json"
    write_rows(rows, {GROUP: {}}, {GROUP: torch.zeros(0, dtype=torch.int64)}, {"reason": known})
    settings = {"settings": SETTINGS, "device": torch.device("cpu")}
    run_raw_absorption(rows, [], hook=hook, settings=SETTINGS, target=tmp_path / "raw.json")
    assert read_json(tmp_path / "raw.json") == {"raw": None}
    run_absorption(tmp_path, rows, tmp_path / "raw.json", [], hook=hook, seed=0, target=target, **settings)
    result = json.loads(target.read_text())
    assert result["sae"] is None
    assert not result["valid"]
    assert result["reasons"][0].startswith(expected)
    write_absorption_table("s", {f"m/{hook}/chat/topk/seed-0": target}, tmp_path / "t.csv")
    assert pd.read_csv(tmp_path / "t.csv").reasons.str.contains(expected).all()


def test_table_has_a_row_per_dictionary(tmp_path):
    write_json(tmp_path / "a.json", measure(8, 0.2) | {"raw": raw(8)})
    write_absorption_table("s", {"tiny/resid_post.1/chat/topk/seed-3": tmp_path / "a.json"}, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv").set_index("dictionary")
    assert list(table.index) == ["sae", "random", "raw"]
    assert not table.valid.any()
    assert table.loc["sae", "n_letters"] == 8
    for name in ("mean_absorption_fraction_value", "mean_absorption_fraction_interval_low", "n_split_value"):
        assert table[name].notna().all()
    assert table.reasons.str.contains("are needed").all()
