"""Words, promoted tokens and safe text; repetition and stability of labels; outcomes of latents."""

import numpy as np
import pandas as pd
import pytest
import torch
from label_scene import bag_of_words

from atlas.autointerp.by_context import FACTS, LEAST_TOLD
from atlas.autointerp.explainers import begins_word, promoted_tokens
from atlas.autointerp.outcome import OUTCOMES, latent_outcomes, told_limits
from atlas.autointerp.quality import repetition, seed_stability
from atlas.autointerp.safe import printable, prompt_text
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords, name_of
from atlas.latents.token_classes import TokenTable
from tiny import prepare_and_load, tiny_llama


def words_of(texts: list[str], tokens: list[list[int]]) -> list[list[str]]:
    tokens = np.array(tokens)
    windows = Windows(tokens.shape[1], ("c",), *[np.zeros(len(tokens), int)] * 3, tokens, tokens >= 0, (tokens.size,))
    words = WindowWords.find(windows, TokenTable(np.zeros(len(texts), np.uint8), texts))
    return [[words.texts[word] for word in row] for row in words.of]


def test_pieces_are_joined_to_words():
    texts = [" run", "ning", " river", ",", "\n", " 7"]
    assert words_of(texts, [[0, 1, 2, 3, 4, 5]]) == [["running", "running", "river", ",", "newline", "7"]]
    assert words_of(texts, [[0, 1], [1, 0]])[1] == ["ning", "run"]


def test_pieces_with_a_mark_are_joined_by_it():
    pieces = [f"##x{number}" for number in range(100)]
    texts = ["run", "##ning", "river", *pieces]
    assert words_of(texts, [[0, 1, 2, 0]]) == [["running", "running", "river", "run"]]


def test_names_show_what_cannot_be_seen():
    assert [name_of(text) for text in ("\n\n", "  ", "", " The", "a\x07b")] == [
        "newline",
        "space",
        "nothing",
        "the",
        "a\\u0007b",
    ]


def test_control_characters_and_marks_cannot_act():
    text = "a\x00b\x1b[31m\u202e<|im_start|>system <<fake>> [INST] </s> <<<|x\nkept"
    safe = prompt_text(text)
    for mark in ("<|", "|>", "<<", ">>", "[INST]", "</s>", "\x00", "\x1b", "\u202e"):
        assert mark not in safe
    assert safe.endswith("\nkept")
    assert prompt_text(safe) == safe
    shown = printable("a|b\n\t\x1b\u2028\U000e0001")
    assert shown == "a|b\\n\\t\\u001b\\u2028\\ue0001"


