"""Intruders: found where what a latent fires on is alike, at chance by whoever does not look at the text."""

import json

import numpy as np
import pytest
from label_scene import WIDTH, LabelScene, bag_of_words, planted
from latent_scene import random_tokens
from loopback_server import Server, said
from pydantic import ValidationError

from atlas.autointerp.clients import WordsClient
from atlas.autointerp.cost import cost
from atlas.autointerp.examples import NEGATIVES
from atlas.autointerp.intruder import draw_trials, judge_intruders
from atlas.autointerp.intruder_scorers import intruder, intruder_embedding, read_pick
from atlas.autointerp.judge import LabelResults, highlights_of
from atlas.autointerp.protocol import NoReplyError, Reply
from atlas.autointerp.summary import summarise
from atlas.autointerp.tools import ScorerTools
from atlas.config.autointerp import Autointerp
from atlas.statistics.intervals import rate_interval

CHANCE = 1 / 5


def judge(scene: LabelScene, scorer, chosen=None):
    examples = scene.examples()
    chosen = range(len(examples.latents)) if chosen is None else chosen
    return judge_intruders(examples, chosen, scene.windows, scorer, scene.settings, samples=200, seed=0)


def asking(scene: LabelScene, client):
    return intruder(ScorerTools(scene.tools.__class__(**{**vars(scene.tools), "client": client}), None, None))


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> LabelScene:
    return LabelScene(tmp_path_factory.mktemp("scene"))


def gamma_or_not(texts) -> np.ndarray:
    return np.array([[1.0, 0.0] if "gamma" in text.split() else [0.0, 1.0] for text in texts])


def test_planted_latent_is_found_by_words_and_by_embedding_and_others_at_chance(scene):
    by_words = asking(scene, WordsClient())
    by_embedding = intruder_embedding(ScorerTools(scene.tools, gamma_or_not, None))
    for scorer in (by_words, by_embedding):
        rows = judge(scene, scorer).rows
        own, others = rows[rows.latent == 0], rows[rows.latent > 0]
        assert own.score.tolist() == [1, 1]
        assert own.score_low.tolist() == pytest.approx([0.025 ** (1 / 10)] * 2)
        assert set(own.n_trials) == {10}
        low, high = rate_interval(round((others.score * others.n_trials).sum()), others.n_trials.sum())
        assert low < CHANCE < high


def test_embedding_takes_the_window_that_is_farthest_from_the_others(scene):
    rows = judge(scene, intruder_embedding(ScorerTools(scene.tools, bag_of_words, None)), [0]).rows
    assert (rows.score_low > CHANCE).all()
    assert (rows.failed_share == 0).all()


@pytest.mark.parametrize("place", [0, 4])
def test_who_always_names_one_place_is_at_chance(scene, place):
    judged = judge(scene, lambda lineups: np.full(len(lineups), place))
    rows = judged.rows
    low, high = rate_interval(round((rows.score * rows.n_trials).sum()), rows.n_trials.sum())
    assert low < CHANCE < high
    for kind in NEGATIVES:
        low, high = judged.means[kind, "score"].interval
        assert low < CHANCE < high


@pytest.mark.parametrize("rule", [np.argmax, np.argmin])
def test_the_pattern_of_highlights_tells_nothing(scene, rule):
    found = []
    for own in scene.examples().latents:
        for seed in range(10):
            trials = draw_trials(own, "hard", 5, seed)
            weights = [lineup.highlights @ np.arange(1, WIDTH + 1) for lineup in trials.lineups]
            found += [rule(each) == place for each, place in zip(weights, trials.places, strict=True)]
    low, high = rate_interval(sum(found), len(found))
    assert low < CHANCE < high
    assert len(found) == 1200


def test_a_trial_has_one_silent_window_and_no_window_comes_twice(scene):
    own = scene.examples().latents[3]
    strength = dict(zip(own.test, own.test_activations.max(1), strict=True))
    patterns = {pattern.tobytes() for pattern in highlights_of(own.test_activations)}
    for kind in NEGATIVES:
        trials = draw_trials(own, kind, 5, 0)
        shown = np.concatenate([lineup.windows for lineup in trials.lineups])
        assert len(shown) == len(set(shown)) == 50
        assert set(trials.intruders) <= set(own.negatives[kind])
        spans = []
        for lineup, place in zip(trials.lineups, trials.places, strict=True):
            silent = [window not in strength for window in lineup.windows]
            assert silent == [number == place for number in range(5)]
            assert {pattern.tobytes() for pattern in lineup.highlights} <= patterns
            spans.append(np.ptp([strength[window] for window in np.delete(lineup.windows, place)]))
        assert np.mean(spans) < np.ptp(list(strength.values())) / 4  # of like strength


def no_reply(request):
    raise NoReplyError("nothing")


class Answering(WordsClient):
    def __init__(self, answer):
        self.answer = answer

    def complete(self, request):
        return self.answer(request)


@pytest.mark.parametrize("answer", [lambda request: Reply("the second, I think"), no_reply])
def test_replies_without_an_answer_are_counted_and_never_raise_a_score(scene, answer):
    rows = judge(scene, asking(scene, Answering(answer)), [0]).rows
    assert rows.failed_share.tolist() == [1, 1]
    assert rows.score.tolist() == [0, 0]
    assert rows.n_trials.tolist() == [10, 10]


