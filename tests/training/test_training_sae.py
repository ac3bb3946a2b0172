"""The saved form: round trips, the SAELens layout, and refusals that name the file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from atlas.errors import TrainingError
from atlas.hook_points import SITES
from atlas.models.adapters import _ADAPTERS
from atlas.training.architectures import ARCHITECTURES
from atlas.training.sae import Sae, load_sae, saelens_hook_names, save_sae
from atlas.training.transformer_lens import transformer_lens_name

METADATA = {"model_name": "tiny", "model_architecture": "llama", "hook_name": "resid_post.3"}


def random_sae(architecture="topk", d_model=6, n_latents=10):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    limits = {"k": 2} if "topk" in architecture else {}
    limits |= {"threshold": 0.30000001192092896} if "batch_topk" in architecture else {}
    weights = draw(6, 10), draw(10), draw(10, 6), draw(6)
    own = {name: draw(10).abs() for name in ARCHITECTURES[architecture].latent_parameters}
    return Sae(architecture, *weights, **limits, latent_parameters=own)


def decided(values: torch.Tensor, limits: torch.Tensor | float) -> bool:
    """No value is so near its limit that rounding, which differs between processors, could decide."""
    return bool(((values - limits).abs() > 1e-5).all())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_round_trip(tmp_path, architecture):
    sae = random_sae(architecture)
    save_sae(sae, tmp_path, METADATA)
    loaded = load_sae(tmp_path)
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.encode(rows), sae.encode(rows))
    assert torch.equal(loaded.decode(loaded.encode(rows)), sae.decode(sae.encode(rows)))
    assert (loaded.architecture, loaded.k, loaded.threshold) == (sae.architecture, sae.k, sae.threshold)
    assert set(loaded.latent_parameters) == set(sae.latent_parameters)
    assert (sae.encode(rows) >= 0).all() and (sae.encode(rows) > 0).any()


def test_inference_paths():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    for architecture in ("topk", "batch_topk", "relu"):
        sae = random_sae(architecture)
        pre = (rows - sae.b_dec) @ sae.W_enc + sae.b_enc
        assert decided(pre, sae.threshold or 0.0)
        latents = sae.encode(rows)
        fires = latents > 0
        torch.testing.assert_close(latents[fires], pre[fires])
        if architecture == "topk":
            assert (fires.sum(dim=1) == (pre > 0).sum(dim=1).clamp(max=2)).all()
        else:
            assert torch.equal(fires, pre > (sae.threshold or 0.0))
    edge = Sae("batch_topk", torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), k=1, threshold=0.5)
    assert edge.encode(torch.tensor([[0.5, 0.75]])).tolist() == [[0.0, 0.75]]  # strict
    assert edge.encode(torch.tensor([[0.5, 0.75]], dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("architecture", "theirs", "extra"),
    [
        ("topk", "topk", {"k": 2, "rescale_acts_by_decoder_norm": False}),
        ("batch_topk", "jumprelu", {}),
        ("matryoshka_batch_topk", "jumprelu", {}),
        ("relu", "standard", {}),
        ("jumprelu", "jumprelu", {}),
        ("gated", "gated", {}),
    ],
)
def test_layout_is_that_of_saelens(tmp_path, architecture, theirs, extra):
    save_sae(random_sae(architecture), tmp_path, METADATA | {"recipe": "r"})
    config = json.loads((tmp_path / "cfg.json").read_text())
    metadata = config.pop("metadata")
    assert (
        config
        == {
            "architecture": theirs,
            "d_in": 6,
            "d_sae": 10,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
        }
        | extra
    )
    assert int(metadata["sae_lens_version"].split(".")[0]) >= 6
    assert metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert metadata["atlas"]["hook_name"] == "resid_post.3" and metadata["atlas"]["recipe"] == "r"
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    own = {"jumprelu": {"b_enc", "threshold"}, "gated": {"b_gate", "b_mag", "r_mag"}}.get(theirs, {"b_enc"})
    assert shapes == {"W_enc": (6, 10), "W_dec": (10, 6), "b_dec": (6,)} | dict.fromkeys(own, (10,))


def test_inference_paths_with_a_number_per_latent():
    """As SAELens' encoders of the same name compute them."""
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    jump = random_sae("jumprelu")
    pre = (rows - jump.b_dec) @ jump.W_enc + jump.b_enc
    thresholds = jump.latent_parameters["thresholds"]
    assert decided(pre, thresholds)
    torch.testing.assert_close(jump.encode(rows), torch.relu(pre) * (pre > thresholds))
    gated = random_sae("gated")
    centred, r_mag = rows - gated.b_dec, gated.latent_parameters["r_mag"]
    magnitude = torch.relu(centred @ (gated.W_enc * r_mag.exp()) + gated.latent_parameters["b_mag"])
    gate = centred @ gated.W_enc + gated.b_enc
    assert decided(gate, 0.0)
    torch.testing.assert_close(gated.encode(rows), magnitude * (gate > 0))
    assert gated.to("cpu").latent_parameters["r_mag"] is not None


