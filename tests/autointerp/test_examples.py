"""Windows and examples: whole, of one document, disjoint, drawn from all strata, with negatives that are negative."""

import numpy as np
import pytest
from label_scene import GAMMA, LENGTH, WIDTH, LabelScene, planted
from latent_scene import random_tokens, write_codes

from atlas.autointerp.examples import matched_highlights, nearest_latents
from atlas.autointerp.judge import highlights_of
from atlas.autointerp.windows import Windows, firings
from atlas.errors import EvaluationError


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> LabelScene:
    return LabelScene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def examples(scene):
    return scene.examples()


def test_windows_are_whole_and_of_one_document_and_context(scene):
    rows = scene.windows.start[:, None] + np.arange(WIDTH)
    assert (np.ptp(scene.codes.document[rows], axis=1) == 0).all()
    assert (rows[:, 0] // LENGTH == rows[:, -1] // LENGTH).all()
    np.testing.assert_array_equal(scene.windows.tokens, scene.codes.tokens[rows])
    assert len(np.unique(rows)) == rows.size


def test_documents_that_end_inside_a_context_give_no_mixed_window(tmp_path):
    tokens = random_tokens(20)
    codes = write_codes(tmp_path / "chat.h5", np.ones((len(tokens), 1)), tokens)
    object.__setattr__(codes, "document", np.arange(len(tokens)) // 7)
    windows = Windows.of({"chat": codes}, WIDTH)
    assert (np.ptp(codes.document[windows.start[:, None] + np.arange(WIDTH)], axis=1) == 0).all()
    assert 20 <= len(windows) <= len(tokens) // 7


def test_repeated_text_is_used_once(tmp_path):
    tokens = np.tile(random_tokens(4), 5)
    codes = write_codes(tmp_path / "chat.h5", np.ones((len(tokens), 1)), tokens)
    assert len(Windows.of({"chat": codes}, WIDTH)) == 4 * LENGTH // WIDTH


def test_documents_too_short_for_a_window_are_refused(tmp_path):
    tokens = random_tokens(2)
    codes = write_codes(tmp_path / "chat.h5", np.ones((len(tokens), 1)), tokens)
    with pytest.raises(EvaluationError, match=r"no document has 21 tokens in one context, autointerp\.window_tokens"):
        Windows.of({"chat": codes}, LENGTH + 1)


def test_explainer_and_test_share_no_document(scene, examples):
    document = scene.windows.document
    for own in examples.latents:
        tested = np.concatenate([own.test, *own.negatives.values()])
        assert not set(document[own.train]) & set(document[tested])
    halves = [scene.windows.training(seed) for seed in (0, 1)]
    assert 0.4 < halves[0].mean() < 0.6
    assert (halves[0] != halves[1]).any()


def test_activations_are_those_of_the_codes(scene, examples):
    for own in examples.latents[:3]:
        for windows, values in ((own.train, own.train_activations), (own.test, own.test_activations)):
            rows = scene.windows.start[windows][:, None] + np.arange(WIDTH)
            np.testing.assert_allclose(values, scene.dense[rows, own.latent], rtol=1e-6)
            assert (values.max(1) > 0).all()
    np.testing.assert_array_equal(examples.n_firings, (scene.dense > 0).sum(0))


def test_explainer_sees_the_strongest_and_the_test_spans_all_strata(scene, examples):
    own, settings = examples.latents[1], scene.settings
    training = scene.windows.training(0)
    rows = scene.windows.start[:, None] + np.arange(WIDTH)
    strength = scene.dense[rows, 1].max(1)
    strongest = np.argsort(-np.where(training, strength, 0), kind="stable")[: settings.top_examples]
    assert set(strongest) <= set(own.train)
    candidates = np.sort(strength[~training & (strength > 0)])
    shares = np.searchsorted(candidates, np.sort(own.test_activations.max(1))) / len(candidates)
    counts = np.histogram(shares, settings.quantiles, (0, 1))[0]
    assert counts.min() >= settings.test_examples // settings.quantiles - 1


def test_negatives_are_silent_and_hard_ones_are_of_neighbours(tmp_path):
    tokens = random_tokens(160)
    W_dec = np.eye(12) + 0.0
    W_dec[3] = W_dec[1] + 0.5 * W_dec[2]
    W_dec[1, 2] = 0.4
    scene = LabelScene(tmp_path, dense=planted(tokens, 12), W_dec=W_dec, neighbours=1)
    nearest, cosines = nearest_latents(W_dec, 1)
    assert (nearest[1, 0], nearest[3, 0]) == (3, 1)
    own = scene.examples().latents[1]
    rows = scene.windows.start[:, None] + np.arange(WIDTH)
    for windows in own.negatives.values():
        assert len(windows) >= scene.settings.min_examples
        assert (scene.dense[rows[windows], 1] == 0).all()
    assert (scene.dense[rows[own.negatives["hard"]], 3].max(1) > 0).all()
    assert own.neighbour_cosine == pytest.approx(cosines[1, 0])


def test_a_rule_that_sees_highlights_but_no_label_stays_at_chance(examples):
    """Delphi 0.1.3 highlights place 24 of every negative: there such rules reach an AUC of .82."""
    from sklearn.metrics import roc_auc_score

    for own in examples.latents:
        marks = highlights_of(own.test_activations)
        copied = matched_highlights(marks, len(marks), np.random.default_rng(0))
        for rule in (lambda m: m.sum(1), lambda m: m @ np.arange(WIDTH), lambda m: m[:, 0]):
            scores = np.concatenate([rule(marks), rule(copied)]).astype(float)
            truth = np.repeat([1, 0], len(marks))
            assert roc_auc_score(truth, scores) == pytest.approx(0.5)


def test_firings_on_massive_activations_make_no_window_active(tmp_path):
    tokens = random_tokens(20)
    dense, massive = np.zeros((len(tokens), 2)), np.arange(len(tokens)) % LENGTH == 1
    dense[massive] = 1000
    dense[5, 0] = 1
    codes = write_codes(tmp_path / "chat.h5", dense, tokens, massive=massive)
    (found,) = firings([codes], Windows.of({"chat": codes}, WIDTH))
    assert (found.latent.tolist(), found.value.tolist()) == ([0], [1])
    n_massive = int((massive & codes.counted).sum())
    assert found.n_counted.tolist() == [n_massive + 1, n_massive] and n_massive


def test_blocks_of_any_size_give_the_same_firings(scene):
    whole = list(firings([scene.codes], scene.windows))
    single = list(firings([scene.codes], scene.windows, max_entries=1))
    assert len(whole) == 1
    assert len(single) == scene.codes.n_latents
    np.testing.assert_array_equal(whole[0].value, np.concatenate([block.value for block in single]))
    gamma = scene.codes.tokens[scene.windows.start[single[0].window] + single[0].place]
    assert set(gamma) == {GAMMA}
