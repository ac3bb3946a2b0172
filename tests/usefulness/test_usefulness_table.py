"""The table from planted files: a dictionary at the ceiling, one at the floor, one without files, one with twins."""

import json

import pandas as pd
import pytest

from atlas.errors import EvaluationError
from atlas.files import write_json
from atlas.usefulness.figure import describe_usefulness, draw_usefulness
from atlas.usefulness.study_table import write_usefulness_table

SAE_ID = "tiny/resid_post.1/chat/topk/seed-0"
TWIN_ID = "tiny/resid_post.1/chat/topk.near_decoder/seed-0"
LOW, HIGH = [0.03, [0.02, 0.05]], [0.9, [0.85, 0.95]]


class Files:
    """Write the files of stages: numbers of the SAE between a floor of .03 and a ceiling of .9."""

    def __init__(self, folder):
        self.folder = folder
        self.metrics, self.stages, self.comparisons, self.twins = {}, {}, {}, {}

    def json(self, name: str, content: dict):
        path = self.folder / f"{name}.json"
        write_json(path, content)
        return path

    def add_metrics(self, recovered: list, sae_id: str = SAE_ID):
        atlas = {"loss_recovered_mean_regular": recovered[0], "loss_recovered_mean_regular_interval": recovered[1]}
        atlas |= {"delta_loss_regular": 0.3, "delta_loss_regular_interval": [0.2, 0.4]}
        judged = {"atlas": atlas, "outcome": {"atlas": {"verdict": "good"}}}
        self.metrics[sae_id] = self.json("metrics", {"sae_id": sae_id, "corpora": {"chat": judged}})

    def add_stages(self, own: list, sae_id: str = SAE_ID, only=("latents", "planted", "stability", "told")):
        def coherent(number: list) -> dict:
            return dict(zip(("coherent_share", "coherent_share_interval"), number, strict=True))

        def told(number: list) -> dict:
            return {"n": 100} | dict(zip(("share", "interval"), number, strict=True))

        prefix, seed = sae_id.split("/")[3], sae_id.rpartition("-")[2]
        shared = dict(zip(("value", "interval"), own, strict=True)) | {"ceiling": 1.0}
        shared |= {"null_mean": 0.0, "null_sd": 0.0, "spectrum_null_mean": 0.02, "spectrum_null_sd": 0.01}
        written = {
            "latents": {"corpora": {"chat": {"sae": coherent(own), "random": coherent(LOW)}}},
            "planted": {"corpora": {"chat": {"all": coherent(HIGH), "topic": coherent(HIGH)}}},
            "stability": {"saes": {seed: {"firing": {"shared": shared}}}},
            "told": {"sae": told(own), "random": told(LOW), "planted": {"all": told(HIGH)}},
        }
        for kind in only:
            self.stages[kind, sae_id] = self.json(f"{prefix}.{kind}", {"sae_id": sae_id} | written[kind])

    def add_twin(self, own: list, better_by: list):
        self.add_stages(own, TWIN_ID, only=("latents", "stability", "told"))
        self.twins = {SAE_ID: {"near_decoder": TWIN_ID}}
        measure = {"best_twin": "near_decoder", "better_by": better_by[0], "interval": better_by[1]}
        names = ("explained_variance_regular", "loss_recovered_mean_regular")
        found = {"learnt": "yes", "measures": dict.fromkeys(names, measure)}
        self.comparisons = {SAE_ID: self.json("twins", {"sae_id": SAE_ID, "corpora": {"chat": found}})}

    def table(self):
        path = self.folder / "s_usefulness.csv"
        write_usefulness_table(
            "s",
            self.metrics,
            self.comparisons,
            dict.fromkeys(self.metrics, "chat"),
            self.twins,
            list(self.stages),
            list(self.stages.values()),
            0.9,
            path,
        )
        return path

    def row(self) -> pd.Series:
        (row,) = pd.read_csv(self.table(), keep_default_na=False).to_dict("records")
        return row


@pytest.fixture
def files(tmp_path):
    found = Files(tmp_path)
    found.add_metrics([0.95, [0.93, 0.97]])
    return found


def words(row) -> dict[str, str]:
    return {name.removesuffix("_word"): word for name, word in row.items() if name.endswith("_word")}


