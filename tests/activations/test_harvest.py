import numpy as np
import pytest
import torch

from atlas.activations.harvest import harvest_shard, shard_contexts
from atlas.activations.store import Shard
from atlas.activations.validate import violations
from atlas.config.data import Harvest
from atlas.corpora.tokens import TokenSplit
from atlas.errors import StoreError
from atlas.models.forward import capture
from tiny import prepare_and_load, tiny_llama

HOOKS = ["resid_post.0", "resid_post.1"]
HARVEST = Harvest(context_length=16, batch_contexts=4, train_tokens=480, eval_tokens=480, shard_tokens=320)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return prepare_and_load(tiny_llama(folder / "source"), folder / "prepared", n_layers=4)


def tokens(split: str) -> TokenSplit:
    ids = np.random.default_rng(0).integers(0, 50, (30, 16)).astype(np.uint32)
    document = np.repeat(np.arange(30, dtype=np.int32), 16).reshape(30, 16)
    counted = np.ones((30, 16), bool)
    counted[:, 0] = False
    return TokenSplit(ids, document, counted, f"fingerprint-{split}", "chat", split, 16)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_rows_are_the_activations_of_their_tokens(loaded, tmp_path, split):
    text = tokens(split)
    for number in range(2):
        harvest_shard(loaded, text, number, HARVEST, HOOKS, tmp_path / f"{number}.h5")
        shard = Shard.open(tmp_path / f"{number}.h5", {"weights_sha256": loaded.identity["weights_sha256"]})
        assert violations(tmp_path / f"{number}.h5") == []
        contexts = shard_contexts(text, number, HARVEST)
        assert len(contexts) == (20, 10)[number]
        expected = capture(loaded, torch.from_numpy(text.tokens[contexts].astype(np.int64)), HOOKS)
        # A context is recognised by its document, a place in it by its position, in whatever order rows are stored.
        place = (shard.document - contexts[0]) * 16 + shard.position
        assert sorted(place) == list(range(len(contexts) * 16))
        assert (shard.tokens == text.tokens[contexts].reshape(-1)[place]).all()
        assert (shard.counted == (shard.position != 0)).all()
        for hook in HOOKS:
            rows = shard.read_rows(hook, 0, shard.n_rows).float()
            wanted = expected[hook].flatten(0, 1)[torch.from_numpy(place)]
            assert torch.allclose(rows, wanted.bfloat16().float(), rtol=1e-2, atol=1e-4)
        in_order = (place == np.arange(len(place))).all()
        assert in_order == (split == "eval")


def test_same_inputs_give_the_same_file_content(loaded, tmp_path):
    shards = []
    for name in ("a", "b"):
        harvest_shard(loaded, tokens("train"), 0, HARVEST, HOOKS, tmp_path / f"{name}.h5")
        shards.append(Shard.open(tmp_path / f"{name}.h5"))
    one, two = shards
    assert one.identity == two.identity
    assert (one.tokens == two.tokens).all()
    for hook in HOOKS:
        assert torch.equal(*(shard.read_rows(hook, 0, shard.n_rows) for shard in shards))


def test_model_that_yields_nan_stops_and_leaves_nothing(loaded, tmp_path, monkeypatch):
    def broken(loaded, ids, hooks):
        captured = capture(loaded, ids, hooks)
        if len(ids) == 4:
            captured[HOOKS[1]] = captured[HOOKS[1]].clone()
            captured[HOOKS[1]][0, 3, 0] = float("nan")
        return captured

    monkeypatch.setattr("atlas.activations.harvest.capture", broken)
    with pytest.raises(StoreError, match=r"resid_post\.1: a captured activation is not finite \(row 3 of a batch"):
        harvest_shard(loaded, tokens("train"), 0, HARVEST, HOOKS, tmp_path / "s.h5")
    assert list(tmp_path.iterdir()) == []
