"""Every export in every format that holds it, read by the peer's own loader in the peer's own environment."""

import json

import pytest
import torch
from peer_environments import peer_python
from safetensors.torch import load_file, save_file
from trained import random_sae, write_trained

from atlas.errors import ExportError
from atlas.export.check import TOLERANCE, Export, check_export, check_exports
from atlas.export.formats import FORMATS, export_sae
from atlas.export.layout import READERS
from atlas.files import read_json, sha256_file, write_json
from atlas.training.architectures import ARCHITECTURES

pytestmark = pytest.mark.slow

TRANSCODERS = [("topk", 24), ("batch_topk", 24), ("batch_topk", 17)]
CLASSES = {
    "saelens": {
        "topk": "TopKSAE",
        "batch_topk": "JumpReLUSAE",
        "matryoshka_batch_topk": "JumpReLUSAE",
        "relu": "StandardSAE",
        "gated": "GatedSAE",
        "jumprelu": "JumpReLUSAE",
        "topk-24": "TopKSAE",
        "batch_topk-24": "JumpReLUTranscoder",
        "batch_topk-17": "JumpReLUTranscoder",
    },
    "dictionary_learning": {
        "topk": "AutoEncoderTopK",
        "batch_topk": "BatchTopKSAE",
        "matryoshka_batch_topk": "MatryoshkaBatchTopKSAE",
        "relu": "AutoEncoder",
        "gated": "GatedAutoEncoder",
        "jumprelu": "JumpReluAutoEncoder",
    },
    "sparsify": {"topk": "SparseCoder", "topk-24": "SparseCoder"},
}
CLASSES["huggingface"] = CLASSES["saelens"]


def saes():
    """One of every architecture, and transcoders of equal and unequal width."""
    named = {architecture: random_sae(architecture) for architecture in ARCHITECTURES}
    return named | {f"{name}-{width}": random_sae(name, d_target=width) for name, width in TRANSCODERS}


def export_all(folder, format_name):
    """Exports of all that the format holds; the others are refused."""
    exports = {}
    for name, sae in saes().items():
        if FORMATS[format_name].refusal(sae) is None:
            source = write_trained(folder / "saes" / name, sae)
            exports[name] = Export(format_name, source, folder / "exports" / name)
            export_sae(source, format_name, exports[name].folder)
    return exports


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_peer_computes_the_same(tmp_path, tmp_path_factory, format_name):
    exports = export_all(tmp_path, format_name)
    assert set(exports) == set(CLASSES[format_name])
    reports = check_exports(list(exports.values()), peer_python(READERS[format_name], tmp_path_factory))
    for name, report in zip(exports, reports, strict=True):
        assert report["reader"]["class"].rpartition(".")[2] == CLASSES[format_name][name]
        assert set(report["largest_relative_error"]) == {"latents", "reconstruction"}
        assert all(error <= TOLERANCE == 1e-5 for error in report["largest_relative_error"].values()), (name, report)
        assert report["latents_that_fired"] == 60 and report["n_rows"] == 256


@pytest.mark.parametrize(
    ("tensor", "said"), [("encoder.bias", "latents"), ("b_dec", "latents"), ("W_dec", "reconstruction")]
)
def test_a_wrong_export_is_caught(tmp_path, tmp_path_factory, tensor, said):
    """One value off by a thousandth, in an export that is otherwise as written."""
    source = write_trained(tmp_path / "sae", random_sae())
    folder = tmp_path / "export"
    export_sae(source, "sparsify", folder)
    weights = load_file(folder / "sae.safetensors")
    weights[tensor].view(-1)[0] += 1e-3 * weights[tensor].abs().max()
    save_file(weights, folder / "sae.safetensors")
    identity = read_json(folder / "export.json")
    identity["files"]["sae.safetensors"] = sha256_file(folder / "sae.safetensors")
    write_json(folder / "export.json", identity)
    target = folder / "check.json"
    with pytest.raises(ExportError, match=rf"{said} of sparsify.*SparseCoder .* differ from ours"):
        check_export(Export("sparsify", source, folder), peer_python("sparsify", tmp_path_factory), target)
    assert not target.exists()


def test_why_saelens_is_refused_topk_transcoders_of_two_widths(tmp_path, tmp_path_factory, monkeypatch):
    """When this fails, SAELens has learnt to: the refusal can go."""
    monkeypatch.setitem(FORMATS, "saelens", FORMATS["saelens"].__class__(lambda sae: None, FORMATS["saelens"].write))
    source = write_trained(tmp_path / "sae", random_sae("topk", d_target=17))
    export_sae(source, "saelens", tmp_path / "export")
    with pytest.raises(ExportError, match="size mismatch for b_dec"):
        check_exports([Export("saelens", source, tmp_path / "export")], peer_python("saelens", tmp_path_factory))


def test_the_report_is_written(tmp_path, tmp_path_factory):
    source = write_trained(tmp_path / "sae", random_sae())
    export_sae(source, "sparsify", tmp_path / "export")
    target = tmp_path / "export" / "check.json"
    check_export(Export("sparsify", source, tmp_path / "export"), peer_python("sparsify", tmp_path_factory), target)
    report = json.loads(target.read_text())
    assert report["reader"]["version"] == "eai-sparsify==1.3.3"
    assert report["reader"]["torch"].startswith(torch.__version__.partition("+")[0])
    export_sae(source, "sparsify", tmp_path / "export")  # a report in the folder is no stranger
