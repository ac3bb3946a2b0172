"""A planted truth is what its configuration says, the same each time, and its rows are what the truth says."""

import numpy as np
import pytest
from pydantic import ValidationError

from atlas.config.corpora import Corpus
from atlas.config.data import Model, ModelSpec
from atlas.config.planted import PlantedSource
from atlas.errors import DamagedFileError, SourceError
from atlas.models.load import load_model
from atlas.planted.draw import CHUNK_ROWS, Sampler
from atlas.planted.truth import Truth, make_truth, read_truth, write_truth

FREQUENT = {"law": "zipf", "highest": 0.4, "lowest": 0.02, "exponent": 0.5}
TREES = {
    "frequency": FREQUENT,
    "hierarchy": {"roots": 4, "branches": 3, "depth": 2, "scaled": True},
    "correlation": {"rank": 2, "scale": 0.5},
    "magnitude": {"law": "normal", "frequent": 2.0, "rare": 1.0, "spread": 0.1},
}


def source(n_features: int = 60, **keys) -> PlantedSource:
    return PlantedSource(kind="planted", n_features=n_features, **({"frequency": FREQUENT} | keys))


def planted_spec(**keys) -> ModelSpec:
    described = source(**keys).model_dump(mode="json")
    return ModelSpec(source=described, objective="none", dtype="float32", n_layers=1, d_model=16)


def drawn(truth: Truth, of: PlantedSource, rows: int, seed: int = 1, split: str = "train") -> np.ndarray:
    return np.concatenate([codes.toarray() for _, codes in Sampler(truth, of, seed, split).codes(0, rows)])


@pytest.mark.parametrize("keys", [{}, TREES, {"frequency": {"law": "constant", "highest": 0.1}}])
def test_features_fire_as_often_as_planned(keys):
    of = source(**keys)
    truth = make_truth(of, 16)
    rows = 4 * CHUNK_ROWS
    fires = drawn(truth, of, rows) > 0
    deviation = (fires.mean(0) - truth.frequency) / np.sqrt(truth.frequency * (1 - truth.frequency) / rows)
    assert np.abs(deviation).max() < 5
    assert truth.l0 == pytest.approx(truth.frequency.sum())


