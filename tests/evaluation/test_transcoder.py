"""Transcoders are judged by their target: what they reconstruct, and where they are put into the model."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from atlas.config.recipe import Recipe
from atlas.config.study import Evaluation
from atlas.errors import EvaluationError
from atlas.evaluation.baseline import random_transcoder
from atlas.evaluation.evaluate import CorpusInputs, evaluate_sae
from atlas.evaluation.facts import TrainingFacts
from atlas.evaluation.references import compute_references
from atlas.models.forward import capture
from atlas.training.sae import Sae, save_sae

SOURCE, TARGET = "mlp_in.1", "mlp_out.1"
SETTINGS = Evaluation(bootstrap_samples=100, dead_min_tokens=100, loss_tokens=96, min_loss_gap={"causal_lm": 0.01})
RECIPE = Recipe(architecture="topk", n_latents=64, k=4, steps=1)
RELU = Recipe(architecture="relu", n_latents=64, l1_coefficient=0.1, steps=1)


class PairShard:
    """A shard of two hooks, made from one of `shards_of`; rows can be given or altered per hook."""

    def __init__(self, shard, rows: dict[str, torch.Tensor]):
        self.by_hook, self.identity, self.context_length = rows, shard.identity, shard.context_length
        self.tokens, self.document, self.counted = shard.tokens, shard.document, shard.counted
        self.n_rows = len(shard.tokens)

    def read_rows(self, hook, start, stop):
        return self.by_hook[hook][start:stop].clone()

    def norms(self, hook):
        return self.by_hook[hook].float().norm(dim=1).numpy()

    def statistics(self, hook):
        counted = self.by_hook[hook][torch.from_numpy(self.counted)].double()
        norms = counted.norm(dim=1)
        regular = counted[norms <= 10 * norms.median()]
        return {
            "count": len(counted),
            "mean": counted.mean(0).numpy(),
            "count_regular": len(regular),
            "mean_regular": regular.mean(0).numpy(),
        }


class Scene:
    """A transcoder with a tiny model, one evaluation corpus and the training store's facts."""

    def __init__(self, loaded, shards_of, folder, hooks=(SOURCE, TARGET), same_rows=False, width=None):
        self.loaded, self.folder, self.hooks, self.sae_folder = loaded, folder, hooks, folder / "sae"
        self.shards = self._pairs(shards_of(loaded, "news", 3), same_rows, width)
        train = self._pairs(shards_of(loaded, "chat", 0, split="train"), same_rows, width)
        self.name = "-to-".join(hooks)
        self.training = TrainingFacts.of({"chat": train}, self.name)
        compute_references(loaded, self.shards, [hooks[1]], SETTINGS.loss_tokens, 4, folder / "news.h5")

    def _pairs(self, shards, same_rows, width):
        pairs = []
        for shard in shards:
            ids = torch.from_numpy(shard.tokens.astype(np.int64)).view(-1, shard.context_length)
            rows = {hook: value.flatten(0, 1).clone() for hook, value in self._rows(ids, same_rows).items()}
            if width is not None:
                rows[self.hooks[0]] = torch.cat([rows[self.hooks[0]]] * 2, dim=1)[:, :width]
            pairs.append(PairShard(shard, rows))
        return pairs

    def _rows(self, ids, same_rows):
        if not same_rows:
            return capture(self.loaded, ids, self.hooks)
        rows = capture(self.loaded, ids, self.hooks[1:])[self.hooks[1]]
        return dict.fromkeys(self.hooks, rows)

    def evaluate(self, sae: Sae, recipe: Recipe = RECIPE, hook: str | None = None) -> dict:
        metadata = {"model_name": "tiny", "hook_name": self.hooks[0]}
        target = {"target_hook_name": self.hooks[1]} if sae.is_transcoder else {}
        save_sae(sae, self.sae_folder, metadata | target)
        corpora = {"news": CorpusInputs("oos", self.shards, self.folder / "news.h5")}
        arguments = (corpora, self.training, SETTINGS, recipe, 0)
        return evaluate_sae(self.sae_folder, self.loaded, hook or self.name, *arguments, sae_id="a/b")


@pytest.fixture
def transcoder() -> Sae:
    return random_transcoder(
        Sae("topk", torch.ones(32, 64), torch.zeros(64), torch.ones(64, 32), torch.zeros(32), k=4),
        torch.zeros(32),
        torch.full((32,), 0.1),
        1.0,
        seed=3,
    )


def as_transcoder(sae: Sae) -> Sae:
    """The same function without subtracting b_dec."""
    return dataclasses.replace(sae, b_enc=sae.b_enc - sae.b_dec @ sae.W_enc, is_transcoder=True)


