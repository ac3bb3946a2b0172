"""The dials of an SAE say against what a number is measured."""

from site_scene import metrics

from atlas.config.study import Taxonomy
from atlas.site.dials import OK, UNKNOWN, _reconstruction
from atlas.site.index import COLUMNS


def test_loss_recovered_is_shown_against_both_ablations():
    judged = metrics("m/h/x/r/seed-0")["corpora"]["chat"]
    by_key = {dial.key: dial for dial in _reconstruction(judged, Taxonomy())}
    zero, mean = by_key["recovered"], by_key["recovered_mean"]
    assert (zero.name, zero.value, zero.state) == ("Loss recovered, zero ablation", 0.9, OK)
    assert (mean.name, mean.value, mean.state) == ("Loss recovered, mean ablation", 0.8, OK)
    assert zero.says.endswith("zero ablation raises it from 3.00 to 6.00.")
    assert mean.says.endswith("mean ablation raises it from 3.00 to 4.50.")
    assert {"recovered", "recovered_mean"} <= set(COLUMNS)


def test_a_share_that_is_not_defined_gives_its_reason():
    judged = metrics("m/h/x/r/seed-0")["corpora"]["chat"]
    judged["atlas"] |= {"loss_recovered_mean": None}
    judged |= {"reasons": {"atlas_loss_recovered_mean": "mean ablation raises the loss by too little"}}
    mean = {dial.key: dial for dial in _reconstruction(judged, Taxonomy())}["recovered_mean"]
    assert (mean.state, mean.says) == (UNKNOWN, "mean ablation raises the loss by too little")