def test_directions_have_length_one_and_steps_push_them_apart():
    truth, spread = (make_truth(source(spread_steps=steps), 16).directions for steps in (0, 50))
    assert np.allclose(np.linalg.norm(truth, axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(spread, axis=1), 1, atol=1e-6)
    closest = [np.abs(rows @ rows.T - np.eye(60)).max() for rows in (truth, spread)]
    assert closest[1] < closest[0]


def test_children_fire_only_with_their_parent_and_never_two_of_a_family():
    of = source(**TREES)
    truth = make_truth(of, 16)
    fires = drawn(truth, of, CHUNK_ROWS) > 0
    families = truth.families()
    assert len(families) == 4 + 12
    for parent, children in families:
        assert not fires[~fires[:, parent]][:, children].any()
        assert fires[:, children].sum(1).max() <= 1
        assert truth.frequency[children].sum() <= truth.frequency[parent] + 1e-12


def test_a_scaled_child_has_the_strength_of_its_parent():
    of = source(**(TREES | {"magnitude": {"law": "normal", "frequent": 2.0, "rare": 2.0, "spread": 0.0}}))
    truth = make_truth(of, 16)
    assert np.unique(drawn(truth, of, CHUNK_ROWS)).tolist() == [0.0, 2.0]  # without spread every factor is 1
    varied = source(**TREES)
    truth = make_truth(varied, 16)
    codes = drawn(truth, varied, 4 * CHUNK_ROWS)
    child = int(truth.families()[0][1][0])
    both = codes[codes[:, child] > 0]
    assert np.corrcoef(both[:, child], both[:, truth.parent[child]])[0, 1] > 0.4


def test_factors_make_features_fire_together():
    of = source(correlation={"rank": 1, "scale": 0.9})
    truth = make_truth(of, 16)
    assert np.allclose(np.square(truth.loadings).sum(1), 0.9)
    together = np.corrcoef(drawn(truth, of, 2 * CHUNK_ROWS)[:, :8] > 0, rowvar=False)
    expected = np.sign(truth.loadings[:8] @ truth.loadings[:8].T)
    off = ~np.eye(8, dtype=bool)
    assert (np.sign(together)[off] == expected[off]).all()


def test_any_part_can_be_drawn_again_alone():
    of = source(**TREES)
    sampler = Sampler(make_truth(of, 16), of, 3, "eval")
    whole = np.concatenate([codes.toarray() for _, codes in sampler.codes(0, 2 * CHUNK_ROWS)])
    parts = list(sampler.codes(CHUNK_ROWS - 10, CHUNK_ROWS + 20))
    assert [(first, codes.shape[0]) for first, codes in parts] == [(CHUNK_ROWS - 10, 10), (CHUNK_ROWS, 20)]
    part = np.concatenate([codes.toarray() for _, codes in parts])
    assert (part == whole[CHUNK_ROWS - 10 : CHUNK_ROWS + 20]).all()
    for seed, split in ((4, "eval"), (3, "train")):
        assert (drawn(sampler.truth, of, CHUNK_ROWS, seed, split) != whole[:CHUNK_ROWS]).any()


def test_a_truth_survives_its_file_and_a_changed_bit_does_not(tmp_path):
    write_truth("planted", planted_spec(**TREES), tmp_path / "planted")
    truth, identity = read_truth(tmp_path / "planted")
    again = make_truth(source(**TREES), 16)
    for name in ("directions", "frequency", "parent", "given_parent", "mean", "loadings"):
        assert (getattr(truth, name) == getattr(again, name)).all()
    assert (identity["objective"], identity["d_model"]) == ("none", 16)
    path = tmp_path / "planted" / "truth.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises((SourceError, DamagedFileError), match=r"truth\.safetensors"):
        read_truth(tmp_path / "planted")


def test_a_planted_model_is_no_language_model(tmp_path):
    write_truth("planted", planted_spec(), tmp_path / "planted")
    with pytest.raises(SourceError, match="there is no language model and no text"):
        load_model(tmp_path / "planted", "cpu")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"scored_features": 61}, "there are 60 features"),
        ({"hierarchy": {"roots": 8, "branches": 4, "depth": 2}}, "hierarchy has 168 features"),
        ({"frequency": {"law": "constant", "highest": 0.01}}, "fire 0.6 at a time on average"),
        ({"frequency": {"law": "constant", "highest": 0.1, "lowest": 0.1}}, "lowest is 0.1; expected one unless"),
        ({"frequency": {"law": "zipf", "highest": 0.1, "lowest": 0.2, "exponent": 1}}, "must be at most highest"),
        ({"frequency": {"law": "zipf", "highest": 0.1, "lowest": 0.01}}, "expected one for 'zipf' alone"),
    ],
)
def test_truths_that_cannot_be_are_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        source(**keys)


def test_models_and_corpora_say_what_a_planted_one_has_not():
    described = source().model_dump(mode="json")
    harvest = {"context_length": 8, "train_tokens": 8, "eval_tokens": 8}
    keys = {"source": described, "objective": "none", "n_layers": 1, "d_model": 16, "harvest": harvest}
    assert Model(**keys, hooks=["resid_post.0"]).is_planted
    with pytest.raises(ValidationError, match="a planted source has one"):
        Model(**keys, hooks=["mlp_out.0"])
    with pytest.raises(ValidationError, match="a planted source has objective 'none'"):
        Model(**keys | {"objective": "causal_lm"}, hooks=["resid_post.0"])
    sample = {"kind": "planted_sample", "seed": 1}
    assert Corpus(source=sample).is_planted
    with pytest.raises(ValidationError, match="min_characters: about text"):
        Corpus(source=sample, min_characters=5)
