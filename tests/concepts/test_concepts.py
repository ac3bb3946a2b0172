"""Labelled concepts: a planted detector and handle are found, shuffled labels are chance, faults are named."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_sae import LATENTS, WIDTH, draw_sae
from test_adapters import build

from atlas.concepts import run as concepts
from atlas.concepts.detection import Detector, detect, directions_of, latent_aucs, require_classes
from atlas.concepts.run import Labelled, SteeringSetup, over_datasets, run_concepts, steering
from atlas.concepts.steering import Judge, choose_prompts, continued
from atlas.concepts.study_table import write_concepts_table
from atlas.config.causal import Concepts
from atlas.config.downstream import Probing
from atlas.errors import CausalError, EvaluationError
from atlas.files import write_json
from atlas.probing.probes import stratified_split
from atlas.probing.rows import LabelledRows, write_rows
from atlas.statistics.auc import Auc
from atlas.tables import read_csv
from atlas.training.sae import Sae, save_sae

N_TEXTS = 200


def identity_sae(width=16) -> Sae:
    """Latent j is the positive part of value j."""
    return Sae("relu", torch.eye(width), torch.zeros(width), torch.eye(width), torch.zeros(width))


def labelled(rows, labels) -> LabelledRows:
    return LabelledRows(torch.as_tensor(rows).float(), torch.as_tensor(labels).long())


def planted(latent=3, sign=1):
    """Half of the texts are of the concept, and `latent` fires on these alone (with sign -1: on all others)."""
    rows = np.random.default_rng(0).normal(size=(N_TEXTS, 16))
    labels = np.arange(N_TEXTS) % 2 == 0
    rows[:, latent] = np.where(labels == (sign > 0), 1 + np.abs(rows[:, latent]), 0)
    return labelled(rows, labels)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_latent_that_is_the_concept_has_an_auc_of_1(sign):
    randoms = [draw_dictionary(seed) for seed in range(3)]
    found, detector = detect(planted(sign=sign), identity_sae(), randoms, 0.4)
    assert detector == Detector(3, sign > 0)
    assert found["latent"]["value"] == 1
    assert found["latent"]["interval"] is None  # nothing is known of the noise where classes do not overlap
    assert found["random"]["value"] < 1
    assert found["minus_random"]["value"] == pytest.approx(1 - found["random"]["value"])
    low, high = found["minus_random"]["interval"]
    assert 0 < low < found["minus_random"]["value"] < high


def draw_dictionary(seed) -> Sae:
    rows = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(identity_sae(), W_enc=rows.T.contiguous(), W_dec=rows)


def test_shuffled_labels_are_chance():
    values = []
    for seed in range(8):
        rows = np.random.default_rng(seed).normal(size=(N_TEXTS, 16))
        rows[::2, 3] += 5
        data = labelled(rows, np.arange(N_TEXTS) % 2 == 0)
        values.append(detect(data, identity_sae(), [draw_dictionary(0)] * 2, 0.4)[0]["shuffled"]["value"])
    assert abs(np.mean(values) - 0.5) < 0.05


def test_a_concept_that_no_latent_is_belongs_to_the_difference_of_means():
    """It moves all values a little: one alone tells little, their sum much."""
    rows = np.random.default_rng(0).normal(size=(400, 16))
    labels = np.arange(400) % 2 == 0
    rows[labels] += 0.7
    found, _ = detect(labelled(rows, labels), identity_sae(), [draw_dictionary(0)] * 2, 0.4)
    assert found["diffmean"]["value"] > 0.95 > 0.85 > found["latent"]["value"]
    assert found["minus_diffmean"]["interval"][1] < 0


def test_aucs_of_many_latents_are_those_of_each_with_ties():
    generator = np.random.default_rng(0)
    latents, labels = generator.integers(0, 4, (60, 7)).astype(np.float32), generator.random(60) < 0.4
    latents[:, 2] = 0
    each = [Auc.of(latents[:, place], labels).value for place in range(7)]
    np.testing.assert_allclose(latent_aucs(latents, labels), each, atol=1e-12)
    assert latent_aucs(latents, labels)[2] == 0.5


def test_no_latent_that_fires_is_no_detector():
    data = labelled(-np.abs(np.random.default_rng(0).normal(size=(60, 16))), np.arange(60) % 2)
    found, detector = detect(data, identity_sae(), [draw_dictionary(0)] * 2, 0.4)
    assert detector is None
    assert found["latent"]["value"] == 0.5


def test_data_sets_without_both_classes_or_with_few_texts_are_named():
    with pytest.raises(CausalError, match="data set 'a': all 50 texts are of class True, must have both"):
        require_classes("a", np.ones(50, bool), 0.4)
    with pytest.raises(CausalError, match=r"data set 'a': 6 texts of class True, of which 2 are held out; at least 4"):
        require_classes("a", np.arange(50) < 6, 0.4)
    require_classes("a", np.arange(50) < 10, 0.4)


TOKEN, SETTINGS = 9, Concepts(strengths=(0.5, 3.0), prompts=8, prompt_tokens=4, new_tokens=3, min_judge_auc=0.8)


FOUND = Detector(5, True)


class Stage:
    """A model whose head reads one direction as one token; texts are numbers of tokens, a text's vector their counts.

    The concept is the token: latent 5 is its direction, and rows of texts with it have the direction added.
    """

    def __init__(self):
        model = build("llama", initializer_range=0.2)
        decode = SimpleNamespace(batch_decode=lambda tokens, **_: [" ".join(map(str, row)) for row in tokens.tolist()])
        self.loaded = SimpleNamespace(**{**vars(model), "tokenizer": decode})
        for name in ("base", "dtype", "objective"):
            setattr(self.loaded, name, getattr(model, name))
        sae = draw_sae()
        self.sae = dataclasses.replace(sae, W_dec=torch.linalg.qr(sae.W_dec.T)[0].T.contiguous())
        self.direction = self.sae.W_dec[5] / self.sae.W_dec[5].norm()
        with torch.no_grad():
            model.model.get_output_embeddings().weight[TOKEN] += self.direction
        labels = np.arange(N_TEXTS) % 2 == 0
        rows = 0.1 * torch.randn(N_TEXTS, WIDTH, generator=torch.Generator().manual_seed(0))
        rows[labels] += self.direction
        data = labelled(rows, labels)
        filler = np.random.default_rng(0).integers(10, 14, (N_TEXTS, 3))
        texts = [" ".join(map(str, [TOKEN, *row] if label else row)) for row, label in zip(filler, labels, strict=True)]
        self.sets = {"token": Labelled(data, data, ("without", "with"), texts)}
        self.prompts = torch.randint(10, 60, (8, 4), generator=torch.Generator().manual_seed(1))

    def bench(self, norm=10.0, settings=SETTINGS) -> SteeringSetup:
        return SteeringSetup(self.loaded, "resid_post.2", self.prompts, norm, settings, 0)

    def steer(self, detector=FOUND, embed=None, **options):
        bench = self.bench(**options)
        return steering(bench, self.sae, self.sets, {"token": detector}, embed or counts, 0.4)


def counts(texts):
    vectors = np.zeros((len(texts), 64), np.float32)
    for place, text in enumerate(texts):
        np.add.at(vectors[place], [int(word) for word in text.split()], 1)
    return vectors


@pytest.fixture(scope="module")
def stage():
    return Stage()


def test_a_planted_handle_steers_and_a_random_direction_does_not(stage):
    found = stage.steer()
    one = found["datasets"]["token"]
    assert found["n_measured"] == 1
    assert one["judge_auc"] > 0.95
    assert one["cosine"] > 0.8
    strong = one["strengths"]["3.0"]
    assert strong["latent"]["text"].split() == [str(TOKEN)] * 3
    assert strong["latent"]["score"]["value"] > 0.5
    assert strong["diffmean"]["score"]["value"] > 0.5
    assert strong["minus_random"]["value"] > 0.4
    assert strong["minus_random"]["interval"][0] > 0
    assert strong["latent"]["loss"]["value"] > one["strengths"]["0.5"]["latent"]["loss"]["value"] - 1e-6
    assert found["(all)"]["3.0"]["latent"]["score"] == {"value": strong["latent"]["score"]["value"], "interval": None}


def test_nothing_added_is_the_unchanged_text(stage):
    plain = continued(stage.loaded, "resid_post.2", stage.prompts, 3)
    same = continued(stage.loaded, "resid_post.2", stage.prompts, 3, torch.zeros(8, WIDTH))
    assert plain.texts == same.texts
    np.testing.assert_array_equal(plain.loss, same.loss)
    assert (plain.loss > 0).all()


def test_what_overflows_has_a_reason_and_no_number(stage):
    found = stage.steer(norm=1e25)
    for methods in found["datasets"]["token"]["strengths"].values():
        for name in ("latent", "diffmean", "random"):
            assert list(methods[name]) == ["reason"]
            assert "the state overflows there" in methods[name]["reason"]
    assert found["(all)"] == {"0.5": {}, "3.0": {}}


def test_a_judge_that_cannot_tell_gives_no_score(stage):
    found = stage.steer(embed=lambda texts: np.random.default_rng(len(texts)).normal(size=(len(texts), 8)))
    one = found["datasets"]["token"]
    assert one["reason"] == f"the judge has AUC {one['judge_auc']:.3f}, needed is 0.8"
    assert (found["n_measured"], one["strengths"]) == (0, {})
    assert stage.steer(detector=None)["datasets"]["token"]["reason"] == "no latent fires on the training texts"


def test_directions_point_to_the_class_in_which_the_latent_fires(stage):
    split = stratified_split(stage.sets["token"].labels, 0.4, 0)
    to_true, to_false = (
        directions_of(Detector(5, fires_in), stage.sae, stage.sets["token"].target, split) for fires_in in (True, False)
    )
    torch.testing.assert_close(to_true["diffmean"], -to_false["diffmean"])
    assert float(to_true["diffmean"] @ stage.direction) > 0.8
    assert float(to_true["diffmean"].norm()) == pytest.approx(1)
    with pytest.raises(CausalError, match="latent 5 has length 0"):
        still = dataclasses.replace(stage.sae, W_dec=torch.zeros(LATENTS, WIDTH))
        directions_of(Detector(5, True), still, stage.sets["token"].target, split)


def test_a_judge_is_tested_on_texts_that_it_never_saw():
    generator = np.random.default_rng(0)
    vectors, labels = generator.normal(size=(200, 150)), np.arange(200) % 2 == 0
    assert abs(Judge.of(vectors, labels).auc - 0.5) < 0.2  # as many values as texts: on its own texts it would be 1
    vectors = vectors[:, :10]
    vectors[labels, 0] += 8
    judge = Judge.of(vectors, labels)
    assert judge.auc > 0.99
    assert judge(vectors[labels]).mean() == pytest.approx(1, abs=0.2)
    assert judge(vectors[~labels]).mean() == pytest.approx(0, abs=0.2)
    # Half way between the classes, and as far behind one as they are apart.
    assert judge(vectors[~labels] + 4 * np.eye(10)[0]).mean() == pytest.approx(0.5, abs=0.2)
    assert judge(vectors[labels] + 8 * np.eye(10)[0]).mean() == pytest.approx(2, abs=0.3)
    assert not Judge(0.9, judge.weights, 0.0, -1.0).tells(0.7)


def shard(document, length=8):
    return SimpleNamespace(context_length=length, tokens=np.arange(len(document)), document=np.array(document))


def test_prompts_are_beginnings_of_different_documents():
    """Document 1 begins too near the end of its context, so its part in the next one counts; -1 is padding."""
    documents = [0] * 6 + [1] * 2 + [1] * 4 + [2] * 4 + [3] * 3 + [4] * 2 + [-1] * 3
    settings = Concepts(prompts=4, prompt_tokens=3)
    prompts = choose_prompts([shard(documents)], settings, 0)
    assert prompts.tolist() == [[0, 1, 2], [8, 9, 10], [12, 13, 14], [16, 17, 18]]
    with pytest.raises(
        CausalError, match=r"concepts.prompts is 5, but 4 held-out documents have 3 tokens in a context"
    ):
        choose_prompts([shard(documents)], settings.model_copy(update={"prompts": 5}), 0)
    with pytest.raises(CausalError, match=r"concepts.prompt_tokens is 9: must be at most a context, 8 tokens"):
        choose_prompts([shard(documents)], settings.model_copy(update={"prompt_tokens": 9}), 0)


def test_means_over_data_sets_need_four_for_an_interval():
    one = detect(planted(), identity_sae(), [draw_dictionary(0)] * 2, 0.4)[0]
    few, enough = (over_datasets({str(place): one for place in range(count)}) for count in (3, 4))
    assert few["latent"] == {"value": 1.0, "interval": None}
    assert enough["latent"]["interval"] == [1.0, 1.0]


class Files:
    """Hold the files that a job reads, for a model of which only the `objective` is known."""

    def __init__(self, folder, monkeypatch, labels=None, objective="embedding"):
        data = planted()
        labels = data.labels if labels is None else torch.as_tensor(labels).long()
        rows = {"one": {"resid_post.0": data.rows}}
        facts = {"datasets": ["one"], "classes": {"one": ["no", "yes"]}}
        write_rows(folder / "rows.safetensors", rows, {"one": labels}, facts)
        save_sae(identity_sae(), folder / "sae", {"model_name": "m", "hook_name": "resid_post.0"})
        monkeypatch.setattr(concepts, "read_identity", lambda _: {"objective": objective})
        facts = SimpleNamespace(source=SimpleNamespace(mean=torch.zeros(16)))
        monkeypatch.setattr(concepts, "TrainingFacts", SimpleNamespace(of=lambda *_: facts))
        self.folder = folder

    def run(self, embedder=(), settings=SETTINGS):
        target = self.folder / "concepts.json"
        run_concepts(
            model=self.folder / "m",
            rows=self.folder / "rows.safetensors",
            sae_folder=self.folder / "sae",
            train_shards=[],
            shards=[],
            source=[],
            embedder=list(embedder),
            hook="resid_post.0",
            seed=0,
            concepts=settings,
            probing=Probing(splits=2),
            device=torch.device("cpu"),
            result=target,
        )
        return json.loads(target.read_text())


def test_where_nothing_can_be_steered_detection_is_measured_and_the_reason_said(tmp_path, monkeypatch):
    found = Files(tmp_path, monkeypatch).run()
    assert found["steering"] == {"reason": "m has objective 'embedding': only a causal_lm generates text"}
    one = found["detection"]["datasets"]["one"]
    assert (one["n_texts"], one["detector"], one["latent"]["value"]) == (200, {"latent": 3, "fires_in": "yes"}, 1)
    files = Files(tmp_path, monkeypatch, objective="causal_lm")
    assert files.run()["steering"]["reason"].startswith("latents.embedder is null")
    no_steering = SETTINGS.model_copy(update={"steered": 0})
    assert files.run([tmp_path], no_steering)["steering"]["reason"] == "concepts.steered is 0"


def test_a_data_set_of_one_class_is_refused_before_the_sae_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(concepts, "detect", None)
    with pytest.raises(CausalError, match="data set 'one': all 200 texts are of class False"):
        Files(tmp_path, monkeypatch, labels=torch.zeros(N_TEXTS)).run()


def test_table_has_a_row_for_each_method_and_its_difference(tmp_path, stage):
    detection = {name: planted_numbers() for name in ("a", "b", "c", "d")}
    found = {
        "sae_id": "m/resid_post.2/chat/topk/seed-0",
        "detection": {"datasets": detection, "(all)": over_datasets(detection)},
        "steering": {"reason": None, **stage.steer()},
    }
    write_json(tmp_path / "concepts.json", found)
    table = tmp_path / "s_concepts.csv"
    write_concepts_table("s", {found["sae_id"]: tmp_path / "concepts.json"}, table)
    rows = read_csv(table)
    assert len(rows) == 5 * 4 + 2 * 2 * 3
    each = rows[(rows.task == "detection") & (rows.method == "latent") & (rows.dataset != "(all)")]
    assert (each.latent == 3).all() and (each.fires_in == "yes").all() and (each.n_texts == N_TEXTS).all()
    detected = rows[(rows.task == "detection") & (rows.dataset == "(all)")].set_index("method")
    assert detected.score["latent"] == 1
    assert detected.latent_over["random"] == pytest.approx(1 - detected.score["random"])
    strong = rows[(rows.task == "steering") & (rows.strength == 3) & (rows.dataset == "token")].set_index("method")
    assert strong.latent_over_low["random"] > 0
    assert (
        strong.loc[["latent", "diffmean", "random"], ["score", "score_low", "score_high", "loss"]]
        .notna()
        .all(axis=None)
    )
    with pytest.raises(EvaluationError, match=r"concepts.json: is of SAE 'm/resid_post.2/chat/topk/seed-0', expected"):
        write_concepts_table("s", {"m/resid_post.2/chat/topk/seed-1": tmp_path / "concepts.json"}, table)
    write_json(tmp_path / "concepts.json", found | {"steering": {"reason": "why not"}})
    write_concepts_table("s", {found["sae_id"]: tmp_path / "concepts.json"}, table)
    assert read_csv(table).query("task == 'steering'").reason.tolist() == ["why not"]


def planted_numbers():
    numbers, detector = detect(planted(), identity_sae(), [draw_dictionary(0)] * 2, 0.4)
    data = Labelled(planted(), planted(), ("no", "yes"))
    return concepts._described(data, detector) | numbers
