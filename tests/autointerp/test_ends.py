"""Activating windows, planted latents, and the prediction from the token alone."""

import numpy as np
import pandas as pd
import pytest
from label_scene import GAMMA, SPACED, WIDTH, LabelScene
from latent_scene import TEXTS, random_tokens, write_codes

from atlas.autointerp.by_context import FACTS, fact_correlations
from atlas.autointerp.ceilings import score_planted
from atlas.autointerp.planted import ALL, MEANINGFUL, PLANTED_CLASSES, RANDOM, plant
from atlas.autointerp.scorers import words, words_in
from atlas.autointerp.told import share_of_latents, shares_of_planted
from atlas.autointerp.tools import Question, ScorerTools, Tools
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords, name_of

NARROW = 2  # at the scene's width nearly every window has every word


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Latent 0 fires strongly on gamma and weakly nearly everywhere."""
    folder, tokens = tmp_path_factory.mktemp("scene"), random_tokens(160)
    generator = np.random.default_rng(5)
    dense = np.zeros((len(tokens), 3), np.float32)
    dense[:, 0] = np.where(tokens == GAMMA, 1 + generator.random(len(tokens)), 0.2 * generator.random(len(tokens)))
    dense[:, 1] = (generator.random(len(tokens)) < 0.3) * (1 + generator.random(len(tokens)))
    dense[:, 2] = tokens == GAMMA  # all windows with gamma are equally strong
    dense[tokens == 0] = 0
    return LabelScene(folder, dense=dense, activating_share=0.1, test_examples=500, random_negatives=5000)


@pytest.fixture(scope="module")
def narrow(scene) -> ScorerTools:
    windows = Windows.of({"chat": scene.codes}, NARROW)
    tools = Tools(windows, WindowWords.find(windows, SPACED), SPACED, scene.tools.tokenizer, None, 0)
    return ScorerTools(tools, None, None)


def windows_with(scene, token: int) -> set[int]:
    return set(np.flatnonzero((scene.windows.tokens == token).any(1)).tolist())


def strongest(scene, windows) -> float:
    """Largest activation of latent 0 in the windows."""
    return float(scene.dense[scene.windows.start[windows][:, None] + np.arange(WIDTH), 0].max(initial=0))


def test_only_strong_windows_activate(scene):
    own = scene.examples().latents[0]
    assert set(own.test) | set(own.train) <= windows_with(scene, GAMMA)
    share = len(scene.windows) * 0.1
    assert len(own.test) <= share
    assert strongest(scene, own.negatives["random"]) <= own.test_activations.max(1).min()


def test_a_tie_is_not_cut(scene):
    own = scene.examples().latents[2]
    assert not set(own.negatives["random"]) & windows_with(scene, GAMMA)


def test_without_a_share_every_firing_activates(scene, monkeypatch):
    monkeypatch.setattr(scene, "settings", scene.settings.model_copy(update={"activating_share": None}))
    own = scene.examples().latents[0]
    assert strongest(scene, own.negatives["random"]) == 0


def test_words_are_found_in_labels_as_text_has_them():
    number = {word: index for index, word in enumerate(["the", ",", "run", "it's", "money"])}
    assert words_in("the, ,, run; promotes money", number) == [0, 1, 2, 4]
    assert words_in("Words about “money”.", number) == [4]
    assert words_in("it's unknown", number) == [3]


def test_rare_words_of_a_label_count_for_more(scene):
    score = words(ScorerTools(scene.tools, None, None))
    n_with = {word: len(windows_with(scene, TEXTS.index(word))) for word in ("gamma", "delta")}
    asked = np.arange(len(scene.windows))
    unmarked = np.zeros((len(asked), WIDTH), bool)
    (given,) = score([Question("gamma, delta", asked, unmarked)])
    weight = {word: -np.log(count / len(scene.windows)) for word, count in n_with.items()}
    for window in asked[:50]:
        present = {TEXTS[token] for token in scene.windows.tokens[window]}
        assert given[window] == pytest.approx(sum(weight[word] for word in weight if word in present))
    (nothing,) = score([Question("of no such word", asked, unmarked)])
    assert not nothing.any()


def test_the_token_tells_where_planted_latents_fire_and_nothing_of_random_ones(scene):
    found = fact_correlations([scene.codes], scene.windows, SPACED.texts, 0, 10)
    assert set(found) == set(FACTS)
    assert found["token"][2] > 0.3
    assert found["token"][0] > 0.3
    assert all(abs(values[1]) < 0.1 for values in found.values())


def test_each_fact_tells_where_a_latent_of_its_own_fires(tmp_path):
    """One latent per fact fires on it alone, with one activation: that fact has correlation 1, the others less."""
    tokens = random_tokens(160)
    texts = np.array([text.strip().lower() for text in SPACED.texts])
    following = np.roll(tokens, -1)
    letter, ending = np.array([text[:1] for text in texts]), np.array([text[-2:] for text in texts])
    fires = [
        tokens == GAMMA,
        following == GAMMA,
        letter[tokens] == "e",  # epsilon, eta
        ending[tokens] == "ta",  # beta, zeta, eta, theta, iota
    ]
    dense = np.stack(fires, axis=1).astype(np.float32)
    codes = write_codes(tmp_path / "facts.h5", dense, tokens)
    found = fact_correlations([codes], Windows.of({"chat": codes}, WIDTH), SPACED.texts, 0, 10)
    for place, fact in enumerate(FACTS):
        assert found[fact][place] == pytest.approx(1), fact
    assert found["next token"][0] < 0.2
    assert found["token"][1] < 0.2


def test_only_strong_firings_are_asked_for(tmp_path):
    """A latent fires weakly everywhere, and strongly on one token of 16: that token is most of its strongest tenth."""
    tokens = random_tokens(160)
    generator = np.random.default_rng(0)
    dense = np.where(tokens == GAMMA, 2.0, generator.uniform(0.1, 1.0, len(tokens))).astype(np.float32)[:, None]
    codes = write_codes(tmp_path / "weak.h5", dense, tokens)
    found = fact_correlations([codes], Windows.of({"chat": codes}, WIDTH), SPACED.texts, 0, 10)
    assert found["token"][0] > 0.6


def test_the_token_is_judged_on_other_documents(tmp_path):
    """A latent of one document is told by no token of the others."""
    tokens = random_tokens(160)
    dense = np.zeros((len(tokens), 2), np.float32)
    dense[:, 0] = 1.0 * (tokens == GAMMA)
    scene = LabelScene(tmp_path, dense=dense)
    training = scene.windows.training(0)
    rows = scene.windows.start[training][:, None] + np.arange(WIDTH)
    dense[rows.reshape(-1), 1] = 1.0 * (tokens[rows.reshape(-1)] == GAMMA)
    codes = write_codes(tmp_path / "half.h5", dense, tokens)
    found = fact_correlations([codes], Windows.of({"chat": codes}, WIDTH), SPACED.texts, 0, 10)["token"]
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])


def test_planted_latents_fire_where_they_should(scene, narrow):
    densities, windows = np.array([0.05, 0.1, 0.2]), narrow.tools.windows
    planted = plant([scene.codes], windows, narrow.tools.words, SPACED, densities, 4, 0)
    assert set(planted.classes) <= set(PLANTED_CLASSES)
    assert {"frequent_word", RANDOM} <= set(planted.classes)
    codes = planted.codes[0]
    n_tokens = windows.counted.sum()
    for index, name in enumerate(planted.classes):
        entries = codes.latents(index, index + 1)
        assert (np.diff(entries.row) > 0).all()
        strong = entries.row[entries.value >= 1]
        if name in ("frequent_word", "rare_word"):
            assert {name_of(TEXTS[token]) for token in scene.tokens[strong]} == {planted.meanings[index]}
        if planted.dense[index]:
            share = len(entries.row) / n_tokens
            assert share == pytest.approx(max(np.median(densities), len(strong) / n_tokens), abs=0.03)
    random = planted.members(RANDOM, False)
    shares = [len(codes.latents(index, index + 1).row) / n_tokens for index in random]
    assert shares == sorted(shares)
    assert len(random) == 4


def test_planted_words_reach_the_ceiling_and_random_firing_the_floor(scene, narrow):
    changed = {"window_tokens": NARROW, "scorers": ("words",), "test_examples": 50, "random_negatives": 50}
    settings = scene.settings.model_copy(update=changed)
    rows = score_planted([scene.codes], np.full(5, 0.2), narrow, settings, samples=50)
    by_class = {(row["class"], row["dense"], row["scorer"]): row["score"]["value"] for row in rows if row["score"]}
    for dense in (False, True):
        assert by_class["frequent_word", dense, "words"] > 0.9
        assert by_class["frequent_word", dense, "token"] > 0.5
    assert by_class[RANDOM, False, "words"] == pytest.approx(0.5, abs=0.1)
    assert by_class[RANDOM, False, "token"] == pytest.approx(0, abs=0.1)
    assert set(MEANINGFUL) >= {name for name, _, _ in by_class} - {RANDOM}


def test_planted_facts_are_told_by_their_own_fact_alone(scene):
    windows = Windows.of({"chat": scene.codes}, 4)
    words = WindowWords.find(windows, SPACED)
    planted = plant([scene.codes], windows, words, SPACED, np.full(5, 0.2), 6, 0)
    found = fact_correlations(planted.codes, windows, SPACED.texts, 0, 10)
    for name, fact, other in (("before_token", "next token", "token"), ("spelling", "first letter", "next token")):
        own = planted.members(name, False)
        assert len(own) == 6
        # How strongly a planted latent fires within its meaning is drawn: no fact tells which tenth is the strongest.
        assert (found[fact][own] > 0.15).all()
        assert (np.abs(found[other][own]) < 0.15).all()


def test_no_planted_latent_is_shown_to_a_language_model(scene, narrow):
    asking = {"explainers": ("lexical", "max_activation"), "scorers": ("words", "detection"), "window_tokens": NARROW}
    settings = scene.settings.model_copy(update=asking | {"planted": 2})
    rows = score_planted([scene.codes], np.full(5, 0.2), narrow, settings, samples=10)
    by_fact = {(None, fact) for fact in FACTS}
    assert {(row["explainer"], row["scorer"]) for row in rows} == {("lexical", "words")} | by_fact
    none = settings.model_copy(update={"planted": 0})
    assert not score_planted([scene.codes], np.full(5, 0.2), narrow, none, samples=10)


def planted_rows(scene, narrow, **changed) -> list[dict]:
    given = {"window_tokens": NARROW, "scorers": ("words",), "test_examples": 50, "random_negatives": 50} | changed
    return score_planted([scene.codes], np.full(5, 0.2), narrow, scene.settings.model_copy(update=given), samples=50)


def test_of_planted_words_all_are_told_and_of_random_firing_none(scene, narrow):
    limits = dict.fromkeys(FACTS, 0.3) | {"words": 0.9}
    found = shares_of_planted(planted_rows(scene, narrow), limits, "lexical")
    assert found["frequent_word"]["share"] == 1
    assert found[RANDOM]["share"] == 0
    assert found[ALL]["n"] == sum(own["n"] for name, own in found.items() if name not in (ALL, RANDOM))
    low, high = found[ALL]["interval"]
    assert low < found[ALL]["share"] <= high
    # Above any score, nothing tells.
    out_of_reach = shares_of_planted(planted_rows(scene, narrow), dict.fromkeys(limits, 1.0), "lexical")
    assert out_of_reach[ALL]["share"] == 0


def test_without_planted_latents_of_every_measure_the_share_is_not_known(scene, narrow):
    limits = dict.fromkeys(FACTS, 0.2) | {"words": 0.75, "detection": 0.6}
    assert shares_of_planted(planted_rows(scene, narrow), limits, "lexical") == {}
    del limits["detection"]
    assert shares_of_planted(planted_rows(scene, narrow), limits, "max_activation") == {}
    assert shares_of_planted([], limits, "lexical") == {}


def test_share_told_is_of_latents_that_fire_and_were_to_be_labelled():
    outcomes = pd.DataFrame(
        {
            "latent": range(6),
            "outcome": ["dead", "untested", "good", "noisy", "uninterpreted", "unscored"],
            "told_by": [None, None, "token", "words", None, "token"],
        }
    )
    found = share_of_latents(outcomes, pd.Series([0, 1, 2, 3, 4]))
    assert (found["n"], found["share"]) == (3, pytest.approx(2 / 3))
    assert share_of_latents(outcomes, pd.Series([0])) == {"n": 0, "share": None, "interval": None}
