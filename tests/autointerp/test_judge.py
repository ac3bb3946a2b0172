"""Planted latents: a label that says what its latent does scores high, everything else at chance."""

import numpy as np
import pytest
from label_scene import WIDTH, LabelScene, planted
from latent_scene import random_tokens

from atlas.autointerp.judge import judge_labels
from atlas.statistics.auc import wins
from atlas.statistics.draws import drawn_auc, percentile_interval

SAMPLES = 200


def judge(scene: LabelScene, labels=None, scorer=None):
    examples = scene.examples()
    labels = scene.labels(examples) if labels is None else labels
    return judge_labels(
        labels,
        examples,
        range(len(labels)),
        scene.windows,
        scorer or scene.scorer,
        scene.settings,
        samples=SAMPLES,
        seed=0,
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> LabelScene:
    return LabelScene(tmp_path_factory.mktemp("scene"))


def test_label_names_the_word_that_a_latent_fires_on(scene):
    assert scene.labels(scene.examples())[0] == "gamma"


def test_planted_latent_scores_high_and_its_controls_at_chance(scene):
    rows = judge(scene).rows.set_index(["latent", "negatives"])
    for kind in ("random", "hard"):
        own = rows.loc[0, kind]
        assert own.score == 1
        assert own.specificity_low > 0.2
        assert own.blind == 0.5
        assert own.n_positives == own.n_negatives == scene.settings.test_examples


def test_answers_are_those_that_the_score_is_made_of(scene):
    judged = judge(scene)
    row = judged.rows.set_index(["latent", "negatives"]).loc[3, "hard"]
    answers = judged.answers[judged.answers.latent == 3]
    positive, negative = (answers.answer[answers.kind == kind].to_numpy() for kind in ("activating", "hard"))
    difference = positive[:, None] - negative
    assert ((difference > 0) + 0.5 * (difference == 0)).mean() == pytest.approx(row.score)
    fires = scene.dense[scene.windows.start[answers.window.to_numpy(int)][:, None] + np.arange(WIDTH), 3].any(1)
    assert (fires == (answers.kind == "activating")).all()


def test_latents_that_fire_at_random_score_half(scene):
    judged = judge(scene)
    others = judged.rows[(judged.rows.latent > 0) & (judged.rows.negatives == "random")]
    assert len(others) == 11
    inside = (others.score_low <= 0.5) & (others.score_high >= 0.5)
    assert inside.sum() >= 9  # 95 % intervals
    assert abs(others.score.mean() - 0.5) < 0.06


def test_swapped_labels_score_half(scene):
    labels = scene.labels(scene.examples())
    labels[0], labels[1] = "kappa", labels[0]
    rows = judge(scene, labels).rows.set_index(["latent", "negatives"])
    assert abs(rows.loc[0, "random"].score - 0.5) < 0.12
    assert rows.loc[0, "random"].specificity_low < 0.05


def test_replies_that_fail_count_as_undecided_and_never_raise_a_score(scene):
    def failing(questions):
        answers = scene.scorer(questions)
        for number, answer in enumerate(answers):
            answers[number] = np.where(np.arange(len(answer)) % 2, np.nan, answer)
        return answers

    whole, half = judge(scene).rows, judge(scene, scorer=failing).rows
    own = half[(half.latent == 0) & (half.negatives == "random")].iloc[0]
    assert own.failed_share == 0.5
    assert own.score == pytest.approx(0.5 + 0.5 * 0.25)
    assert (whole.failed_share == 0).all()


def test_too_few_examples_and_missing_labels_are_counted_with_their_reason(tmp_path):
    dense = planted(random_tokens(160), 6)
    dense[:, 1] = 0  # silent
    dense[:, 2] = 0
    dense[5::400, 2] = 1  # eight firings
    dense[:, 3] = 1  # never silent
    scene = LabelScene(tmp_path, dense=dense)
    labels = scene.labels(scene.examples())
    assert labels[1] is None
    labels[4] = None
    rows = judge(scene, labels).rows.set_index(["latent", "negatives"])
    reasons = rows.xs("random", level="negatives").reason
    assert reasons[1] == "no example for the explainer"
    assert reasons[2] == "fewer than 10 activating test examples"
    assert reasons[3] == "fewer than 10 random negatives"
    assert reasons[4] == "no label"
    assert reasons[[0, 5]].isna().all()
    assert rows[rows.reason.notna()].score.isna().all()


def test_means_over_latents_have_intervals_of_documents(scene):
    judged = judge(scene)
    mean = judged.means["random", "score"]
    rows = judged.rows[judged.rows.negatives == "random"]
    assert mean.value == pytest.approx(rows.score.mean())
    low, high = mean.interval
    assert low < mean.value < high
    assert high - low < (rows.score_high - rows.score_low).mean()


def test_auc_is_that_of_the_field():
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    high, low = generator.integers(0, 5, 30) + 1.0, generator.integers(0, 5, 20) + 0.0
    found = drawn_auc(wins(high, low), np.ones((30, 1)), np.ones((20, 1)))
    expected = roc_auc_score([1] * 30 + [0] * 20, np.concatenate([high, low]))
    assert found.value == pytest.approx(expected)
    assert found.draws[0] == pytest.approx(expected)
    doubled = drawn_auc(wins(high, low), np.eye(30)[:, :1] * 2, np.ones((20, 1)))
    assert doubled.draws[0] == pytest.approx(wins(high, low)[0].mean())


def test_draws_without_an_example_have_no_value_and_too_many_no_interval():
    won = wins(np.ones(2), np.zeros(2))
    empty = drawn_auc(won, np.array([[1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2)))
    assert np.isnan(empty.draws[1])
    assert empty.interval is None
    assert percentile_interval(np.append(np.full(99, 0.5), np.nan)) == [0.5, 0.5]