@pytest.mark.parametrize(
    ("architecture", "hook", "name"),
    [
        ("llama", "mlp_out.0", "blocks.0.hook_mlp_out"),
        ("gpt2", "attn_out.12", "blocks.12.hook_attn_out"),
        ("llama", "mlp_in.3", "blocks.3.mlp.hook_in"),
        ("gemma2", "mlp_in.3", "blocks.3.mlp.hook_in"),
        ("bert", "mlp_in.3", "blocks.3.mlp.in.hook_in"),
        ("bert", "resid_post.3", "blocks.3.hook_out"),
        ("bert", "attn_out.3", "blocks.3.attn.o.hook_out"),
        ("nemotron_h", "mlp_in.3", "blocks.3.mixer.hook_in"),
        ("distilbert", "resid_post.3", None),
        (None, "resid_post.3", None),
    ],
)
def test_hook_names(architecture, hook, name):
    assert saelens_hook_names({"model_architecture": architecture, "hook_name": hook}) == {"hook_name": name}


def test_no_hook_is_named_as_another_tensor_of_transformer_lens():
    """Its hook_mlp_in lies before the norm, in every architecture."""
    architectures = [*_ADAPTERS, None]
    names = [transformer_lens_name(f"{site}.3", own) for site in SITES for own in architectures]
    assert len(names) == len(SITES) * len(architectures)
    assert not [name for name in names if name is not None and name.endswith("hook_mlp_in")]


@pytest.mark.parametrize("threshold", [None, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_was_never_set_is_refused(tmp_path, threshold):
    sae = random_sae("batch_topk")
    sae = Sae("batch_topk", sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, k=2, threshold=threshold)
    with pytest.raises(TrainingError, match=r"sae_weights.safetensors: threshold is .* lower threshold_start_step"):
        save_sae(sae, tmp_path, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused_on_both_ways(tmp_path):
    sae = random_sae()
    save_sae(sae, tmp_path, METADATA)
    sae.b_enc[3] = float("nan")
    with pytest.raises(TrainingError, match=r"sae_weights.safetensors: b_enc has values that are not finite"):
        save_sae(sae, tmp_path, METADATA)
    weights = tmp_path / "sae_weights.safetensors"
    save_file(load_file(weights) | {"W_dec": torch.full((10, 6), torch.inf)}, weights)
    with pytest.raises(TrainingError, match=r"sae_weights.safetensors: W_dec has values that are not finite"):
        load_sae(tmp_path)


def alter_config(folder, **changes):
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    config["metadata"]["atlas"] |= changes.pop("atlas", {})
    path.write_text(json.dumps(config | changes))


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"cfg.json: is not the configuration"):
        load_sae(tmp_path)
    save_sae(random_sae("batch_topk"), tmp_path, METADATA)
    weights = tmp_path / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    with pytest.raises(TrainingError, match=r"sae_weights.safetensors: missing, truncated"):
        load_sae(tmp_path)
    weights.write_bytes(whole)
    alter_config(tmp_path, d_sae=11)
    with pytest.raises(TrainingError, match=r"has shape .*, expected .*11"):
        load_sae(tmp_path)
    alter_config(tmp_path, d_sae=10, atlas={"threshold": 0.2})
    with pytest.raises(TrainingError, match=r"cfg.json: threshold is 0.2, but the weights file has 0.3"):
        load_sae(tmp_path)
    alter_config(tmp_path, atlas={"threshold": None})
    with pytest.raises(TrainingError, match=r"cfg.json: threshold is None"):
        load_sae(tmp_path)
    alter_config(tmp_path, architecture="crosscoder", atlas={"architecture": "crosscoder"})
    with pytest.raises(
        TrainingError,
        match=r"architecture is 'crosscoder'.*expected one of topk, batch_topk, matryoshka_batch_topk, relu",
    ):
        load_sae(tmp_path)
    save_sae(random_sae("topk"), tmp_path / "other", METADATA)
    (tmp_path / "other" / "sae_weights.safetensors").write_bytes(whole)
    with pytest.raises(TrainingError, match=r"holds .*'threshold'.*expected"):
        load_sae(tmp_path / "other")


def test_an_unset_threshold_cannot_encode():
    sae = random_sae("batch_topk")
    unset = Sae("batch_topk", sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, k=2)
    with pytest.raises(TrainingError, match="no inference threshold yet"):
        unset.encode(torch.randn(3, 6))
