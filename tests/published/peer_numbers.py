"""Numbers of the peers' own code: small SAEs that a peer writes, encodes and decodes with.

Runs in the peer's environment, and is no part of any test's process:

    <python of the peer> tests/published/peer_numbers.py PEER FOLDER [ROWS]

For each case it writes a folder with the files that the peer's own tool saves, and ``numbers.safetensors`` with the
rows and the peer's latents and reconstructions of them; FOLDER/cases.json says what a user would have to state. The
committed numbers are of 12 rows; a file of ROWS (``rows``, safetensors) gives others, and then nothing else is drawn.

Packages without dependencies of their own were unpacked (``pip download --no-deps``) and named in PYTHONPATH: in the
environment of SAELens llamascopium==2.0.0b34, circuit-tracer==0.5.0, nemotron-lens==0.1.0, saev==0.1.0, and the folder
of sae.py of hypothesaes==2.0.1; for openai, a folder with model.py of openai/sparse_autoencoder at 764586a.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

D, N, K, OUT = 6, 16, 4, 5
SCALE = 2.5


@dataclass
class Case:
    """`save(folder)` writes with the peer's tool; `encode` and `decode(latents, rows)` are the peer's."""

    name: str
    format: str
    save: Callable[[Path], None]
    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    stated: dict = field(default_factory=dict)
    place: str = "."


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 * seed + sum(shape)))


def weights(d: int, out: int) -> dict[str, torch.Tensor]:
    """Decoder rows of norms from 0.5 to 2, biases that matter."""
    W_dec = torch.nn.functional.normalize(draw(N, out, seed=1), dim=1) * torch.linspace(0.5, 2, N)[:, None]
    return {
        "W_enc": draw(d, N, seed=2) / math.sqrt(d),
        "b_enc": 0.3 * draw(N, seed=3) - 0.1,
        "W_dec": W_dec,
        "b_dec": 0.7 * draw(out, seed=4),
    }


def default_rows(d: int) -> torch.Tensor:
    """Rows with their negations, one again, and a small one."""
    rows = 2 * draw(6, d, seed=5)
    return torch.cat([rows, -rows[:4], rows[:1], 0.01 * rows[:1]])


def assign(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        own = dict(module.named_parameters()) | dict(module.named_buffers())
        for name, value in values.items():
            own[name].copy_(value)


THRESHOLDS = torch.linspace(-0.2, 0.8, N)


def saelens(d: int) -> Iterator[Case]:
    import sae_lens
    from sae_lens import SAE

    def config(**more):
        metadata = {
            "sae_lens_version": sae_lens.__version__,
            "model_name": "tiny",
            "hook_name": "blocks.3.hook_resid_post",
            "context_size": 32,
        }
        return {
            "d_in": d,
            "d_sae": N,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "metadata": metadata,
        } | more

    def built(values, **keys):
        sae = SAE.from_dict(config(**keys))
        assign(sae, values)
        return sae

    def case(name, sae, stated=None):
        if "skip" in name:
            return Case(name, "saelens", sae.save_model, sae.encode, lambda z, x: sae.decode(z) + x @ sae.W_skip.T)
        return Case(name, "saelens", sae.save_model, sae.encode, lambda z, x: sae.decode(z), stated or {})

    w = weights(d, d)
    threshold = {"threshold": THRESHOLDS}
    yield case("standard", built(w, architecture="standard"))
    yield case("standard_not_subtracted", built(w, architecture="standard", apply_b_dec_to_input=False))
    yield case("topk", built(w, architecture="topk", k=K))
    yield case("topk_by_norm", built(w, architecture="topk", k=K, rescale_acts_by_decoder_norm=True))
    yield case("jumprelu", built(w | threshold, architecture="jumprelu"))
    gated = {name: value for name, value in w.items() if name != "b_enc"}
    gated |= {"b_gate": w["b_enc"], "r_mag": 0.3 * draw(N, seed=6), "b_mag": 0.3 * draw(N, seed=7)}
    yield case("gated", built(gated, architecture="gated"))
    yield case("layer_norm", built(w, architecture="topk", k=K, normalize_activations="layer_norm"))
    yield case("constant_norm", built(w, architecture="standard", normalize_activations="constant_norm_rescale"))
    out = weights(d, OUT)
    plain = {"apply_b_dec_to_input": False, "d_out": OUT}
    skip = {"W_skip": draw(OUT, d, seed=8)}
    yield case("transcoder", built(out, architecture="transcoder", **plain))
    yield case("skip_transcoder", built(out | skip, architecture="skip_transcoder", **plain))
    yield case("jumprelu_transcoder", built(out | threshold, architecture="jumprelu_transcoder", **plain))
    both = out | skip | threshold
    yield case("jumprelu_skip_transcoder", built(both, architecture="jumprelu_skip_transcoder", **plain))
    half = built(w, architecture="standard").to(dtype=torch.bfloat16)
    half.cfg.dtype = "bfloat16"
    exact = SAE.from_dict(config(architecture="standard"))
    assign(exact, {name: value.float() for name, value in half.state_dict().items()})
    yield Case("bfloat16", "saelens", half.save_model, exact.encode, lambda z, x: exact.decode(z))
    scaled = built(w, architecture="standard", normalize_activations="expected_average_only_in")
    folded = built(w, architecture="standard")
    folded.fold_activation_norm_scaling_factor(SCALE)
    yield Case(
        "expected_average",
        "saelens",
        scaled.save_model,
        folded.encode,
        lambda z, x: folded.decode(z),
        {"scale": SCALE},
    )
    yield from _old_saelens(d, w)
    yield _batch_topk(d, w)


def _old_saelens(d: int, w: dict) -> Iterator[Case]:
    """Configurations of versions before 6, which this one still loads."""
    from sae_lens import SAE

    old = {"d_in": d, "d_sae": N, "dtype": "torch.float32", "device": "cpu", "model_name": "tiny", "context_size": 32}
    hook = {"hook_point": "blocks.3.hook_resid_pre", "hook_point_layer": 3, "hook_point_head_index": None}
    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    kinds = {
        "before_6_standard": old | hook | {"normalize_activations": False},
        "before_6_topk": old | topk | {"hook_name": "blocks.3.hook_mlp_out", "apply_b_dec_to_input": False},
    }
    for name, config in kinds.items():

        def save(folder, config=config):
            folder.mkdir(parents=True)
            (folder / "cfg.json").write_text(json.dumps(config))
            save_file(w, folder / "sae_weights.safetensors")

        folder = Path(sys.argv[2]) / f"{name}.loading"
        save(folder)
        sae = SAE.load_from_disk(folder)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        yield Case(name, "saelens", save, sae.encode, lambda z, x, sae=sae: sae.decode(z))


def _batch_topk(d: int, w: dict) -> Case:
    """Write what save_inference_model writes for BatchTopK: a jumprelu SAE."""
    from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    trained = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=d, d_sae=N, k=K, device="cpu"))
    assign(trained, w)
    trained.topk_threshold.fill_(0.4)
    folder = Path(sys.argv[2]) / "batch_topk.loading"
    trained.save_inference_model(str(folder))
    sae = SAE.load_from_disk(folder)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    save = lambda folder: trained.save_inference_model(str(folder))  # noqa: E731
    return Case("batch_topk", "saelens", save, sae.encode, lambda z, x: sae.decode(z))


def dictionary_learning(d: int) -> Iterator[Case]:
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    w = weights(d, d)
    linear = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].T}
    topk = linear | {"b_dec": w["b_dec"]}
    unset, threshold = {}, {"threshold": torch.tensor(0.3)}
    gated = {name: value for name, value in linear.items() if name != "encoder.bias"} | {
        "decoder_bias": w["b_dec"],
        "gate_bias": w["b_enc"],
        "r_mag": 0.3 * draw(N, seed=6),
        "mag_bias": 0.3 * draw(N, seed=7),
    }
    made = {
        "AutoEncoder": (dictionary.AutoEncoder(d, N), linear | {"bias": w["b_dec"]}),
        "AutoEncoderNew": (dictionary.AutoEncoderNew(d, N), linear | {"decoder.bias": w["b_dec"]}),
        "GatedAutoEncoder": (dictionary.GatedAutoEncoder(d, N), gated),
        "JumpReluAutoEncoder": (dictionary.JumpReluAutoEncoder(d, N), w | {"threshold": THRESHOLDS}),
        "AutoEncoderTopK": (AutoEncoderTopK(d, N, K), topk | threshold),
        "BatchTopKSAE": (BatchTopKSAE(d, N, K), topk | threshold),
        "MatryoshkaBatchTopKSAE": (MatryoshkaBatchTopKSAE(d, N, K, [4, 12]), w | threshold),
        "BatchTopKSAE_unset": (BatchTopKSAE(d, N, K), topk | unset),
    }
    for name, (module, values) in made.items():
        assign(module, values)
        kind = name.removesuffix("_unset")

        def save(folder, module=module, kind=kind):
            folder.mkdir(parents=True)
            torch.save(module.state_dict(), folder / "ae.pt")
            trainer = {"dict_class": kind, "activation_dim": d, "dict_size": N, "layer": 3, "lm_name": "tiny"}
            trainer |= {"submodule_name": "resid_post_layer_3"} | ({"k": K} if "TopK" in kind else {})
            (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 32}}))

        saved = {key: value.clone() for key, value in module.state_dict().items()}
        loaded = type(module)(d, N, *([K] if "TopK" in kind else []), *([[4, 12]] if "Matryoshka" in kind else []))
        loaded.load_state_dict(saved)
        if name == "AutoEncoder":
            loaded.normalize_decoder()  # what its from_pretrained does
        yield Case(name, "dictionary_learning", save, loaded.encode, lambda z, x, loaded=loaded: loaded.decode(z))


def sparsify(d: int) -> Iterator[Case]:
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig

    w = weights(d, d)
    values = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]}
    kinds = {
        "topk": {},
        "groupmax": {"activation": "groupmax"},
        "transcode": {"transcode": True},
        "skip": {"transcode": True, "skip_connection": True},
    }
    for name, keys in kinds.items():
        sae = SparseCoder(d, SparseCoderConfig(num_latents=N, k=K, **keys))
        assign(sae, values | ({"W_skip": draw(d, d, seed=8)} if "skip_connection" in keys else {}))

        def encode(x, sae=sae):
            values, places, _ = sae.encode(x)
            return torch.zeros(len(x), N).scatter(1, places, values)

        def decode(z, x, sae=sae):
            out = sae.decode(z, torch.arange(N).expand(len(z), N))
            return out if sae.W_skip is None else out + x @ sae.W_skip.mT

        yield Case(name, "sparsify", sae.save_to_disk, encode, decode, place="layers.3")


def llamascopium(d: int) -> Iterator[Case]:
    from llamascopium.models.sae import SAEConfig, SparseAutoEncoder

    w = weights(d, d)
    values = {"W_E": w["W_enc"], "b_E": w["b_enc"], "W_D": w["W_dec"], "b_D": w["b_dec"]}
    here, there = "blocks.3.hook_resid_post", "blocks.3.hook_mlp_out"
    kinds = {
        "relu": ({"act_fn": "relu"}, None),
        "jumprelu": ({"act_fn": "jumprelu"}, None),
        "topk": ({"act_fn": "topk", "top_k": K}, None),
        "topk_plain": ({"act_fn": "topk", "top_k": K, "sparsity_include_decoder_norm": False}, None),
        "jumprelu_dataset_wise": ({"act_fn": "jumprelu"}, {here: 2.5}),
        "topk_dataset_wise": ({"act_fn": "topk", "top_k": K}, {here: 2.5}),
        "token_wise": ({"act_fn": "relu", "norm_activation": "token-wise"}, None),
        "transcoder": ({"act_fn": "relu", "hook_point_out": there}, {here: 2.5, there: 0.7}),
    }
    for name, (keys, norms) in kinds.items():
        how = {"norm_activation": "inference" if norms is None else "dataset-wise"}
        base = {"hook_point_in": here, "hook_point_out": here, "d_model": d, "expansion_factor": N / d} | how | keys
        config = SAEConfig(**base, device="cpu", dtype=torch.float32)
        sae = SparseAutoEncoder(config)
        log = {"activation_function.log_jumprelu_threshold": THRESHOLDS.abs().clamp(min=0.05).log()}
        assign(sae, values | (log if "jumprelu" in keys["act_fn"] else {}))
        if norms is not None:
            sae.set_dataset_average_activation_norm(norms)
        out = base["hook_point_out"]

        def save(folder, sae=sae):
            folder.mkdir(parents=True)
            sae.save_pretrained(str(folder))
            sae.cfg.save_hyperparameters(str(folder))

        def encode(x, sae=sae):
            return sae.encode(sae.normalize_activations({here: x, there: x})[here])

        def decode(z, x, sae=sae, out=out):
            batch = {here: x, there: x}
            factor = sae.compute_norm_factor(batch[out], hook_point=out)
            return sae.decode(z) / factor

        yield Case(name, "llamascopium", save, encode, decode)


def circuit_tracer(d: int) -> Iterator[Case]:
    import numpy as np
    from circuit_tracer.transcoder import single_layer_transcoder as peer
    from circuit_tracer.transcoder.activation_functions import JumpReLU

    w = weights(d, d)
    positive = THRESHOLDS.clamp(min=0)  # below 0 its JumpReLU lets negative values pass
    base = {"W_enc": w["W_enc"].T, "b_enc": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]}
    skip = {"W_skip": draw(d, d, seed=8)}
    relu = torch.nn.functional.relu
    for name, activation, more in [
        ("relu", relu, {}),
        ("relu_skip", relu, skip),
        ("jumprelu", JumpReLU(positive.clone(), 0.1), {}),
    ]:
        sae = peer.SingleLayerTranscoder(
            d, N, activation, 3, skip_connection="W_skip" in more, device="cpu", dtype=torch.float32
        )
        assign(sae, base | more)

        def save(folder, sae=sae):
            folder.mkdir(parents=True)
            sae.to_safetensors(folder / "layer_3.safetensors")

        yield Case(name, "circuit_tracer", save, sae.encode, sae.decode, place="layer_3.safetensors")
    gemma = w | {"threshold": positive}
    names = {"W_enc": "w_enc", "W_dec": "w_dec"}

    def npz(folder):
        folder.mkdir(parents=True)
        np.savez(folder / "params.npz", **{name: value.numpy() for name, value in gemma.items()})

    def second(folder):
        folder.mkdir(parents=True)
        tensors = {names.get(name, name): value.contiguous() for name, value in gemma.items()}
        save_file(tensors | {"affine_skip_connection": draw(d, d, seed=8)}, folder / "params.safetensors")

    for name, save, load in [
        ("gemma_scope_1", npz, lambda path: peer.load_gemma_scope_transcoder(path, 3, device=torch.device("cpu"))),
        ("gemma_scope_2", second, lambda path: peer.load_gemma_scope_2_transcoder(path, 3, torch.device("cpu"))),
    ]:
        folder = Path(sys.argv[2]) / f"{name}.loading"
        save(folder)
        sae = load(str(next(folder.iterdir()))).float()
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        yield Case(name, "gemma_scope_transcoder", save, sae.encode, sae.decode)


def openai(d: int) -> Iterator[Case]:
    import model

    w = weights(d, d)
    values = {
        "pre_bias": w["b_dec"],
        "encoder.weight": w["W_enc"].T,
        "latent_bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T,
    }
    for name, activation, normalise in [("topk", model.TopK(K), True), ("relu", torch.nn.ReLU(), False)]:
        sae = model.Autoencoder(N, d, activation=activation, normalize=normalise)
        assign(sae, values)
        save = lambda folder, sae=sae: (folder.mkdir(parents=True), torch.save(sae.state_dict(), folder / "sae.pt"))  # noqa: E731
        # Its loader refuses what its state_dict() adds under newer versions of torch.
        state = {key: value for key, value in sae.state_dict().items() if not key.startswith("activation.")}
        loaded = model.Autoencoder.from_state_dict(state)
        yield Case(
            name,
            "openai",
            save,
            lambda x, loaded=loaded: loaded.encode(x)[0],
            lambda z, x, loaded=loaded: loaded.decode(z, loaded.preprocess(x)[1]),
        )


def nemotron_lens(d: int) -> Iterator[Case]:
    from nemotron_lens.sae import SAE, SAEConfig

    sae = SAE(SAEConfig(d_in=d, d_sae=N, metadata={"model_name": "tiny", "hook_name": "model.layers.3"}))
    assign(sae, weights(d, d) | {"threshold": THRESHOLDS})
    decode = lambda z, x: sae.decode(z)  # noqa: E731

    def short(folder):
        sae.save_pretrained(folder)
        config = json.loads((folder / "cfg.json").read_text())
        kept = {key: config[key] for key in ("d_in", "d_sae", "metadata")}
        (folder / "cfg.json").write_text(json.dumps(kept))

    yield Case("jumprelu", "nemotron_lens", sae.save_pretrained, sae.encode, decode)
    yield Case("few_keys", "nemotron_lens", short, sae.encode, decode)


def hypothesaes(d: int) -> Iterator[Case]:
    from sae import SparseAutoencoder  # the package imports much else

    w = weights(d, d)
    values = {
        "encoder.weight": w["W_enc"].T,
        "neuron_bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T,
        "input_bias": w["b_dec"],
        "threshold": torch.tensor(0.3),
    }
    for name, batch in [("topk", False), ("batch_topk", True)]:
        sae = SparseAutoencoder(d, N, K, use_batch_topk=batch)
        assign(sae, values)
        sae.eval()

        def save(folder, sae=sae):
            sae.save(str(folder / "SAE_M=16_K=4.pt"))

        def encode(x, sae=sae):
            return torch.from_numpy(sae.get_activations(x, show_progress=False))

        yield Case(name, "hypothesaes", save, encode, lambda z, x, sae=sae: sae.decoder(z) + sae.input_bias)


def saev(d: int) -> Iterator[Case]:
    from saev import config, nn

    sae = nn.SparseAutoencoder(config.SparseAutoencoder(d_vit=d, exp_factor=N // d))
    assign(sae, weights(d, d))

    def save(folder):
        nn.dump(str(folder / "sae.pt"), sae)

    yield Case("relu", "saev", save, lambda x: sae(x)[1], lambda z, x: sae.decode(z))


PEERS = {
    "saelens": saelens,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
    "llamascopium": llamascopium,
    "circuit_tracer": circuit_tracer,
    "openai": openai,
    "nemotron_lens": nemotron_lens,
    "hypothesaes": hypothesaes,
    "saev": saev,
}


@torch.no_grad()
def main(peer: str, folder: Path, rows: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    cases = {}
    # saev's F is a whole multiple of the width
    x = default_rows(N // 2 if peer == "saev" else D) if rows is None else rows
    for case in PEERS[peer](x.shape[1]):
        latents = case.encode(x)
        numbers = {"rows": x, "latents": latents, "reconstruction": case.decode(latents, x)}
        place = "layers.3" if case.place == "layers.3" else "sae"
        case.save(folder / case.name / place)
        numbers = {name: value.float().contiguous().clone() for name, value in numbers.items()}
        save_file(numbers, folder / case.name / "numbers.safetensors")
        file = "" if case.place in (".", "layers.3") else f"/{case.place}"
        cases[case.name] = {"format": case.format, "place": place + file, "stated": case.stated}
    (folder / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), load_file(sys.argv[3])["rows"] if len(sys.argv) > 3 else None)
