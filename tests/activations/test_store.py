import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from shards import HOOKS, make_shard

from atlas.activations.layout import BLOCK_ROWS
from atlas.activations.store import Shard, open_shards
from atlas.activations.validate import violations
from atlas.activations.writer import RowColumns, ShardWriter
from atlas.errors import StoreError

HOOK = "resid_post.1"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("split", ["train", "eval"])
def test_rows_come_back_bit_for_bit(tmp_path, dtype, split):
    path = tmp_path / "shard.h5"
    written = make_shard(path, storage_dtype=dtype, split=split)
    shard = Shard.open(path)
    assert violations(path) == []
    for name in HOOKS:
        assert torch.equal(shard.read_rows(name, 0, shard.n_rows), written[name])
        assert torch.equal(shard.read_rows(name, 1000, 1100), written[name][1000:1100])
    assert not list(tmp_path.glob("*.tmp"))


def test_negative_values_survive_bfloat16(tmp_path):
    written = make_shard(tmp_path / "s.h5")[HOOK]
    assert (written < 0).any()
    assert torch.equal(Shard.open(tmp_path / "s.h5").read_rows(HOOK, 0, len(written)) < 0, written < 0)


def test_statistics_are_those_of_the_counted_rows(tmp_path):
    written = make_shard(tmp_path / "s.h5")[HOOK].double()
    shard = Shard.open(tmp_path / "s.h5")
    statistics, counted = shard.statistics(HOOK), torch.from_numpy(shard.counted)
    norms = written.norm(dim=1)
    regular = counted & (norms <= 10 * statistics["median_norm"])
    assert 0 < regular.sum() < counted.sum() < len(written)
    np.testing.assert_allclose(statistics["mean"], written[counted].mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics["mean_regular"], written[regular].mean(0), rtol=1e-12)
    assert statistics["sum_square_norm"] == pytest.approx(float((norms[counted] ** 2).sum()), rel=1e-5)
    assert statistics["median_norm"] == pytest.approx(float(norms[counted].median()), rel=1e-2)
    assert statistics["max_abs"] == float(written.abs().max())
    assert statistics["count_regular"] == int(regular.sum())


def test_flipped_byte_in_activations_is_named_when_its_block_is_read(tmp_path):
    path = tmp_path / "s.h5"
    make_shard(path)
    shard = Shard.open(path)
    offset = shard._hooks[HOOK].offset + (BLOCK_ROWS + 3) * HOOKS[HOOK] * 2
    _flip(path, offset)
    reopened = Shard.open(path)
    reopened.read_rows(HOOK, 0, BLOCK_ROWS)  # the block before is untouched
    with pytest.raises(
        StoreError, match=rf"s\.h5: rows {BLOCK_ROWS} to {2 * BLOCK_ROWS - 1} of {HOOK}.*delete this file"
    ):
        reopened.read_rows(HOOK, BLOCK_ROWS + 10, BLOCK_ROWS + 11)
    assert any("block 1" in text for text in violations(path))


def test_a_column_is_read_and_checked_when_it_is_asked_for(tmp_path):
    """A job keeps of each row what it needs of it; damage elsewhere is found by those who ask for that."""
    path = tmp_path / "s.h5"
    make_shard(path)
    with h5py.File(path) as file:
        offset = file["tokens"].id.get_offset()
    _flip(path, offset)
    shard = Shard.open(path)
    shard.read_rows(HOOK, 0, BLOCK_ROWS)
    assert shard._columns == {}
    assert len(shard.norms(HOOK)) == len(shard.counted) == shard.n_rows
    assert set(shard._columns) == {f"hooks/{HOOK}/norms", "counted"}
    with pytest.raises(StoreError, match=r"s\.h5: /tokens differs from its checksum; delete this file"):
        _ = shard.tokens


def test_columns_of_different_lengths_are_no_activation_file(tmp_path):
    path = tmp_path / "s.h5"
    make_shard(path)
    with h5py.File(path, "r+") as file:
        shorter = file["position"][:-1]
        del file["position"]
        file["position"] = shorter
    with pytest.raises(StoreError, match=r"s\.h5: truncated, altered or not an activation file \(columns of"):
        Shard.open(path)


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    """Anywhere in the file: opening it, reading all of it or validating it must object."""
    path = tmp_path / "s.h5"
    make_shard(path, n_contexts=8)
    original = path.read_bytes()
    unnoticed = []
    for offset in np.random.default_rng(0).integers(0, len(original), 150).tolist():
        path.write_bytes(original)
        _flip(path, offset)
        try:
            shard = Shard.open(path)
            for name in shard.hooks:
                shard.read_rows(name, 0, shard.n_rows)
            content = _everything(path)
        except StoreError:
            continue
        path.write_bytes(original)
        if content != _everything(path):
            unnoticed.append(offset)
    assert unnoticed == []


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "s.h5"
    make_shard(path)
    data = path.read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(StoreError, match=r"s\.h5: truncated, altered or not an activation file.*delete this file"):
            Shard.open(path)
        assert violations(path)