def test_half_of_the_replies_lost_is_half_of_the_intruders_found(scene):
    asked, words = [], WordsClient()

    def half(request):
        asked.append(request)
        return Reply("[9]") if len(asked) % 2 else words.complete(request)

    judged = judge(scene, asking(scene, Answering(half)), [0])
    assert judged.rows.failed_share.tolist() == [0.5, 0.5]
    assert judged.rows.score.tolist() == [0.5, 0.5]
    row = summarise(found_in(judged, judged), scene.windows, scene.settings)["rows"][0]
    assert row["score_of_answered"] == 1
    assert row["failed_share"] == 0.5
    assert row["all_trials"]["value"] == 0.5


@pytest.mark.parametrize(
    ("text", "pick"),
    [
        ("[2]", 1),
        (" 3. ", 2),
        ("It is [4].", 3),
        ("[2] or rather [2]", 1),
        ("[2] or [3]", -1),
        ("[6]", -1),
        ("[0]", -1),
        ("2 and 3", -1),
        ("", -1),
    ],
)
def test_replies_are_read_strictly(text, pick):
    assert read_pick(Reply(text), 5) == pick
    assert read_pick(None, 5) == -1


def test_a_server_is_asked_by_the_protocol_and_held_to_one_of_the_places(scene):
    server = Server()
    try:
        server.script = [said("[3]")]
        rows = judge(scene, asking(scene, server.client(structured=True)), [0, 1]).rows
        body = server.asked[0][1]
    finally:
        server.stop()
    assert rows.failed_share.tolist() == [0] * 4
    schema = body["response_format"]["json_schema"]["schema"]
    assert (schema["minItems"], schema["maxItems"], schema["items"]["enum"]) == (1, 1, [1, 2, 3, 4, 5])
    system, user = (message["content"] for message in body["messages"])
    assert "one of the 5 numbered examples" in system
    assert [line[:10] for line in user.split("\n")] == [f"Example {number}:" for number in range(1, 6)]
    assert "Label" not in json.dumps(body)


def test_too_few_windows_are_counted_with_their_reason(tmp_path):
    dense = planted(random_tokens(160), 5)
    dense[:, 1] = 0  # silent
    dense[:, 2] = 1  # never silent
    scene = LabelScene(tmp_path, dense=dense)
    rows = judge(scene, lambda lineups: np.zeros(len(lineups), int)).rows.set_index(["latent", "negatives"])
    reasons = rows.xs("random", level="negatives").reason
    assert reasons[1] == "fewer than 10 activating test examples"
    assert reasons[2] == "fewer than 10 random negatives"
    assert reasons[[0, 3, 4]].isna().all()
    assert rows[rows.reason.notna()].score.isna().all()


def found_in(sae, random) -> dict[str, LabelResults]:
    return {
        kind: LabelResults(
            np.full(12, 9), {"token": np.full(12, 0.6)}, 12, 12, judged.rows, {(None, "intruder"): judged}, {}
        )
        for kind, judged in (("sae", sae), ("random", random))
    }


def test_table_says_which_controls_are_beaten(scene):
    right = dict(places(scene))
    perfect = judge(scene, lambda lineups: np.array([right[own.windows.tobytes()] for own in lineups]))
    blind = judge(scene, lambda lineups: np.zeros(len(lineups), int))
    rows = summarise(found_in(perfect, blind), scene.windows, scene.settings)["rows"]
    row = next(row for row in rows if row["dictionary"] == "sae")
    assert (row["explainer"], row["scorer"], row["chance"]) == (None, "intruder", CHANCE)
    assert row["score"]["value"] == row["share_above_chance"] == row["coverage"] == 1
    assert row["n_trials"] == 12 * 10
    assert row["all_trials"]["interval"] == pytest.approx([float(rate_interval(120, 120)[0]), 1])
    assert row["beats"] == ["chance", "random dictionary"]
    assert row["over_random"]["value"] == pytest.approx(1 - row["random_score"])
    same = summarise(found_in(blind, blind), scene.windows, scene.settings)["rows"][0]
    assert same["verdict"] == "does not beat chance, random dictionary"
    assert (row["share_specific"], row["shuffled"]["value"]) == (None, None)


def places(scene):
    for own in scene.examples().latents:
        for kind in NEGATIVES:
            trials = draw_trials(own, kind, 5, 0)
            for lineup, place in zip(trials.lineups, trials.places, strict=True):
                yield lineup.windows.tobytes(), place


def test_an_intruder_scorer_decides_on_no_label_and_only_the_one_without_a_model_asks_nobody():
    with pytest.raises(ValidationError, match="scorers begin with 'intruder_embedding': the first decides on labels"):
        Autointerp(scorers=("intruder_embedding", "embedding"))
    with pytest.raises(ValidationError, match="intruder ask a language model"):
        Autointerp(scorers=("embedding", "intruder"))
    settings = Autointerp(scorers=("embedding", "intruder_embedding"))
    assert (settings.label_scorers, settings.intruder_scorers) == (("embedding",), ("intruder_embedding",))


def test_as_many_requests_as_were_estimated(scene):
    asked = []

    def answer(request):
        asked.append(request)
        return Reply("[1]")

    judge(scene, asking(scene, Answering(answer)))
    settings = scene.settings.model_copy(update={"scorers": ("embedding", "intruder")})
    estimated = cost(settings, 12)
    assert estimated.requests == 2 * len(asked) == 2 * 12 * 20
    said_tokens = sum(len(content) for request in asked for _, content in request.messages) / 4
    assert estimated.tokens > 2 * said_tokens
