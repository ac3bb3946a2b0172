"""Every format means what its peer computes: committed numbers of the peers' code, and the peers where installed."""

import subprocess
from pathlib import Path

import pytest
import torch
from peer_cases import TOLERANCE, cases_of, largest_errors, read_case
from peer_environments import peer_python
from safetensors.torch import save_file

NUMBERS = Path(__file__).parent / "numbers"
CASES = [(folder.name, name) for folder in sorted(NUMBERS.iterdir()) for name in cases_of(folder)]


@pytest.mark.parametrize(("peer", "name"), CASES)
def test_committed_numbers_of_the_peer(peer, name):
    errors = largest_errors(NUMBERS / peer, name)
    assert max(errors.values()) <= TOLERANCE, errors


def test_every_case_fires_and_is_not_one_plain_product():
    """Else a reading that selects nothing, or everything, would pass."""
    for peer, name in CASES:
        sae = read_case(NUMBERS / peer, name).sae
        assert sae.n_latents == 16 and sae.b_dec.abs().max() > 0.1, (peer, name)


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["saelens", "dictionary_learning", "sparsify"])
def test_the_peer_itself_on_many_rows(tmp_path, tmp_path_factory, peer):
    """The installed peer writes, encodes and decodes; rows have one outlying dimension, as residual streams do."""
    rows = torch.randn(10_000, 32) * torch.linspace(0.1, 3, 32)
    rows[:, 7] += 20
    save_file({"rows": rows}, tmp_path / "rows.safetensors")
    script = Path(__file__).with_name("peer_numbers.py")
    command = [peer_python(peer, tmp_path_factory), script, peer, tmp_path / "made", tmp_path / "rows.safetensors"]
    subprocess.run([str(each) for each in command], check=True, capture_output=True)
    assert set(cases_of(tmp_path / "made")) == set(cases_of(NUMBERS / peer))
    for name in cases_of(tmp_path / "made"):
        errors = largest_errors(tmp_path / "made", name)
        assert max(errors.values()) <= TOLERANCE, (name, errors)