def test_unfinished_file_is_refused(tmp_path):
    columns = RowColumns(*(np.zeros(32) for _ in range(4)))
    ShardWriter(tmp_path / "s.h5", columns, {"resid_post.0": 4}, "bfloat16")
    with pytest.raises(StoreError, match="never finished"):
        Shard.open(tmp_path / "s.h5")


def test_row_that_was_never_written_is_an_error(tmp_path):
    columns = RowColumns(*(np.ones(32) for _ in range(4)))
    writer = ShardWriter(tmp_path / "s.h5", columns, {"resid_post.0": 4}, "bfloat16")
    writer.write("resid_post.0", np.arange(31), torch.ones(31, 4))
    with pytest.raises(StoreError, match=r"1 rows of resid_post\.0 were never written"):
        writer.finish({})


def test_rows_that_did_not_reach_the_disk_are_an_error(tmp_path):
    columns = RowColumns(*(np.ones(32) for _ in range(4)))
    writer = ShardWriter(tmp_path / "s.h5", columns, {"resid_post.0": 4}, "bfloat16")
    writer.write("resid_post.0", np.arange(32), torch.ones(32, 4))
    writer._rows["resid_post.0"][5] = 0
    with pytest.raises(StoreError, match="differ from those captured"):
        writer.finish({})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_value_that_is_not_finite_stops_the_harvest(tmp_path, bad):
    columns = RowColumns(*(np.ones(32) for _ in range(4)))
    writer = ShardWriter(tmp_path / "s.h5", columns, {"resid_post.0": 4}, "bfloat16")
    rows = torch.ones(32, 4)
    rows[17, 2] = bad
    with pytest.raises(StoreError, match=r"resid_post.0: a captured activation is not finite \(row 17"):
        writer.write("resid_post.0", np.arange(32), rows)


def test_shard_of_another_model_is_refused(tmp_path):
    make_shard(tmp_path / "s.h5")
    with pytest.raises(StoreError, match="weights_sha256 is 'w', expected 'other'"):
        Shard.open(tmp_path / "s.h5", {"weights_sha256": "other"})


def test_unknown_hook_and_row_are_named(tmp_path):
    make_shard(tmp_path / "s.h5")
    shard = Shard.open(tmp_path / "s.h5")
    with pytest.raises(StoreError, match=r"no hook 'resid_post.7', only resid_post.0, resid_post.1"):
        shard.read_rows("resid_post.7", 0, 1)
    with pytest.raises(StoreError, match="rows 0 to 99999 asked for, the file has 2560"):
        shard.read_rows(HOOK, 0, 99999)


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    make_shard(tmp_path / "0.h5", n_shards=2)
    make_shard(tmp_path / "1.h5", n_shards=2, shard=1, corpus_fingerprint="other")
    with pytest.raises(StoreError, match=r"1\.h5: corpus_fingerprint is 'other', but 'f'"):
        open_shards([tmp_path / "0.h5", tmp_path / "1.h5"])
    with pytest.raises(StoreError, match="0 of 2"):
        open_shards([tmp_path / "0.h5"])


def test_full_disk_is_said_before_a_row_is_written(tmp_path):
    """On a file system of 1 MiB, in a process of its own: a bus error would kill it."""
    if subprocess.run(["sh", "-c", "unshare --mount --map-root-user true"], capture_output=True).returncode:
        assert "CI" not in os.environ, "CI must be able to mount a small file system"
        pytest.skip("needs mount namespaces (Linux with unshare)")
    program = tmp_path / "program.py"
    paths = [str(Path(__file__).parent), str(Path("workflow").resolve())]
    program.write_text(
        f"import sys\nsys.path[:0] = {paths}\nfrom pathlib import Path\nfrom shards import make_shard\n"
        f"make_shard(Path({str(tmp_path)!r}) / 'small' / 's.h5', n_contexts=2000)\n"
    )
    (tmp_path / "small").mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}/small"
    script = f"{mount} && {sys.executable} {program}; status=$?; ls -A {tmp_path}/small; exit $status"
    done = subprocess.run(["unshare", "--mount", "--map-root-user", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "StoreError" in done.stderr
    assert "disk full: the file needs" in done.stderr
    assert "free some space" in done.stderr
    assert done.stdout.strip() == ""  # nothing is left behind


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 0b100]))


def _everything(path: Path):
    """All content that a reader can see."""
    shard = Shard.open(path)
    columns = [shard.tokens, shard.document, shard.position, shard.counted]
    hooks = [(shard.norms(n), shard.read_rows(n, 0, shard.n_rows).view(torch.uint16)) for n in shard.hooks]
    statistics = [str(shard.statistics(n)) for n in shard.hooks]
    return (
        [c.tobytes() for c in columns],
        [(a.tobytes(), b.numpy().tobytes()) for a, b in hooks],
        statistics,
        shard.identity,
    )