def test_a_dictionary_of_planted_latents_is_useful(files):
    files.add_stages(HIGH)
    row = files.row()
    assert words(row) == dict.fromkeys(("loss", "coherence", "stability", "labels"), "yes") | {"learnt": "untested"}
    assert (row["useful"], row["untested"]) == ("yes", "learnt")
    assert float(row["labels_of_the_way"]) == pytest.approx(1)
    assert float(row["stability_floor"]) == 0.02  # the larger null
    assert float(row["delta_loss_regular_interval_high"]) == 0.4
    assert json.loads(row["reasons"]) == {"learnt": "it has no twin to be better than (docs/twins.md)"}


def test_a_random_dictionary_is_not(files):
    files.add_stages(LOW)
    row = files.row()
    assert (row["coherence_word"], row["stability_word"], row["labels_word"]) == ("no", "no", "no")
    assert row["useful"] == "no"
    assert float(row["coherence_of_the_way"]) == pytest.approx(0)


def test_an_interval_that_holds_the_threshold_is_unresolved(files):
    files.add_stages([0.47, [0.3, 0.6]])
    row = files.row()
    assert words(row)["labels"] == words(row)["coherence"] == "unresolved"
    assert row["useful"] == "unresolved"


def test_what_was_not_asked_for_is_untested(files):
    row = files.row()
    assert words(row)["loss"] == "yes"
    assert row["useful"] == "untested"
    assert row["untested"] == "coherence, stability, labels, learnt"
    assert json.loads(row["reasons"])["labels"] == "the study's `usefulness` does not ask for it"
    assert row["labels_value"] == ""


def test_without_planted_latents_or_a_second_seed_a_measure_is_untested(files):
    files.add_stages(HIGH)
    files.stages["planted", SAE_ID] = files.json("none", {"sae_id": SAE_ID, "corpora": {"chat": {}}})
    files.stages["stability", SAE_ID] = files.json("alone", {"saes": {"0": {"firing": None}}})
    row = files.row()
    assert (row["coherence_word"], row["stability_word"], row["useful"]) == ("untested", "untested", "yes")
    assert json.loads(row["reasons"])["coherence"] == "it has no ceiling"
    assert json.loads(row["reasons"])["stability"] == "it has no value"


def test_a_dictionary_no_better_than_its_twin_is_not_useful(files):
    files.add_stages(HIGH)
    files.add_twin(HIGH, better_by=[0.0, [-0.1, 0.1]])
    row = files.row()
    assert set(words(row).values()) == {"unresolved"}
    assert (row["useful"], row["learnt"]) == ("unresolved", "yes")
    files.add_twin(LOW, better_by=[0.5, [0.4, 0.6]])
    row = files.row()
    assert set(words(row).values()) == {"yes"}
    assert row["untested"] == ""
    assert row["labels_best_twin"] == "near_decoder"
    assert float(row["labels_over_twin"]) == pytest.approx(HIGH[0] - LOW[0])
    assert float(row["learnt_over_twin"]) == 0.5


def test_a_weak_dictionary_is_not_useful_whatever_its_latents(files):
    files.add_metrics([0.7, [0.6, 0.8]])
    files.add_stages(HIGH)
    row = files.row()
    assert (row["loss_word"], row["useful"]) == ("no", "no")


def test_a_file_of_another_sae_is_refused(files):
    files.add_stages(HIGH)
    files.stages["told", SAE_ID] = files.json("other", {"sae_id": TWIN_ID})
    with pytest.raises(
        EvaluationError, match=r"other\.json: is of SAE 'tiny/.*near_decoder/seed-0', expected .*topk/seed"
    ):
        files.table()
    files.stages["stability", SAE_ID] = files.json("seeds", {"saes": {"1": {}}})
    with pytest.raises(EvaluationError, match=r"seeds\.json: has no seed 0, which tiny/"):
        files.table()


@pytest.mark.parametrize("with_files", [True, False])
def test_figure_shows_both_ends_and_every_word(files, with_files):
    if with_files:
        files.add_stages([0.5, [0.4, 0.6]])
        files.add_twin(LOW, better_by=[0.5, [0.4, 0.6]])
    targets = [files.folder / f"s.{suffix}" for suffix in ("pdf", "png", "txt")]
    table = files.table()
    draw_usefulness(table, targets)
    assert all(target.stat().st_size > 100 for target in targets)
    caption = describe_usefulness(pd.read_csv(table, keep_default_na=False))
    assert ("Not tested" in caption) != with_files
    assert "useful (unresolved 1)" in caption if with_files else "useful (untested 1)" in caption
