"""Contexts of planted firings, what becomes of text, what a direction promotes, and sentences of dials."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latent_scene import LENGTH, random_tokens, write_codes
from site_scene import HOOK
from site_scene import SETTINGS as SITE

from atlas.autointerp.explainers import promoted_tokens
from atlas.autointerp.words import name_of
from atlas.config.study import Taxonomy
from atlas.latents.token_classes import TokenTable
from atlas.models.load import load_model, load_tokenizer
from atlas.site.contexts import ContextSettings, Corpora
from atlas.site.dials import BAD, LOOK, OK, UNKNOWN
from atlas.site.latent import latent_page, promoted_text
from atlas.site.logits import decoder_logits
from atlas.site.numbers import percent, short
from atlas.site.run import SaePageContext, _scene, chosen_latents
from atlas.site.sae import SaeFacts, because
from atlas.site.text import SHADES, TokenPieces, highlighted, visible
from atlas.training.sae import load_sae

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


def test_no_document_is_shown_twice_while_there_are_others(planted):
    """Twenty documents of two firings each; seven contexts."""
    found = planted.contexts(next(iter(planted.firings())), SETTINGS)
    documents = [(context.corpus, int(planted.codes[context.corpus].document[context.peak])) for context in found]
    assert len(found) == len(set(documents)) == 7
    assert not [context for context in found if context.again]


def test_a_document_that_has_to_be_shown_again_says_so(planted):
    firings = next(iter(planted.firings()))
    found = planted.contexts(firings, ContextSettings(top=18, strata=2, per_stratum=3, window_tokens=4))
    strata = [context for context in found if context.stratum]
    assert len(strata) == 6
    documents = [(context.corpus, int(planted.codes[context.corpus].document[context.peak])) for context in found]
    repeated = [documents[place] in documents[:place] for place in range(len(found))]
    assert [context.again for context in found] == repeated
    assert repeated.count(False) == 20  # every document comes once before one comes again
    assert len(set(zip(documents, [context.peak for context in found], strict=True))) == len(found)


def test_massive_rows_take_neither_contexts_nor_shading_of_the_others(tmp_path, scene):
    tokens = random_tokens(20)
    dense, massive = np.zeros((len(tokens), 2)), np.zeros(len(tokens), bool)
    dense[5::LENGTH, 0] = 1 + np.arange(20)
    dense[6::LENGTH, 0], massive[6::LENGTH] = 5000, True
    dense[6::LENGTH, 1] = 7
    corpora = Corpora({"chat": write_codes(tmp_path / "chat.h5", dense, tokens, massive=massive)})
    firings, only_massive = corpora.firings()
    assert (firings.largest, firings.shade_scale) == (5000, 20)
    assert only_massive.shade_scale == 7
    found = corpora.contexts(firings, SETTINGS)
    assert {context.peak % LENGTH for context in found} == {5}
    assert {context.peak % LENGTH for context in corpora.contexts(only_massive, SETTINGS)} == {6}  # there are no others
    context = found[0]
    assert set(context.values[context.massive]) == {5000}
    assert context.massive.tolist() == [row % LENGTH == 6 for row in range(context.start, context.start + 9)]
    pieces = SimpleNamespace(pieces=lambda ids: [(n, n + 1, "ab"[n]) for n in range(2)], special=np.zeros(9, bool))
    shaded = highlighted(pieces, [0, 1], [20.0, 5000.0], firings.shade_scale, 1, [False, True])
    assert shaded == f'<i data-{SHADES}=20>a</i><i class="p m" data-{SHADES}=5e+03>b</i>'
    assert highlighted(pieces, [0, 1], [10.0, 0.0], firings.shade_scale, 1) == "<i data-5=10>a</i>b"


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


def test_a_page_lists_the_promoted_tokens_that_its_label_names(tmp_path, scene):
    """Labels take logits in standard deviations over the latents; raw ones would begin with other tokens."""
    loaded = load_model(scene.model, torch.device("cpu"))
    page = _scene(scene.inputs(0), SaePageContext(HOOK, 0, (), ()), SITE)
    W_dec = load_sae(scene.sae(0)).W_dec
    labelled = promoted_tokens(W_dec, loaded, page.promoted.texts)
    raw = decoder_logits(W_dec, loaded)
    differ = 0
    for latent, firings in enumerate(page.corpora.firings()):
        values = latent_page(page, firings)
        shown = [name_of(page.promoted.texts[token]) for token in page.promoted.raised[latent]]
        assert tuple(dict.fromkeys(shown))[:10] == labelled[latent]
        assert [name_of(token) for token, _ in values["promoted"]] == list(labelled[latent])
        assert [name_of(text) for text in promoted_text(page, latent)] == list(labelled[latent][:5])
        differ += name_of(page.promoted.texts[raw.promoted[latent, 0]]) != labelled[latent][0]
        lowered = [float(value.replace("−", "-")) for _, value in values["suppressed"]]
        assert lowered == sorted(lowered)
    assert differ > 0


@pytest.mark.parametrize(
    ("value", "state"),
    [(-0.06, BAD), (0.0, BAD), (0.04, BAD), (0.5, LOOK), (0.89, LOOK), (0.9, OK), (0.97, OK), (None, UNKNOWN)],
)
def test_recovered_loss_is_fine_only_where_it_is(scene, value, state):
    facts = SaeFacts.read(scene.results(0), "tiny/resid_post.0/chat/topk/seed-0")
    facts.metrics["corpora"]["chat"]["atlas"]["loss_recovered_mean_regular"] = value
    dial = next(dial for dial in facts.dials("chat", 0, Taxonomy()) if dial.key == "recovered")
    assert (dial.value, dial.state) == (value, state)


def test_dials_of_a_sick_dictionary_say_so(scene):
    facts = SaeFacts.read(scene.results(0), "tiny/resid_post.0/chat/topk/seed-0")
    states = {dial.key: dial.state for dial in facts.dials("chat", 0, Taxonomy())}
    expected = {"explained": OK, "l0": OK, "dead": UNKNOWN, "copies": BAD, "stable": UNKNOWN}
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
