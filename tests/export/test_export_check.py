"""The check itself: which rows it draws, what it calls a difference, and that it refuses what it should."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from trained import random_sae, write_trained

from atlas.errors import ExportError
from atlas.export.check import Export, check_exports, draw_rows, is_decided, largest_error
from atlas.export.environments import build_environment, is_ready, run_isolated
from atlas.export.formats import export_sae
from atlas.training.architectures import ARCHITECTURES
from atlas.training.sae import Sae


@pytest.mark.parametrize("d_target", [None, 17])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_exercise_the_sae(architecture, d_target):
    if d_target and architecture not in ("topk", "batch_topk"):
        d_target = 24
    sae = random_sae(architecture, d_target=d_target)
    rows = draw_rows(sae)
    assert rows.shape == (256, 24) and rows.dtype == torch.float32
    assert torch.equal(rows, draw_rows(sae))
    assert is_decided(sae, rows).all()
    fires = sae.encode(rows) > 0
    assert fires.any(dim=0).all()  # every latent is compared
    if architecture == "topk":
        assert (fires.sum(dim=1) < sae.k).any() and (fires.sum(dim=1) == sae.k).any()
    sizes = (rows - (0 if sae.is_transcoder else sae.b_dec)).norm(dim=1)
    assert sizes.max() > 100 * sizes.min()


def identity_sae(architecture, **settings):
    """Its pre-activations are its rows."""
    return Sae(architecture, torch.eye(3), torch.zeros(3), torch.eye(3), torch.zeros(3), **settings)


def test_rows_that_float32_does_not_decide():
    close = 1 + 2.0**-23
    topk = identity_sae("topk", k=1)
    rows = torch.tensor([[1.0, close, 0.0], [1.0, 1.1, 0.0], [-1.0, -1.0, 0.5], [1.0, 1.0, 2.0], [1e-9, 2e-9, -1.0]])
    # The last two: a tie below what is kept, and values that are nothing beside the rounding of the row.
    assert is_decided(topk, rows).tolist() == [False, True, True, True, True]
    above = identity_sae("batch_topk", k=1, threshold=1.0)
    assert is_decided(above, torch.tensor([[close, 0, 0], [1.0, 0, 0], [1.1, 0, 0.9]])).tolist() == [False, False, True]
    own = {"thresholds": torch.tensor([1.0, 0.0, 0.5])}
    jump = identity_sae("jumprelu", latent_parameters=own)
    assert is_decided(jump, torch.tensor([[1.5, 1e-8, 0.6], [1.5, 0.0, 0.5]])).tolist() == [True, False]
    gates = {"r_mag": torch.zeros(3), "b_mag": torch.ones(3)}
    gated = identity_sae("gated", latent_parameters=gates)
    assert is_decided(gated, torch.tensor([[1e-9, 1.0, -1.0], [1.0, 1.0, -1.0]])).tolist() == [False, True]
    assert is_decided(identity_sae("relu"), torch.tensor([[1e-9, 1.0, -1e-9]])).all()


def test_an_sae_of_which_nothing_can_be_compared():
    silent = dataclasses.replace(identity_sae("relu"), W_enc=torch.zeros(3, 3), b_enc=-torch.ones(3))
    with pytest.raises(ExportError, match="no latent fires on any row"):
        draw_rows(silent)
    twins = Sae("topk", torch.zeros(3, 2), torch.ones(2), torch.eye(2, 3), torch.zeros(3), k=1)  # ties in all rows
    with pytest.raises(ExportError, match="only 0 have latents that float32 decides"):
        draw_rows(twins)


def test_largest_error():
    ours = torch.tensor([[1.0, 10.0], [0.0, 0.0], [100.0, 0.0]])
    assert largest_error(ours, ours.clone(), "here") == 0
    theirs = ours + torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert largest_error(ours, theirs, "here") == pytest.approx(0.05)
    assert largest_error(ours, ours + torch.tensor([[0.0], [1e-30], [0.0]]), "here") == float("inf")
    assert not largest_error(ours, ours * float("nan"), "here") <= 1
    with pytest.raises(ExportError, match=r"here: the peer gave \(3, 1\).*expected \(3, 2\)"):
        largest_error(ours, ours[:, :1], "here")
    with pytest.raises(ExportError, match="bfloat16"):
        largest_error(ours, ours.bfloat16(), "here")


def test_an_export_of_another_sae_is_not_compared(tmp_path):
    first = write_trained(tmp_path / "first", random_sae(seed=0))
    second = write_trained(tmp_path / "second", random_sae(seed=1))
    export_sae(first, "saelens", tmp_path / "export")
    for wrong in (Export("saelens", second, tmp_path / "export"), Export("sparsify", first, tmp_path / "export")):
        with pytest.raises(ExportError, match=r"is the saelens export of weights .*; export it again"):
            check_exports([wrong], Path(sys.executable))


def test_a_peer_that_is_not_there_is_said(tmp_path):
    source = write_trained(tmp_path / "sae", random_sae())
    export_sae(source, "saelens", tmp_path / "export")
    with pytest.raises(ExportError, match=r"(?s)loading .*export with .*No module named 'sae_lens'"):
        check_exports([Export("saelens", source, tmp_path / "export")], Path(sys.executable))
    with pytest.raises(ExportError, match="cannot be run"):
        check_exports([Export("saelens", source, tmp_path / "export")], tmp_path / "no/python")


def test_isolated_programs_do_not_see_this_library(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "workflow"))
    assert run_isolated(Path(sys.executable), ["-c", "print(6 * 7)"], "counting").strip() == "42"
    with pytest.raises(ExportError, match=r"(?s)importing failed with status 1.*No module named 'atlas'"):
        run_isolated(Path(sys.executable), ["-c", "import atlas"], "importing")


def test_environments_that_are_refused(tmp_path):
    pins = tmp_path / "pins.txt"
    with pytest.raises(ExportError, match="'other'; expected one of saelens"):
        build_environment("other", pins, tmp_path / "environment")
    with pytest.raises(ExportError, match=r"pins\.txt: missing"):
        build_environment("sparsify", pins, tmp_path / "environment")
    pins.write_text("nothing==1\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds files but no virtual environment"):
        build_environment("sparsify", pins, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").exists()
    assert not is_ready(tmp_path / "mine", "0" * 64)


@pytest.mark.parametrize("peer", ["saelens", "dictionary_learning", "sparsify"])
def test_environments_are_pinned_whole(peer):
    lines = (Path(__file__).parents[2] / "envs" / "peers" / f"{peer}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 and " " not in line and "+" not in line for line in pins)
    assert "torch==2.13.0" in pins and len(pins) > 40