def test_with_the_same_rows_on_both_sides_it_is_an_sae(llama, shards_of, tmp_path, topk_sae):
    """The store says that source and target are equal: an SAE and its equivalent transcoder get the same numbers."""
    hooks = ("attn_out.1", "resid_post.1")
    scene = Scene(llama, shards_of, tmp_path, hooks, same_rows=True)
    theirs = scene.evaluate(as_transcoder(topk_sae))["corpora"]["news"]["atlas"]
    scene.training = TrainingFacts.of({"chat": scene.shards}, "resid_post.1")
    scene.training = dataclasses.replace(scene.training, fingerprints={})
    ours = scene.evaluate(topk_sae, hook="resid_post.1")["corpora"]["news"]["atlas"]
    assert {name for name in ours if isinstance(ours[name], float)}
    for name, value in ours.items():
        if isinstance(value, float) and not name.startswith("firing"):
            assert theirs[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_a_perfect_transcoder_changes_nothing(llama, shards_of, tmp_path, identity_sae):
    scene = Scene(llama, shards_of, tmp_path, ("attn_out.1", "resid_post.1"), same_rows=True)
    result = scene.evaluate(as_transcoder(identity_sae), RELU)["corpora"]["news"]["atlas"]
    assert result["explained_variance"] == pytest.approx(1)
    assert result["delta_loss"] == pytest.approx(0, abs=1e-4)
    assert result["loss_recovered_zero"] == pytest.approx(1, abs=1e-3)


def test_the_mean_of_the_target_scores_zero_and_is_its_mean_ablation(llama, shards_of, tmp_path, transcoder):
    scene = Scene(llama, shards_of, tmp_path)
    counted = torch.cat([s.by_hook[TARGET][torch.from_numpy(s.counted)] for s in scene.shards])
    mean = dataclasses.replace(transcoder, W_dec=torch.zeros(64, 32), b_dec=counted.double().mean(0).float())
    result = scene.evaluate(mean)["corpora"]["news"]
    assert result["atlas"]["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert result["atlas"]["loss_sae"] == pytest.approx(result["atlas"]["loss_mean"], abs=1e-6)
    assert result["atlas"]["loss_zero"] != pytest.approx(result["atlas"]["loss_mean"], abs=1e-3)
    nothing = dataclasses.replace(mean, b_dec=torch.zeros(32))
    result = scene.evaluate(nothing)["corpora"]["news"]["atlas"]
    assert result["loss_sae"] == pytest.approx(result["loss_zero"], abs=1e-6)


def test_it_reads_the_clean_rows_of_its_source(llama, shards_of, tmp_path, transcoder):
    """Altered source rows alter what it fires on, its reconstruction and the spliced loss."""
    scene = Scene(llama, shards_of, tmp_path)
    before = scene.evaluate(transcoder)["corpora"]["news"]
    for shard in scene.shards:
        shard.by_hook[SOURCE] = -shard.by_hook[SOURCE]
    after = scene.evaluate(transcoder)["corpora"]["news"]
    for name in ("explained_variance", "loss_sae"):
        assert after["atlas"][name] != before["atlas"][name]
    assert after["atlas"]["loss_clean"] == before["atlas"]["loss_clean"]


@pytest.mark.parametrize("hook", [SOURCE, TARGET])
def test_a_row_massive_at_either_hook_is_massive(llama, shards_of, tmp_path, transcoder, hook):
    scene = Scene(llama, shards_of, tmp_path)
    assert scene.evaluate(transcoder)["corpora"]["news"]["n_massive"] == 0
    scene.shards[0].by_hook[hook][5] *= 1000
    assert scene.evaluate(transcoder)["corpora"]["news"]["n_massive"] == 1


def test_what_is_not_defined_is_null_with_a_reason(llama, shards_of, tmp_path, transcoder):
    result = Scene(llama, shards_of, tmp_path).evaluate(transcoder)
    json.dumps(result, allow_nan=False)
    assert result["redundancy"]["encoder_decoder_cosine"] is None
    assert "two different hooks" in result["reasons"]["redundancy_encoder_decoder_cosine"]
    judged = result["corpora"]["news"]
    for name, value in judged["atlas"].items():
        assert (value is None) == (f"atlas_{name}" in judged["reasons"]), name
    assert all(value is not None for value in judged["guide"].values())


def test_guide_protocol_takes_the_encoder_as_it_is(llama, shards_of, tmp_path, transcoder):
    scene = Scene(llama, shards_of, tmp_path)
    far = dataclasses.replace(transcoder, b_dec=torch.full((32,), 50.0))
    rows = torch.cat([shard.by_hook[SOURCE] for shard in scene.shards])
    l0 = (transcoder.pre_activations(rows) > 0).sum().item() / len(rows)
    for sae in (transcoder, far):  # a decoder bias must not leak into its L0
        assert scene.evaluate(sae)["corpora"]["news"]["guide"]["l0"] == pytest.approx(l0)


def test_random_transcoder_is_not_good(llama, shards_of, tmp_path, transcoder):
    random = Scene(llama, shards_of, tmp_path).evaluate(transcoder)["corpora"]["news"]["random"]
    assert random["outcome"]["verdict"] == "failed"
    assert random["explained_variance"] < 0.05
    assert random["l0"] == pytest.approx(4, rel=0.1)


def test_hooks_of_two_widths(llama, shards_of, tmp_path, transcoder):
    scene = Scene(llama, shards_of, tmp_path, width=48)
    wide = dataclasses.replace(transcoder, W_enc=torch.cat([transcoder.W_enc, torch.zeros(16, 64)]))
    result = scene.evaluate(wide)
    assert result["d_model"] == 48
    assert result["corpora"]["news"]["atlas"]["l0"] == pytest.approx(4, rel=0.1)
    with pytest.raises(EvaluationError, match=r"rows of mlp_in.1 have width 48, but the SAE has d_model 32"):
        scene.evaluate(transcoder)


def test_an_sae_is_not_judged_as_a_transcoder_and_the_reverse(llama, shards_of, tmp_path, transcoder, topk_sae):
    scene = Scene(llama, shards_of, tmp_path)
    with pytest.raises(EvaluationError, match=r"holds an SAE, but mlp_in.1-to-mlp_out.1 is to be judged"):
        scene.evaluate(topk_sae)
    with pytest.raises(EvaluationError, match=r"holds a transcoder, but mlp_in.1 is to be judged, which is an SAE"):
        scene.evaluate(transcoder, hook=SOURCE)
