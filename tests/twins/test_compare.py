"""An SAE beside its twins: planted sums of documents in, known differences and words out."""

import numpy as np
import pytest
import torch

from atlas.errors import EvaluationError
from atlas.evaluation.document_sums import ALL, LOSS, REGULAR, DocumentSums, read_document_sums, write_document_sums
from atlas.evaluation.losses import LossTable, RegularLosses
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.files import read_json, write_json
from atlas.statistics.clusters import LEAST_CLUSTERS, jackknife_interval
from atlas.twins.compare import EvaluatedSae, write_comparison
from atlas.twins.learnt import best_twin, learnt
from atlas.twins.measures import MEASURES

OWN, TWINS = "m/resid_post.1/x/r/seed-0", ("frozen_decoder", "near_decoder")
BY_NAME = {measure.name: measure for measure in MEASURES}


class Text:
    """Rows and units of the loss of some documents, the same for every SAE that is judged on them."""

    def __init__(self, n_documents=8, seed=0, d_model=6):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(20, 40, (n_documents,), generator=generator)
        self.document = torch.repeat_interleave(torch.arange(n_documents), lengths)
        self.rows = torch.randn(len(self.document), d_model, generator=generator, dtype=torch.float64) * 2
        self.rows += torch.randn(n_documents, d_model, generator=generator, dtype=torch.float64)[self.document]
        self.noise = torch.randn(self.rows.shape, generator=generator, dtype=torch.float64)
        self.clean = 2 + torch.rand(len(self.rows), generator=generator, dtype=torch.float64).numpy()

    def reconstruction(self, error: float) -> torch.Tensor:
        return self.rows + error * self.noise

    def losses(self, error: float) -> LossTable:
        added = error * (0.5 + self.noise[:, 0].abs().numpy())
        # Without massive activations both SAE and mean row cost less.
        regular = RegularLosses(self.clean + 0.8 * added, self.clean + 3, 0.3 * added, 0, len(self.clean))
        ablated = (self.clean + 5, self.clean + 4)
        return LossTable(self.clean, *ablated, self.clean + added, added / 2, self.document.numpy(), regular)

    def sums(self, error: float) -> DocumentSums:
        sums = ReconstructionSums.start(torch.zeros(self.rows.shape[1]), int(self.document.max()) + 1)
        sums.update(self.rows, self.reconstruction(error), self.document)
        return DocumentSums.of({ALL: sums, REGULAR: sums}, self.losses(error))

    def metrics(self, error: float) -> dict:
        sums = self.sums(error)
        values = {measure.name: measure.value(sums) for measure in MEASURES}
        return values | {"l0": 4.0}


def write(folder, sae_id: str, text: Text, error: float, fingerprint="f" * 64, **changes) -> EvaluatedSae:
    folder.mkdir(parents=True)
    verdict = {"outcome": {"atlas": {"verdict": "good"}}, "role": "in_sample"}
    judged = verdict | {"atlas": text.metrics(error) | changes}
    write_json(folder / "metrics.json", {"sae_id": sae_id, "corpora": {"chat": judged}})
    write_document_sums(folder / "sums", sae_id, {"chat": text.sums(error)}, {"chat": fingerprint})
    return EvaluatedSae(folder / "metrics.json", folder / "sums")


def compared(folder, errors: dict[str, float], text: Text | None = None, **changes) -> dict:
    text = text or Text()
    files = {kind: (f"{kind}-id", write(folder / kind, f"{kind}-id", text, errors[kind])) for kind in TWINS}
    own = write(folder / "own", OWN, text, errors["own"], **changes)
    write_comparison(OWN, own, files, ["chat"], folder / "twins.json")
    return read_json(folder / "twins.json")


def test_measures_of_sums_are_those_of_the_rows():
    text = Text()
    sums, error = text.sums(0.5), (text.rows - text.reconstruction(0.5)).square().sum()
    variance = (text.rows - text.rows.mean(0)).square().sum()
    assert BY_NAME["explained_variance_regular"].value(sums) == pytest.approx(float(1 - error / variance), rel=1e-10)
    table = text.losses(0.5)
    assert BY_NAME["delta_loss"].value(sums) == pytest.approx((table.sae - table.clean).mean(), rel=1e-10)
    assert BY_NAME["kl"].value(sums) == pytest.approx(table.kl.mean(), rel=1e-10)
    recovered = (table.mean - table.sae).sum() / (table.mean - table.clean).sum()
    assert BY_NAME["loss_recovered_mean"].value(sums) == pytest.approx(recovered, rel=1e-10)
    own = table.regular
    recovered = (own.mean - own.sae).sum() / (own.mean - table.clean).sum()
    assert BY_NAME["loss_recovered_mean_regular"].value(sums) == pytest.approx(recovered, rel=1e-10)
    assert BY_NAME["delta_loss_regular"].value(sums) == pytest.approx((own.sae - table.clean).mean(), rel=1e-10)
    assert BY_NAME["kl_regular"].value(sums) == pytest.approx(own.kl.mean(), rel=1e-10)


def test_a_document_left_out_is_the_measure_of_the_others():
    text = Text(n_documents=5)
    others = Text(n_documents=5)
    keep = text.document != 2
    others.rows, others.noise, others.clean = text.rows[keep], text.noise[keep], text.clean[keep.numpy()]
    others.document = text.document[keep] - (text.document[keep] > 2).long()
    weights = 1 - np.eye(5)[2:3]
    for measure in MEASURES:
        assert measure.statistic(text.sums(0.5), weights)[0] == pytest.approx(measure.value(others.sums(0.5)), rel=1e-9)


