"""Delphi's cache format from our codes: byte for byte what Delphi 0.1.3 writes, and whole where it is not."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_scene import LENGTH, random_firings, random_tokens, write_codes
from peer_environments import REPOSITORY, peer_python
from safetensors.numpy import load_file

from atlas.autointerp.delphi_cache import save_arrays, write_delphi_cache
from atlas.errors import EvaluationError, ExportError
from atlas.export.environments import run_isolated

N_CONTEXTS, MODULE = 12, "resid_post.0"
NAMES = {"module": MODULE, "model_name": "tiny", "n_splits": 3}


@pytest.fixture
def codes(tmp_path):
    tokens = random_tokens(N_CONTEXTS)
    dense = random_firings(tokens, [0.2, 0, 0.05, 0.5, 0.3, 0.1, 1.0])
    dense[3, 0], dense[4, 0] = 1e-6, 6e4  # one that counts as none, one near the end of float16
    return write_codes(tmp_path / "codes.h5", dense, tokens)


def dense_of(codes) -> np.ndarray:
    entries = codes.latents(0, codes.n_latents)
    dense = np.zeros((codes.n_rows, codes.n_latents), np.float32)
    dense[entries.row, entries.latent] = entries.value
    return dense.reshape(-1, LENGTH, codes.n_latents)


def test_what_is_written_is_what_the_codes_hold(codes, tmp_path):
    write_delphi_cache(codes, tmp_path / "cache", **NAMES)
    edges = torch.linspace(0, codes.n_latents, 4).long().tolist()
    dense = dense_of(codes)
    for first, stop in pairwise(edges):
        split = load_file(tmp_path / "cache" / MODULE / f"{first}_{stop - 1}.safetensors")
        expected = torch.nonzero(torch.from_numpy(dense[..., first:stop]) > 1e-5).numpy()
        np.testing.assert_array_equal(split["locations"], expected)
        assert split["locations"].dtype == np.uint16
        np.testing.assert_array_equal(
            split["activations"], dense[..., first:stop][tuple(expected.T)].astype(np.float16)
        )
        np.testing.assert_array_equal(split["tokens"], codes.tokens.reshape(-1, LENGTH))
    assert json.loads((tmp_path / "cache" / MODULE / "config.json").read_text())["n_tokens"] == codes.n_rows


def test_order_in_memory_does_not_move_values(codes, tmp_path):
    """Tokens of the codes in Fortran's order: the same numbers at the same places."""
    expected = codes.tokens.reshape(-1, LENGTH)
    codes.tokens = np.asfortranarray(expected)
    write_delphi_cache(codes, tmp_path / "cache", **NAMES)
    for file in (tmp_path / "cache" / MODULE).glob("*.safetensors"):
        np.testing.assert_array_equal(load_file(file)["tokens"], expected)


@pytest.mark.parametrize("change", [np.transpose, np.asfortranarray, lambda array: array[::2, 1:], np.flipud])
def test_arrays_that_are_not_contiguous_are_written_by_value(tmp_path, change):
    array = change(np.arange(24, dtype=np.float32).reshape(4, 6))
    assert not array.flags.c_contiguous
    save_arrays({"array": array}, tmp_path / "file.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "file.safetensors")["array"], array)


def test_splits_are_those_of_torch_for_any_number_of_latents():
    from atlas.autointerp.delphi_cache import _splits

    for n_latents in (7, 400, 1200, 35840, 131072, 1048573):
        for n_splits in (1, 3, 5, 7):
            edges = torch.linspace(0, n_latents, n_splits + 1).long().tolist()
            assert _splits(n_latents, n_splits) == list(pairwise(edges))


def test_latents_that_never_fire_make_an_empty_split(tmp_path):
    tokens = random_tokens(4)
    dense = random_firings(tokens, [0.2, 0, 0, 0.2])
    write_delphi_cache(write_codes(tmp_path / "codes.h5", dense, tokens), tmp_path / "cache", **NAMES | {"n_splits": 4})
    split = load_file(tmp_path / "cache" / MODULE / "1_1.safetensors")
    assert split["locations"].shape == (0, 3)
    assert split["activations"].dtype == np.float16


def test_activations_beyond_float16_are_refused(tmp_path):
    tokens = random_tokens(4)
    dense = random_firings(tokens, [0.2, 0.2])
    dense[7, 1] = 1e5
    codes = write_codes(tmp_path / "codes.h5", dense, tokens)
    with pytest.raises(EvaluationError, match="latent 1 has activation 100000, beyond float16"):
        write_delphi_cache(codes, tmp_path / "cache", **NAMES | {"n_splits": 1})
    assert not (tmp_path / "cache" / MODULE).exists()


@pytest.mark.slow
def test_bytes_are_those_of_delphi_where_it_does_not_stop(codes, tmp_path, tmp_path_factory):
    python = peer_python("delphi", tmp_path_factory)
    write_delphi_cache(codes, tmp_path / "ours", **NAMES)
    ours = tmp_path / "ours" / MODULE
    save_arrays(
        {"latents": dense_of(codes), "tokens": codes.tokens.reshape(-1, LENGTH).astype(np.int64)}, tmp_path / "in"
    )
    config = json.loads((ours / "config.json").read_text())
    config.pop("model_name")
    job = NAMES | {
        "task": "write",
        "source": str(tmp_path / "in"),
        "target": str(tmp_path / "delphi"),
        "config": config,
    }
    delphi(python, tmp_path, job | {"batch_size": 4})
    files = sorted(path.name for path in (tmp_path / "delphi" / MODULE).iterdir())
    assert len(files) == 4
    assert files == sorted(path.name for path in ours.iterdir())
    for name in files:
        assert (ours / name).read_bytes() == (tmp_path / "delphi" / MODULE / name).read_bytes(), name
    # What ours is for: Delphi's own stops at a part that never fires, and leaves out the last, incomplete batch.
    with pytest.raises(ExportError, match=r"max\(\)|zero elements|no identity"):
        delphi(python, tmp_path, job | {"batch_size": 4, "n_splits": 7})
    delphi(python, tmp_path, job | {"batch_size": 5})
    assert len(load_file(tmp_path / "delphi" / MODULE / files[0])["tokens"]) == 10


def delphi(python: Path, folder: Path, job: dict) -> dict:
    (folder / "job.json").write_text(json.dumps(job | {"result": str(folder / "result.json")}))
    script = REPOSITORY / "workflow/peers/delphi_cache.py"
    run_isolated(python, [str(script), str(folder / "job.json")], "delphi_cache.py")
    return json.loads((folder / "result.json").read_text())
