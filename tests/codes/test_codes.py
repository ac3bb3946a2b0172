"""Codes files: round trip, refusal of what is damaged or foreign, and independence of how rows came in."""

import json

import h5py
import numpy as np
import pytest
import torch
from shards import make_shard

from atlas.activations.store import Shard
from atlas.codes.encode import EncodingInputs, encode_corpus, identity_of, random_dictionary, run_encoding
from atlas.codes.layout import IDENTITY
from atlas.codes.store import Codes
from atlas.codes.writer import CodeRows, CodesWriter
from atlas.errors import EvaluationError, StoreError
from atlas.evaluation.facts import TrainingFacts
from atlas.hook_points import SaeHooks
from atlas.training.sae import Sae, save_sae

HOOK = "resid_post.0"
CPU = torch.device("cpu")
ATTRIBUTES = dict.fromkeys(IDENTITY, "x") | {"context_length": 10}


def write(path, dense: np.ndarray, block_rows: int = 16) -> Codes:
    """A codes file of a dense (rows, latents) array."""
    n_rows = len(dense)
    rows = CodeRows(np.arange(n_rows), np.arange(n_rows) // 7, np.arange(n_rows) % 5 > 0, np.arange(n_rows) % 11 == 0)
    writer = CodesWriter(path, dense.shape[1], rows, block_rows)
    for first in range(0, n_rows, block_rows):
        row, latent = np.nonzero(dense[first : first + block_rows])
        writer.write(latent, row + first, dense[first + row, latent])
    writer.finish(ATTRIBUTES)
    return Codes.open(path)


def random_codes(n_rows: int = 100, n_latents: int = 23, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    dense = generator.random((n_rows, n_latents)).astype(np.float32) * (generator.random((n_rows, n_latents)) < 0.2)
    dense[:, 5] = 0  # a dead latent
    dense[:, 6] = 1 + np.arange(n_rows)  # one that always fires
    return dense


def to_dense(entries, n_rows: int, n_latents: int) -> np.ndarray:
    dense = np.zeros((n_rows, n_latents), np.float32)
    dense[entries.row, entries.first + entries.latent] = entries.value
    return dense


@pytest.mark.parametrize("block_rows", [1, 16, 100, 1000])
def test_round_trip(tmp_path, block_rows):
    dense = random_codes()
    codes = write(tmp_path / "c.h5", dense, block_rows)
    assert (codes.n_rows, codes.n_latents, codes.n_entries) == (100, 23, np.count_nonzero(dense))
    assert np.array_equal(to_dense(codes.latents(0, 23), 100, 23), dense)
    assert np.array_equal(codes.n_firings, np.count_nonzero(dense, axis=0))
    assert np.array_equal(codes.counted, np.arange(100) % 5 > 0)
    assert np.array_equal(codes.massive, np.arange(100) % 11 == 0)
    for latent in (0, 5, 6, 22):
        entries = codes.latents(latent, latent + 1)
        assert np.array_equal(entries.row, np.flatnonzero(dense[:, latent]))
        assert np.array_equal(entries.value, dense[entries.row, latent])


def test_reading_by_block_and_by_row_gives_the_same(tmp_path):
    dense = random_codes()
    codes = write(tmp_path / "c.h5", dense)
    joined = sum(to_dense(block, 100, 23) for block in codes.blocks(max_entries=150))
    assert np.array_equal(joined, dense)
    assert len(list(codes.blocks(max_entries=1))) == 23
    for start, stop in ((0, 100), (0, 16), (16, 48), (5, 6), (7, 93), (40, 40)):
        entries = codes.rows(start, stop)
        assert np.array_equal(to_dense(entries, 100, 23)[start:stop], dense[start:stop])
        assert len(entries.row) == np.count_nonzero(dense[start:stop])


def test_nothing_fires(tmp_path):
    codes = write(tmp_path / "c.h5", np.zeros((20, 4), np.float32))
    assert codes.n_entries == 0
    assert [len(block.row) for block in codes.blocks()] == [0]
    assert len(codes.rows(3, 9).row) == 0


def test_how_rows_were_blocked_is_immaterial(tmp_path):
    dense = random_codes()
    whole, parts = write(tmp_path / "a.h5", dense, 100), write(tmp_path / "b.h5", dense, 3)
    for name in ("row", "value", "indptr"):
        assert np.array_equal(getattr(whole.latents(0, 23), name), getattr(parts.latents(0, 23), name))


@pytest.mark.parametrize("place", ["row", "value", "starts", "tokens", "counted", "checksums/value"])
def test_flipped_bit_is_found(tmp_path, place):
    path = tmp_path / "c.h5"
    write(path, random_codes())
    with h5py.File(path, "r+") as file:
        values = file[place][...]
        raw = values.reshape(-1).view(np.uint8)
        raw[len(raw) // 2] ^= 4
        file[place][...] = values
    with pytest.raises(StoreError, match=r"c\.h5.*(checksum).*delete this file and run again"):
        list(Codes.open(path).blocks())


def test_every_flipped_bit_of_a_small_file_is_found_or_harmless(tmp_path):
    """Whatever byte is altered: an error that names the file, or the same codes."""
    dense = random_codes(30, 7)
    path = tmp_path / "c.h5"
    write(path, dense)
    good = path.read_bytes()
    for place in np.random.default_rng(0).choice(len(good), 150, replace=False):
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        try:
            found = to_dense(Codes.open(path).latents(0, 7), 30, 7)
        except StoreError as error:
            assert "c.h5" in str(error)
        else:
            assert np.array_equal(found, dense), place


def test_truncated_and_unfinished_files_are_refused(tmp_path):
    path = tmp_path / "c.h5"
    write(path, random_codes())
    good = path.read_bytes()
    path.write_bytes(good[: len(good) * 2 // 3])
    with pytest.raises(StoreError, match="truncated, altered"):
        Codes.open(path)
    path.write_bytes(good)
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(StoreError, match="never finished"):
        Codes.open(path)
    with pytest.raises(StoreError, match="no such codes file"):
        Codes.open(tmp_path / "other.h5")


def test_codes_of_another_sae_are_refused(tmp_path):
    write(tmp_path / "c.h5", random_codes())
    with pytest.raises(StoreError, match=r"sae_sha256 is 'x', expected 'y': these codes belong to something else"):
        Codes.open(tmp_path / "c.h5", {"sae_sha256": "y"})


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_value_that_is_no_code_stops_the_encoding(tmp_path, value):
    with pytest.raises(StoreError, match=r"latent 3 is .* on row 1"):
        dense = np.ones((4, 5), np.float32)
        dense[1, 3] = value
        write(tmp_path / "c.h5", dense)


def test_a_block_is_missing(tmp_path):
    rows = CodeRows(*[np.zeros(20)] * 4)
    writer = CodesWriter(tmp_path / "c.h5", 3, rows, 16)
    writer.write(np.array([0]), np.array([2]), np.array([1.0]))
    with pytest.raises(StoreError, match="1 blocks of rows were written, expected 2"):
        writer.finish(ATTRIBUTES)


class Scene:
    """An SAE, train and eval shards of two contexts' length, on disk."""

    def __init__(self, folder):
        self.folder = folder
        generator = torch.Generator().manual_seed(3)
        self.W_dec = torch.nn.functional.normalize(torch.randn(40, 16, generator=generator), dim=1)
        self.sae = Sae("topk", self.W_dec.T.contiguous(), torch.zeros(40), self.W_dec, torch.zeros(16), k=4)
        save_sae(self.sae, folder / "sae", {"model_name": "tiny", "hook_name": HOOK})
        (folder / "chat").mkdir()
        make_shard(folder / "chat/train-000.h5", 8)
        self.rows = [
            make_shard(folder / f"chat/eval-00{i}.h5", 8, seed=i + 1, split="eval", shard=i, n_shards=2)[HOOK]
            for i in range(2)
        ]
        self.inputs = EncodingInputs(
            folder / "sae", [folder / "chat/train-000.h5"], [folder / f"chat/eval-00{i}.h5" for i in range(2)]
        )

    def encode(self, **changes):
        targets = {"target": self.folder / "c.h5", "random_target": self.folder / "random.h5"}
        run_encoding(self.inputs, **({"hook": HOOK, "seed": 0, "device": CPU} | targets | changes))
        return Codes.open(self.folder / "c.h5"), Codes.open(self.folder / "random.h5")


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def test_encoding_is_the_inference_path_of_all_rows(scene):
    codes, random = scene.encode()
    dense = scene.sae.encode(torch.cat(scene.rows).float()).numpy()
    found = to_dense(codes.latents(0, 40), 512, 40)
    assert np.array_equal(found > 0, dense > 0)
    np.testing.assert_allclose(found, dense, rtol=1e-5)
    assert (np.count_nonzero(to_dense(random.latents(0, 40), 512, 40), axis=1) <= 4).all()
    assert (codes.identity["dictionary"], random.identity["dictionary"]) == ("sae", "random")
    assert (
        codes.identity["sae_sha256"]
        == random.identity["sae_sha256"]
        == identity_of(scene.folder / "sae", HOOK, 0)["sae_sha256"]
    )
    assert np.array_equal(codes.massive, np.tile(np.arange(32) % 16 == 0, 16))
    assert json.loads(codes.identity["massive_norms"])[0] > 0
    assert not list(scene.folder.glob("*.tmp"))


def test_blocks_of_rows_are_immaterial(scene):
    codes, _ = scene.encode()
    shards = [Shard.open(path) for path in scene.inputs.shards]
    training = TrainingFacts.of({"chat": [Shard.open(scene.inputs.train_shards[0])]}, HOOK)
    target = scene.folder / "parts.h5"
    encode_corpus(
        {"sae": (target, scene.sae)}, SaeHooks.parse(HOOK), shards, training, {"sae_sha256": "", "hook": "", "seed": 0},
        CPU, block_rows=50,
    )  # fmt: skip
    whole, parts = codes.latents(0, 40), Codes.open(target).latents(0, 40)
    assert np.array_equal(whole.row, parts.row)
    assert np.array_equal(whole.indptr, parts.indptr)
    np.testing.assert_allclose(whole.value, parts.value, rtol=1e-5)


def test_random_dictionary_is_the_one_of_the_evaluation(scene):
    training = TrainingFacts.of({"chat": [Shard.open(scene.inputs.train_shards[0])]}, HOOK)
    random = random_dictionary(scene.sae, training, 7)
    assert torch.equal(random.W_dec, random_dictionary(scene.sae, training, 7).W_dec)
    torch.testing.assert_close(random.b_dec, training.source.mean.float())


def test_sae_of_another_hook_model_or_split_is_refused(scene):
    with pytest.raises(EvaluationError, match=r"hook_name is 'resid_post\.0', expected 'resid_post\.1'"):
        scene.encode(hook="resid_post.1")
    save_sae(scene.sae, scene.folder / "sae", {"model_name": "other", "hook_name": HOOK})
    with pytest.raises(EvaluationError, match=r"model is 'tiny', but .* was trained on 'other'"):
        scene.encode()
    save_sae(scene.sae, scene.folder / "sae", {"model_name": "tiny", "hook_name": HOOK})
    scene.inputs = EncodingInputs(scene.inputs.sae, scene.inputs.train_shards, scene.inputs.train_shards)
    with pytest.raises(EvaluationError, match="split is 'train', expected 'eval'"):
        scene.encode()


def test_failed_encoding_leaves_nothing(scene):
    with h5py.File(scene.inputs.shards[1], "r+") as file:
        file[f"hooks/{HOOK}/activations"][200, 3] ^= 7
    with pytest.raises(StoreError, match=r"eval-001\.h5"):
        scene.encode()
    assert not list(scene.folder.glob("*.h5*"))
