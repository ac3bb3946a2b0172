"""One SAE judged as the workflow does it, on a tiny model."""

import json

import pytest
import torch

from atlas.config.recipe import Recipe
from atlas.config.study import Evaluation
from atlas.errors import EvaluationError
from atlas.evaluation.baseline import random_sae
from atlas.evaluation.evaluate import CorpusInputs, evaluate_sae
from atlas.evaluation.facts import TrainingFacts
from atlas.evaluation.references import compute_references
from atlas.evaluation.undefined import without_nonfinite
from atlas.training.sae import Sae, save_sae

HOOK = "resid_post.1"
SETTINGS = Evaluation(bootstrap_samples=100, dead_min_tokens=100, loss_tokens=96, min_loss_gap={"causal_lm": 0.01})
RECIPE = Recipe(architecture="topk", n_latents=64, k=4, steps=1)
CORPORA = {"chat": ("in_sample", 1), "wiki": ("proxy", 2), "news": ("oos", 3)}


class Scene:
    """Everything `evaluate_sae` is given; tests change one thing."""

    def __init__(self, loaded, shards_of, folder, sae: Sae):
        self.loaded, self.folder, self.sae_folder = loaded, folder, folder / "sae"
        self.corpora = {}
        for name, (role, seed) in CORPORA.items():
            shards, path = shards_of(loaded, name, seed), folder / f"{name}.h5"
            compute_references(loaded, shards, [HOOK], SETTINGS.loss_tokens, 4, path)
            self.corpora[name] = CorpusInputs(role, shards, path)
        self.training = TrainingFacts.of({"chat": shards_of(loaded, "chat", 0, split="train")}, HOOK)
        self.save(sae)

    def save(self, sae: Sae) -> None:
        save_sae(sae, self.sae_folder, {"model_name": "tiny", "hook_name": HOOK})

    def evaluate(self, recipe: Recipe = RECIPE, **options) -> dict:
        return evaluate_sae(
            self.sae_folder,
            self.loaded,
            HOOK,
            self.corpora,
            self.training,
            SETTINGS,
            recipe,
            0,
            sae_id="a/b",
            **options,
        )


@pytest.fixture
def scene(llama, shards_of, tmp_path, topk_sae) -> Scene:
    return Scene(llama, shards_of, tmp_path, topk_sae)


def test_result_has_the_agreed_structure(scene):
    result = scene.evaluate()
    assert set(result) == {
        *("sae_id", "random_weights", "architecture", "n_latents", "d_model", "k", "redundancy", "corpora", "reasons"),
    }
    assert (result["sae_id"], result["n_latents"], result["d_model"], result["k"]) == ("a/b", 64, 32, 4)
    for name, (role, _) in CORPORA.items():
        corpus = result["corpora"][name]
        assert corpus["role"] == role
        assert (corpus["n_tokens"], corpus["n_counted"]) == (192, 180)
        assert set(corpus["guide"]) == {"loss_recovered_pct", "l0", "dead_pct", "absorption"}
        for outcome in corpus["outcome"].values():
            assert set(outcome) == {"verdict", "rules", "unknown"}
        assert corpus["atlas"]["l0"] == pytest.approx(4, rel=0.1)
        assert corpus["atlas"]["dead_tokens"] == 180
    json.dumps(result, allow_nan=False)


def test_every_null_has_a_reason(scene):
    result = scene.evaluate()
    for corpus in result["corpora"].values():
        for name, value in corpus["atlas"].items():
            assert (value is None) == (f"atlas_{name}" in corpus["reasons"]), name
    for name, value in result["redundancy"].items():
        if isinstance(value, dict):
            assert (value["z"] is None) == (f"redundancy_{name}_z" in result["reasons"]), name


def test_deterministic(scene):
    assert scene.evaluate() == scene.evaluate()


def test_perfect_sae(scene, identity_sae):
    scene.save(identity_sae)
    recipe = Recipe(architecture="relu", n_latents=64, l1_coefficient=0.1, steps=1)
    result = scene.evaluate(recipe)["corpora"]["news"]
    assert result["atlas"]["explained_variance"] == pytest.approx(1)
    assert result["atlas"]["loss_recovered_zero"] == pytest.approx(1, abs=1e-3)
    assert result["guide"]["loss_recovered_pct"] == pytest.approx(100, abs=1e-3)
    assert result["outcome"]["atlas"]["verdict"] == "noisy"  # it fires on half of its latents


