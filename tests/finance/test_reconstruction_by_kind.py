import numpy as np
import pytest
import torch
from finance_scene import WIDTH, corpus, one_hot_sae

from atlas.evaluation.losses import LossTable
from atlas.finance.kinds import KINDS
from atlas.finance.reconstruction import explained_by_group, loss_by_group

NUMBER, PERCENT, OTHER = (KINDS.index(kind) for kind in ("number", "percent", "other"))


def scene(n: int = 600):
    """Numbers and percentages are positive, hence reconstructed exactly; of the rest only what is positive is."""
    generator = np.random.default_rng(0)
    kinds = generator.choice([NUMBER, PERCENT, OTHER], n)
    rows = generator.random((n, WIDTH)) + 0.5
    rows[kinds == OTHER] *= -1
    rows[kinds == OTHER] -= rows[kinds == OTHER].mean(0)
    return corpus(rows, np.arange(n), np.arange(n) // 20, kinds), kinds, rows


def test_each_kind_is_explained_about_its_own_mean():
    text, kinds, rows = scene()
    found = explained_by_group(one_hot_sae(), text, torch.zeros(WIDTH), 200)
    assert found["number"].value == pytest.approx(1)
    assert found["ratio"].value == pytest.approx(1)  # percent
    assert np.isnan(found["entity"].value) and found["entity"].interval is None
    other = rows[kinds == OTHER]
    kept = np.maximum(other, 0)
    expected = 1 - ((other - kept) ** 2).sum() / ((other - other.mean(0)) ** 2).sum()
    assert found["other"].value == pytest.approx(expected, abs=1e-5)
    low, high = found["other"].interval
    assert low < expected < high
    together = 1 - ((other - kept) ** 2).sum() / ((rows - rows.mean(0)) ** 2).sum()
    assert found["all"].value == pytest.approx(together, abs=1e-5)


def test_rows_that_are_massive_or_not_counted_change_nothing():
    text, kinds, rows = scene()
    usable = np.arange(len(rows)) % 7 > 0
    wild = rows.copy()
    wild[~usable] = 1e4
    given = corpus(wild, text.tokens, text.document, kinds, usable)
    found = explained_by_group(one_hot_sae(), given, torch.zeros(8), 50)
    kept = corpus(rows[usable], text.tokens[usable], text.document[usable], kinds[usable])
    expected = explained_by_group(one_hot_sae(), kept, torch.zeros(8), 50)
    assert found["all"].value == pytest.approx(expected["all"].value)


def losses(kinds: np.ndarray) -> LossTable:
    """Splicing costs numbers .5 nat of the 2 that zero ablation costs, and the rest nothing of nothing."""
    generator = np.random.default_rng(1)
    clean, number = generator.random(len(kinds)) * 3, kinds == NUMBER
    document = np.arange(len(kinds)) // 10
    return LossTable(clean, clean + 2 * number, clean + number, clean + 0.5 * number, None, document)


def test_loss_of_predicted_tokens_by_kind():
    kinds = np.random.default_rng(2).choice([NUMBER, OTHER], 400)
    found, units = loss_by_group(losses(kinds), kinds, 0.1, 200)
    assert found["number"]["delta_loss"].value == pytest.approx(0.5)
    assert found["number"]["loss_recovered_zero"].value == pytest.approx(0.75)
    assert found["number"]["delta_loss"].interval == pytest.approx([0.5, 0.5])
    assert found["other"]["delta_loss"].value == pytest.approx(0)
    assert found["other"]["loss_recovered_zero"] is None  # zero ablation costs it nothing
    assert found["entity"] == {"delta_loss": None, "loss_recovered_zero": None}
    share = (kinds == NUMBER).mean()
    assert found["all"]["delta_loss"].value == pytest.approx(0.5 * share)
    low, high = found["all"]["delta_loss"].interval
    assert low < 0.5 * share < high
    assert units["number"] + units["other"] == units["all"] == 400