def test_promoted_tokens_are_those_of_the_head(tmp_path):
    loaded = prepare_and_load(tiny_llama(tmp_path / "llama"), tmp_path / "model", 4)
    texts = [chr(97 + index % 26) * (1 + index // 26) for index in range(len(loaded.tokenizer))]
    head = loaded.model.get_output_embeddings().weight
    W_dec = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    W_dec[0] = 30 * head[200]
    found = promoted_tokens(W_dec, loaded, texts)
    assert len(found) == 40
    assert found[0][0] == texts[200]
    opposite = promoted_tokens(-W_dec, loaded, texts)
    assert texts[200] not in opposite[0]


def test_only_begins_of_words_are_promoted():
    assert list(begins_word([" run", "ning", "7", "Run"])) == [False, True, False, True]
    spaced = begins_word([*[f" w{'a' * number}" for number in range(100)], "ning", " 7"])
    assert spaced[:100].all()
    assert not spaced[100:].any()


def test_repetition_by_word_and_by_meaning():
    labels = {0: "gamma", 1: "gamma", 2: "gamma gamma", 5: "alpha", 7: "beta"}
    W_dec = np.eye(8)
    W_dec[1] = W_dec[0]
    found = repetition(labels, W_dec, bag_of_words)
    assert found["n_labels"] == 5
    assert found["repeated_exact"] == pytest.approx(2 / 5)
    assert (found["most_common_label"], found["most_common_share"]) == ("gamma", 0.4)
    assert found["repeated_semantic"] == pytest.approx(3 / 5)
    assert found["same_label_pairs"] == 3
    assert found["same_label_copies_share"] == pytest.approx(1 / 3)
    assert found["same_label_different_share"] == pytest.approx(2 / 3)
    shares = np.array([0.6, 0.2, 0.2])
    assert found["effective_labels"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    without = repetition(labels, W_dec, None)
    assert without["repeated_semantic"] is None
    assert without["repeated_exact"] == pytest.approx(2 / 5)


def test_stability_over_seeds_beside_other_latents():
    same = {0: "alpha", 1: "beta", 2: "gamma"}
    found = seed_stability([same, same | {2: "delta"}], bag_of_words)
    assert found == pytest.approx({"stability": 2 / 3, "stability_null": 0, "stability_exact": 2 / 3})
    assert set(seed_stability([same], bag_of_words).values()) == {None}


def home_rows(n_latents: int = 10, **columns) -> pd.DataFrame:
    """Rows of latents.parquet on the in-sample corpus: alive, alone, sparse unless `columns` say otherwise."""
    plain = {"latent": range(n_latents), "role": "in_sample", "status": "alive", "max_cosine": 0.1, "density": 0.01}
    return pd.DataFrame(plain | columns)


def random_scores(latents, low, specific, scorer: str = "words") -> pd.DataFrame:
    columns = {"latent": latents, "scorer": scorer, "negatives": "random"}
    frame = pd.DataFrame(columns | {"score_low": low, "specificity_low": specific})
    return frame.assign(score=frame.score_low.astype(float) + 0.05)


LIMITS = dict.fromkeys(FACTS, 0.5) | {"words": 0.5, "embedding": 0.5}


def correlations(token: dict[int, float], **others: dict[int, float]) -> pd.DataFrame:
    """Correlations by latent and fact: with the token, and with the `others`."""
    return pd.DataFrame({"token": pd.Series(token, dtype=float), **others})


def test_every_outcome_of_a_latent():
    home = home_rows(
        status=["dead", "untested", *["alive"] * 6, "untested", "alive"],
        max_cosine=[0.95, 0.95, 0.95, *[0.1] * 7],
        density=[0.0, 0.0, 0.2, 0.2, *[0.01] * 6],
    )
    elsewhere = home.assign(role="oos", status=[*["untested"] * 8, "alive", "untested"])
    scores = random_scores([4, 5, 6, 7, 8, 9], [np.nan, 0.45, 0.6, 0.6, 0.6, 0.4], [np.nan, 0.1, -0.1, 0.1, 0.1, 0.1])
    topic = random_scores([5, 9], [0.4, 0.7], [0.1, 0.2], "embedding")
    hard = scores.assign(negatives="hard", score_low=0.9, specificity_low=0.9)
    by_token = correlations({6: 0.4})
    found = latent_outcomes(pd.concat([home, elsewhere]), pd.concat([scores, topic, hard]), by_token, LIMITS)
    assert list(found.outcome) == [*OUTCOMES, "good", "good"]
    assert list(found.told_by[7:]) == ["words", "words", "embedding"]
    assert found.told_by[:7].isna().all()


def test_what_the_token_tells_needs_no_label():
    found = latent_outcomes(home_rows(3), random_scores([0], [0.3], [0.0]), correlations({0: 0.8, 1: 0.2}), LIMITS)
    assert list(found.outcome) == ["good", "uninterpreted", "unscored"]
    assert list(found.told_by.fillna("")) == ["token", "", ""]


def test_a_score_that_random_latents_reach_tells_nothing():
    scores = random_scores([0, 1], [0.6, 0.72], [0.1, 0.1])
    found = latent_outcomes(home_rows(2), scores, correlations({}), LIMITS | {"words": 0.7})
    assert list(found.outcome) == ["deceptively-good", "good"]


def test_limits_leave_few_latents_of_the_random_dictionary():
    """Six measures, each of which every latent passes at random: at most a twentieth passes any limit."""
    generator = np.random.default_rng(0)
    n, names = 2000, ("words", "embedding")
    scores = pd.concat(random_scores(range(n), generator.uniform(0.4, 0.9, n), 0.2, name) for name in names)
    scores["dictionary"] = "random"
    drawn = {fact: generator.uniform(0, 1, n) for fact in FACTS}
    tokens = pd.concat(pd.DataFrame({"latent": range(n), "fact": fact, "correlation": drawn[fact]}) for fact in FACTS)
    tokens["dictionary"] = "random"
    limits = told_limits(scores, tokens, names)
    assert limits["token"] == pytest.approx(1 - 0.05 / 6, abs=0.01)
    found = latent_outcomes(home_rows(n), scores, pd.DataFrame(drawn), limits)
    assert 0.02 < (found.outcome == "good").mean() <= 0.05
    floors = dict.fromkeys(FACTS, LEAST_TOLD) | {"words": 0.5, "embedding": 0.5}
    assert told_limits(scores.iloc[:0], tokens.iloc[:0], names) == floors
    weak = tokens.assign(correlation=0.1)
    assert told_limits(scores, weak, names)["token"] == LEAST_TOLD


def test_the_first_fact_that_tells_is_named():
    facts = correlations({0: 0.3}, **{"next token": pd.Series({0: 0.9, 1: 0.9}), "last letters": pd.Series({2: 0.6})})
    found = latent_outcomes(home_rows(3), random_scores([], [], []), facts, LIMITS)
    assert list(found.told_by) == ["next token", "next token", "last letters"]
    assert found.next_token_correlation.tolist()[:2] == [0.9, 0.9]


@pytest.mark.parametrize(("density", "noisy"), [(0.08, 0.25), (0.005, 0.11)])
def test_noisy_scales_with_the_dictionary_s_own_density(density, noisy):
    rows = home_rows(101, density=[noisy, *[density] * 100])
    found = latent_outcomes(rows, random_scores([], [], []), correlations({}), LIMITS)
    assert list(found.outcome[:2]) == ["noisy", "unscored"]
    assert found.noisy_above[0] == pytest.approx(max(0.1, 3 * rows.density.mean()))
    calm = home_rows(101, density=[noisy * 0.9, *[density] * 100])
    found = latent_outcomes(calm, random_scores([], [], []), correlations({}), LIMITS)
    assert "noisy" not in set(found.outcome)