def test_massive_rows_are_counted_apart(scene):
    for inputs in scene.corpora.values():
        for shard in inputs.shards:
            shard.rows[5] *= 1000
    result = scene.evaluate()["corpora"]["chat"]
    assert result["n_massive"] == 2
    assert result["atlas"]["explained_variance"] != pytest.approx(
        result["atlas"]["explained_variance_regular"], abs=0.05
    )
    assert result["atlas"]["l0_regular"] <= 4


def test_random_dictionary_is_not_good(scene):
    """The false-positive check: the same taxonomy on random directions."""
    for corpus in scene.evaluate()["corpora"].values():
        assert corpus["random"]["outcome"]["verdict"] in ("failed", "under-capacity", "unhealthy")
    assert "random" not in scene.evaluate(with_random=False)["corpora"]["chat"]


@pytest.mark.parametrize("d_model", [16, 64, 256])
@pytest.mark.parametrize("n_latents", [64, 400])
def test_random_dictionaries_explain_too_little_to_be_good(d_model, n_latents):
    """Rows of a sparse, uneven mixture, as activations are; no random dictionary reaches the limit for good."""
    generator = torch.Generator().manual_seed(d_model)
    scale = torch.arange(1, d_model + 1) ** -0.5
    rows = torch.randn(2000, d_model, generator=generator) * scale + 1
    shape = Sae(
        "topk",
        torch.zeros(d_model, n_latents),
        torch.zeros(n_latents),
        torch.zeros(n_latents, d_model),
        torch.zeros(d_model),
        k=8,
    )
    sae = random_sae(shape, rows.mean(0), seed=1)
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(n_latents))
    error = (rows - sae.decode(sae.encode(rows))).square().sum()
    explained = 1 - error / (rows - rows.mean(0)).square().sum()
    assert explained < SETTINGS.taxonomy.weak_below


def test_sae_of_another_width_is_refused(scene):
    wide = Sae("topk", torch.ones(48, 64), torch.zeros(64), torch.ones(64, 48), torch.zeros(48), k=4)
    scene.save(wide)
    with pytest.raises(EvaluationError, match=r"width 32.*d_model 48"):
        scene.evaluate()


def test_weights_that_are_not_finite_are_refused(scene, topk_sae):
    from safetensors.torch import load_file, save_file

    path = scene.sae_folder / "sae_weights.safetensors"
    weights = load_file(path)
    weights["W_dec"][3, 3] = float("nan")
    save_file(weights, path)
    with pytest.raises(EvaluationError, match=r"W_dec.*not finite"):
        scene.evaluate()


def test_activations_of_another_model_are_refused(scene):
    scene.corpora["wiki"].shards[1].identity["weights_sha256"] = "other"
    with pytest.raises(EvaluationError, match=r"shard 1 of corpus 'wiki': weights_sha256 is 'other'"):
        scene.evaluate()


def test_training_text_as_oos_is_refused(scene):
    for shard in scene.corpora["news"].shards:
        shard.identity["corpus_fingerprint"] = scene.training.fingerprints["chat"]
    with pytest.raises(EvaluationError, match=r"oos corpus 'news'.*training corpus 'chat'"):
        scene.evaluate()


def test_in_sample_text_as_oos_is_refused(scene):
    for shard in scene.corpora["news"].shards:
        shard.identity["corpus_fingerprint"] = scene.corpora["chat"].shards[0].identity["corpus_fingerprint"]
    with pytest.raises(EvaluationError, match=r"oos corpus 'news'.*in_sample corpus 'chat'"):
        scene.evaluate()


def test_another_recipe_is_refused(scene):
    with pytest.raises(EvaluationError, match=r"k is 4, but its recipe says 5"):
        scene.evaluate(Recipe(architecture="topk", n_latents=64, k=5, steps=1))


def test_values_that_are_not_finite_become_null_with_reason():
    reasons = {}
    value = {"atlas": {"kl": float("inf"), "l0": 1.0}, "list": [float("nan")]}
    assert without_nonfinite(value, reasons) == {"atlas": {"kl": None, "l0": 1.0}, "list": [None]}
    assert reasons == {"atlas_kl": "the computed value is inf", "list": "the computed value is nan"}
