"""The same tokens in other surroundings: planted changes are measured, and texts that differ are refused."""

import numpy as np
import pytest
import torch
from finance_scene import WIDTH, corpus, one_hot_sae

from atlas.errors import EvaluationError
from atlas.finance.template import TemplateTotals, match_tokens, rows_moved
from atlas.statistics.clusters import half_width

N_DOCUMENTS, LENGTH = 30, 12


def plain(seed: int = 0):
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 1000, N_DOCUMENTS * LENGTH)
    rows = np.zeros((len(tokens), WIDTH))
    rows[np.arange(len(tokens)), generator.integers(0, WIDTH, len(tokens))] = 1 + generator.random(len(tokens))
    return rows, tokens, np.repeat(np.arange(N_DOCUMENTS), LENGTH)


def wrapped(rows, tokens, document, before=(7, 8, 9), after=(5,), cut=None, name="rewritten"):
    """The documents with tokens before and after each, whose rows are large; cut off after `cut` rows."""
    out = [[], [], []]
    for number in np.unique(document):
        own = document == number
        for part, values in zip(
            out,
            (
                np.concatenate([np.full((len(before), WIDTH), 50.0), rows[own], np.full((len(after), WIDTH), 50.0)]),
                np.concatenate([before, tokens[own], after]),
                np.full(own.sum() + len(before) + len(after), number),
            ),
            strict=True,
        ):
            part.append(values)
    return corpus(*(np.concatenate(part)[:cut] for part in out), name=name, n_shards=3)


def turned(rows, share_of_documents: float = 0.5):
    """Rows whose active direction is another one in the first documents."""
    changed, n = rows.copy(), int(len(rows) * share_of_documents)
    changed[:n] = np.roll(rows[:n], 1, axis=1)
    return changed


def passage(rewritten, moved=None):
    rows, tokens, document = plain()
    texts = {"plain": corpus(rows, tokens, document), "rewritten": wrapped(rewritten, tokens, document)}
    texts["moved"] = wrapped(rows if moved is None else moved, tokens, document, before=(3,), after=(), name="moved")
    matched = match_tokens(texts["plain"], {name: texts[name] for name in ("rewritten", "moved")})
    return TemplateTotals(one_hot_sae(), texts, matched, torch.zeros(WIDTH)), texts, matched


def test_nothing_changes_where_only_the_place_does():
    found, texts, matched = passage(plain()[0])
    assert len(matched.group) == N_DOCUMENTS * LENGTH
    for name in ("rewritten", "moved"):
        assert found.turnover(name, 100).value == 0
        assert found.explained_change(name, 100).value == pytest.approx(0)
        assert found.rate_divergence(name, 100).value == pytest.approx(0)
        assert rows_moved(texts, matched, name, 100).value == pytest.approx(0)


def test_planted_turnover_is_found_with_an_interval_over_documents():
    found, texts, matched = passage(turned(plain()[0]))
    turnover = found.turnover("rewritten", 500)
    assert turnover.value == 0.5  # one latent a token, another one in half of the documents
    low, high = turnover.interval
    # Documents are all or nothing: the spread is that of 30 draws, not of 360 tokens.
    assert high - low == pytest.approx(2 * half_width(N_DOCUMENTS) * 0.5 / np.sqrt(N_DOCUMENTS), rel=0.15)
    excess = turnover - found.turnover("moved", 500)
    assert excess.value == 0.5 and excess.interval == pytest.approx([low, high])
    assert rows_moved(texts, matched, "rewritten", 100).value > 0.5
    assert found.rate_divergence("rewritten", 100).value >= 0


def test_lost_reconstruction_is_found():
    rows = plain()[0]
    found, *_ = passage(-rows)  # nothing negative is reconstructed
    change = found.explained_change("rewritten", 100)
    expected = -(rows**2).sum() / ((rows - rows.mean(0)) ** 2).sum()
    assert change.value == pytest.approx(expected, abs=1e-5)
    assert found.turnover("rewritten", 100).value == 1


def test_what_is_cut_off_or_unusable_in_one_corpus_is_left_out_of_all():
    rows, tokens, document = plain()
    usable = np.arange(len(tokens)) % 5 > 0
    text = corpus(rows, tokens, document, usable=usable)
    other = wrapped(rows, tokens, document, cut=LENGTH * 10)
    matched = match_tokens(text, {"rewritten": other})
    assert (tokens[matched.rows["plain"]] == other.tokens[matched.rows["rewritten"]]).all()
    assert (document[matched.rows["plain"]] == other.document[matched.rows["rewritten"]]).all()
    assert usable[matched.rows["plain"]].all() and 0 < len(matched.group) < LENGTH * 10 * 0.8


def test_documents_of_another_text_are_refused():
    rows, tokens, document = plain()
    other = wrapped(rows, np.random.default_rng(5).integers(0, 1000, len(tokens)), document)
    with pytest.raises(EvaluationError, match="rewritten, document 0: has not the tokens of the same document"):
        match_tokens(corpus(rows, tokens, document), {"rewritten": other})
    with pytest.raises(EvaluationError, match="no token is also in finance"):
        match_tokens(corpus(rows, tokens, document), {"rewritten": corpus(rows, tokens, document + 100)})