def test_an_sae_that_beats_both_twins_has_learnt_by_every_measure(tmp_path):
    found = compared(tmp_path, {"own": 0.2, "frozen_decoder": 0.5, "near_decoder": 0.4})["corpora"]["chat"]
    assert found["learnt"] == "yes"
    assert set(found["measures"]) == set(BY_NAME)
    for name, measure in found["measures"].items():
        assert (measure["best_twin"], measure["learnt"]) == ("near_decoder", "yes"), name
        assert measure["best_value"] == measure["twins"]["near_decoder"]
        assert abs(measure["value"] - measure["best_value"]) == pytest.approx(measure["better_by"], rel=1e-9)
        assert 0 < measure["interval"][0] < measure["better_by"] < measure["interval"][1]
        assert measure["n_documents"] == 8


def test_an_sae_that_a_twin_beats_has_not_learnt(tmp_path):
    found = compared(tmp_path, {"own": 0.5, "frozen_decoder": 0.4, "near_decoder": 0.9})["corpora"]["chat"]
    assert {measure["learnt"] for measure in found["measures"].values()} == {"no"}
    assert {measure["best_twin"] for measure in found["measures"].values()} == {"frozen_decoder"}


def test_the_same_sae_twice_is_unresolved(tmp_path):
    found = compared(tmp_path, {"own": 0.4, "frozen_decoder": 0.4, "near_decoder": 0.4})["corpora"]["chat"]
    assert found["learnt"] == "unresolved"
    for measure in found["measures"].values():
        assert measure["better_by"] == 0 and measure["learnt"] == "unresolved"


def test_too_few_documents_are_unresolved_and_say_so(tmp_path):
    text = Text(n_documents=LEAST_CLUSTERS - 1)
    found = compared(tmp_path, {"own": 0.1, "frozen_decoder": 0.9, "near_decoder": 0.9}, text)["corpora"]["chat"]
    for measure in found["measures"].values():
        assert (measure["interval"], measure["learnt"]) == (None, "unresolved")
        assert measure["reason"] == "too few documents: 3, at least 4 are needed"


def test_a_measure_that_is_not_defined_has_no_word_but_unresolved(tmp_path):
    found = compared(tmp_path, {"own": 0.2, "frozen_decoder": 0.5, "near_decoder": 0.4}, kl=None)["corpora"]["chat"]
    kl = found["measures"]["kl"]
    assert (kl["value"], kl["better_by"], kl["learnt"]) == (None, None, "unresolved")
    assert "not defined" in kl["reason"]


def test_twins_of_other_text_are_refused(tmp_path):
    text = Text()
    own = write(tmp_path / "own", OWN, text, 0.2)
    twin = write(tmp_path / "twin", "t", text, 0.5, fingerprint="e" * 64)
    with pytest.raises(EvaluationError, match=r"sums: corpus 'chat' has fingerprint eeeeeeeeeeee.*the same text"):
        write_comparison(OWN, own, {"near_decoder": ("t", twin)}, ["chat"], tmp_path / "twins.json")
    other = write(tmp_path / "other", "o", Text(seed=1), 0.5)
    with pytest.raises(EvaluationError, match=r"count of corpus 'chat' differs"):
        write_comparison(OWN, own, {"near_decoder": ("o", other)}, ["chat"], tmp_path / "twins.json")
    with pytest.raises(EvaluationError, match=r"has no sums of corpus 'news', only of chat"):
        write_comparison(OWN, own, {"near_decoder": ("t", twin)}, ["news"], tmp_path / "twins.json")
    assert not (tmp_path / "twins.json").exists()


def test_files_of_another_sae_are_refused(tmp_path):
    own = write(tmp_path / "own", OWN, Text(), 0.2)
    with pytest.raises(EvaluationError, match=r"metrics\.json: is of SAE 'm/.*', expected 'other'"):
        write_comparison("other", own, {}, ["chat"], tmp_path / "twins.json")
    with pytest.raises(EvaluationError, match=r"sums: is of .* expected 'other'"):
        read_document_sums(own.sums, "other")


def test_sums_are_read_as_they_were_written(tmp_path):
    sums = Text().sums(0.5)
    write_document_sums(tmp_path / "sums", "s", {"chat": sums}, {"chat": "f"})
    found, fingerprints = read_document_sums(tmp_path / "sums", "s")
    assert fingerprints == {"chat": "f"} and found["chat"].values.keys() == sums.values.keys()
    assert all(np.array_equal(found["chat"].values[key], sums.values[key]) for key in sums.values)
    assert len(sums.values[f"{LOSS}/kl"]) == 8


def test_words_and_the_best_twin():
    assert [learnt(interval) for interval in ([0.1, 0.2], [-0.2, -0.1], [-0.1, 0.1], None)] == [
        *("yes", "no", "unresolved", "unresolved")
    ]
    values = {"a": 1.0, "b": 3.0, "c": None}
    assert (best_twin(values, True), best_twin(values, False), best_twin({"c": None}, True)) == ("b", "a", None)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(0).normal(size=6)
    without = (values.sum() - values) / 5
    reach = 2.5705818 * values.std(ddof=1) / np.sqrt(6)
    assert jackknife_interval(values.mean(), without) == pytest.approx(
        [values.mean() - reach, values.mean() + reach], rel=1e-6
    )


def test_intervals_of_few_documents_cover():
    """Ratios of sums of documents of unequal length: at four and at twelve documents, 95 % means 93 % at least."""
    generator = np.random.default_rng(0)
    for n in (LEAST_CLUSTERS, 12):
        hits = 0
        for _ in range(2000):
            length = generator.uniform(0.3, 1.0, n)
            top = length * generator.normal(0.1, 0.1, n)
            low, high = jackknife_interval(top.sum() / length.sum(), (top.sum() - top) / (length.sum() - length))
            hits += low <= 0.1 <= high
        assert hits / 2000 >= 0.93
