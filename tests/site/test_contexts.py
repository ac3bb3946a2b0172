"""Contexts of planted firings, what becomes of text, what a direction promotes, and sentences of dials."""

import numpy as np
import pytest
import torch
from latent_scene import LENGTH, random_tokens, write_codes

from atlas.config.study import Taxonomy
from atlas.latents.token_classes import TokenTable
from atlas.models.load import load_model, load_tokenizer
from atlas.site.contexts import ContextSettings, Corpora
from atlas.site.dials import BAD, LOOK, OK, UNKNOWN
from atlas.site.logits import decoder_logits
from atlas.site.numbers import percent, short
from atlas.site.run import chosen_latents
from atlas.site.sae import SaeFacts, because
from atlas.site.text import SHADES, TokenPieces, highlighted, visible

SETTINGS = ContextSettings(top=3, strata=2, per_stratum=2, window_tokens=4)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Latent 0 fires on the fifth token of every context of two corpora, the stronger the later."""
    folder, codes = tmp_path_factory.mktemp("codes"), {}
    for number, name in enumerate(("chat", "news")):
        tokens = random_tokens(20, seed=number)
        dense = np.zeros((len(tokens), 2))
        dense[5::LENGTH, 0] = 1 + np.arange(20) + 100 * number
        dense[::LENGTH, 0] = 1000  # not counted
        codes[name] = write_codes(folder / f"{name}.h5", dense, tokens, contexts_per_document=2)
    return Corpora(codes)


def test_strongest_contexts_are_of_different_documents_and_uncounted_rows_are_none(planted):
    firings, silent = planted.firings()
    found = planted.contexts(firings, SETTINGS)
    top = [context for context in found if context.stratum == 0]
    assert [context.peak_value for context in top] == [120, 118, 116]  # 119 is of the same document as 120
    assert firings.largest == 120
    assert planted.contexts(silent, SETTINGS) == []


def test_strata_part_the_other_firings_in_halves_and_windows_stay_in_their_text(planted):
    firings = next(iter(planted.firings()))
    found = planted.contexts(firings, SETTINGS)
    strata = {number: [context for context in found if context.stratum == number] for number in (1, 2)}
    assert [len(own) for own in strata.values()] == [2, 2]
    assert strata[1][0].low > strata[2][0].high
    assert strata[1][0].share + strata[2][0].share == pytest.approx(37 / 40)
    for context in found:
        assert context.start == context.peak - 4
        assert len(context.values) == 9
        assert context.values[4] == context.peak_value
        assert context.start // LENGTH == (context.start + 8) // LENGTH
    counts, edges = firings.histogram()
    assert counts.sum() == 40
    assert edges[-1] == 120


def test_contexts_are_the_same_at_every_call(planted):
    firings = next(iter(planted.firings()))
    first, second = (planted.contexts(firings, SETTINGS) for _ in range(2))
    assert [context.peak for context in first] == [context.peak for context in second]


def test_invisible_characters_are_shown_by_number_and_text_is_left_alone():
    assert visible("a\u202eb\u200d\u2066\x00\ud800") == "a⟨U+202E⟩b⟨U+200D⟩⟨U+2066⟩⟨U+0000⟩⟨U+D800⟩"
    assert visible("a\n\tb") == "a↵⇥b"
    for text in ("plain <b>", "Grüße", "你好", "مرحبا", "🙂 é"):
        assert visible(text) == text


def test_tokens_that_are_parts_of_a_character_become_one_piece(scene):
    pieces = TokenPieces.of(scene.model, TokenTable.of(scene.model))
    tokens = scene.tokenizer.encode("é🙂a", add_special_tokens=False)
    assert [text for _, _, text in pieces.pieces(tokens)] == ["é", "🙂", "a"]
    values = [0, 0, 1.0, 4.0, 0, 2.0, 0]
    html = str(highlighted(pieces, tokens, values, 4.0, peak=3))
    assert html == f"é<i class=p data-{SHADES}=4>🙂</i>a"


def test_highlighted_text_is_escaped(scene):
    pieces = TokenPieces.of(scene.model, TokenTable.of(scene.model))
    tokens = scene.tokenizer.encode("<b>&\"'", add_special_tokens=False)
    html = str(highlighted(pieces, tokens, [1.0] * len(tokens), 1.0))
    assert "<b" not in html
    assert html.count("<i ") == len(tokens)
    assert "&lt;" in html
    assert "&amp;" in html


def test_word_pieces_get_their_spaces_back():
    table = TokenTable(np.full(3, 6), ["play", "##ing", "now"], [" play", "ing", " now"])
    assert [text for _, _, text in TokenPieces(None, table).pieces([0, 1, 2])] == [" play", "ing", " now"]


def test_a_latent_that_writes_a_tokens_output_vector_promotes_that_token(scene):
    loaded = load_model(scene.model, torch.device("cpu"))
    head = loaded.model.get_output_embeddings().weight.detach()
    norm = loaded.base.get_submodule(loaded.adapter.final_norm).weight.detach()
    vectors = torch.nn.functional.normalize((head - head.mean(0))[[40, 70]] / norm, dim=1)
    logits = decoder_logits(torch.stack([vectors[0], -vectors[1]]), loaded)
    assert logits.promoted[0, 0] == 40
    assert logits.suppressed[1, 0] == 70
    assert (np.diff(logits.promoted_values) <= 0).all()
    assert (np.diff(logits.suppressed_values) >= 0).all()
    assert logits.counts.sum(1).tolist() == [len(head)] * 2
    assert load_tokenizer(scene.model).decode([40])


def test_dials_of_a_sick_dictionary_say_so(scene):
    facts = SaeFacts.read(scene.results(0), "tiny/resid_post.0/chat/topk/seed-0")
    states = {dial.key: dial.state for dial in facts.dials("chat", 0, Taxonomy())}
    expected = {"explained": OK, "l0": OK, "dead": UNKNOWN, "redundancy": BAD, "copies": BAD, "stable": UNKNOWN}
    assert {key: states[key] for key in expected} == expected
    facts.metrics["corpora"]["chat"]["atlas"] |= {
        "dead_status": "dead",
        "dead_pct": 60.0,
        "explained_variance_regular": 0.3,
    }
    states = {dial.key: dial.state for dial in facts.dials("chat", 0, Taxonomy())}
    assert (states["dead"], states["explained"]) == (BAD, LOOK)


def test_a_verdict_in_words():
    rules = [
        {"rule": "unhealthy_dead_above", "value": 0.4, "threshold": 0.25},
        {"rule": "new", "value": 2, "threshold": 1},
    ]
    said = because({"rules": rules, "unknown": ["dense"]}, {})
    assert said == "40 % of its latents are dead (limit 25 %); new: 2 (limit 1). Not known: dense."


def test_pages_of_a_large_dictionary_are_drawn_by_chance_and_the_same_for_all_seeds():
    chosen = chosen_latents(1000, 10)
    assert len(chosen) == 10
    assert chosen != frozenset(range(10))
    assert chosen == chosen_latents(1000, 10)
    assert chosen_latents(10, None) == chosen_latents(10, 10) == frozenset(range(10))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.123456, "0.123"),
        (16384, "16,384"),
        (-2.5, "−2.50"),
        (1e-5, "1.0e−5"),
        (0.0, "0"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert short(value) == text


def test_shares_have_two_digits():
    assert [percent(value) for value in (0, 0.0012, 0.25, None)] == ["0 %", "0.12 %", "25 %", "–"]
