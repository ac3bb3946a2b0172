"""Check that a source is a checkpoint that a model can be made of.

The library that reads checkpoints leaves out tensors that it has no place for. It reads the numbers of a quantised
weight as if they were the weight. Both models run, and both are wrong. Here every tensor is used, known to be no
weight, or refused.
"""

import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import transformers
from safetensors import safe_open
from transformers import PretrainedConfig

from atlas.config.data import ModelSpec
from atlas.errors import SourceError
from atlas.files import read_json
from atlas.models.adapters import find_adapter

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
# Number formats in which a stored number is the weight itself.
_PLAIN = ("F64", "F32", "F16", "BF16")
# Fixed tables that older versions of the library saved with the weights, and computes anew.
_TABLES = re.compile(r"(?:^|\.)(?:position_ids|token_type_ids|rotary_emb\.inv_freq|attn\.bias|masked_bias)$")
# Heads of other objectives; `_USED_HEADS` are read for an objective, all others are left out.
_HEADS = re.compile(
    r"^(?:\w+\.)?(cls|lm_head|classifier|pre_classifier|score|qa_outputs|pooler|vocab_transform|vocab_layer_norm"
    r"|vocab_projector|mtp)\."
)
_USED_HEADS = {
    "causal_lm": {"lm_head"},
    "masked_lm": {"cls", "lm_head", "vocab_transform", "vocab_layer_norm", "vocab_projector"},
    "sequence_classification": {"classifier", "pre_classifier", "score", "pooler"},
    "embedding": set(),
}
# A masked language model's second task, which is no part of the first.
_UNUSED_PARTS = re.compile(r"^cls\.seq_relationship\.")
# The mean over positions is the embedding, and masked prediction has a head of its own.
_NO_POOLER = ("embedding", "masked_lm")
_SHOWN = 3


def check_files(name: str, origin: Path) -> None:
    """Raise SourceError unless `origin` is a .gguf file or a folder with safetensors."""
    if origin.is_file() and origin.suffix == ".gguf":
        if re.search(r"-\d{5}-of-\d{5}$", origin.stem):
            raise SourceError(
                f"models.{name}.source: {origin} is one part of a split model; merge the parts into one file"
            )
        return
    if not origin.is_dir():
        raise SourceError(f"models.{name}.source: {origin} is neither a .gguf file nor a folder with safetensors")
    if any(origin.glob("*.safetensors")):
        return
    names = sorted(path.name for path in origin.iterdir())
    if packed := [each for each in names if each.endswith(".gguf")]:
        raise SourceError(
            f"models.{name}.source: {origin} holds no safetensors, but {packed}: name the .gguf file itself, "
            f"{origin / packed[0]}"
        )
    if pickled := [each for each in names if each.endswith(_PICKLED)]:
        raise SourceError(
            f"models.{name}.source: {origin} has weights only as {pickled}; such files can run code when they are "
            "read, so they are refused: convert them to safetensors, or name a revision that has them"
        )
    raise SourceError(
        f"models.{name}.source: {origin} holds no weights: must contain *.safetensors, or be a .gguf file"
    )


@contextmanager
def readable(origin: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder and options by which the library reads `origin`.

    A .gguf file is shown alone: of the files beside it, the library would take a tokenizer or a chat template.
    """
    if origin.suffix != ".gguf":
        yield origin, {}
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / origin.name).symlink_to(origin.resolve())
        yield Path(folder), {"gguf_file": origin.name}


def read_config(name: str, origin: Path) -> PretrainedConfig:
    """The model's own configuration, from config.json or the header of a GGUF file; no weight is read."""
    try:
        with readable(origin) as (place, options):
            return transformers.AutoConfig.from_pretrained(
                place, local_files_only=True, trust_remote_code=False, **options
            )
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise SourceError(f"models.{name}: cannot read the configuration of {origin}: {error}") from error


def check_shape(name: str, model: ModelSpec, config: PretrainedConfig) -> None:
    """Raise unless the architecture has an adapter and the declared shape is the model's."""
    find_adapter(config.model_type)
    for key, declared, found in (
        ("n_layers", model.n_layers, config.num_hidden_layers),
        ("d_model", model.d_model, config.hidden_size),
    ):
        if declared != found:
            raise SourceError(f"models.{name}.{key} is {declared}, but the model's own config says {found}: correct it")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model: one, or those that its index names."""
    index = folder / _INDEX
    if (folder / _SINGLE).is_file() or not index.is_file():
        return [folder / _SINGLE] if (folder / _SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    return [folder / file for file in sorted(set(read_json(index)["weight_map"].values()))]


def stored_formats(name: str, folder: Path) -> dict[str, tuple[Path, str, tuple[int, ...]]]:
    """File, number format and shape of every stored tensor, from the files' headers."""
    found = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - no mapping
                    part = file.get_slice(key)
                    found[key] = (path, part.get_dtype(), tuple(part.get_shape()))
        except (OSError, safetensors.SafetensorError) as error:
            raise SourceError(
                f"models.{name}: cannot load {folder}: {path.name} is damaged or missing: {error}"
            ) from error
    return found


def quantisation(folder: Path) -> dict[str, Any] | None:
    """The quantisation that a folder states, with the method's name under `quant_method`; None where it states none."""
    found: dict[str, Any] | None = None
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        found = config.get("quantization_config") or config.get("compression_config")
    if not found and (folder / "hf_quant_config.json").is_file():  # of modelopt, which leaves config.json as it was
        found = {"quant_method": "modelopt"} | read_json(folder / "hf_quant_config.json").get("quantization", {})
    if not found:
        return None
    guess = "bitsandbytes" if found.get("load_in_8bit") or found.get("load_in_4bit") else "unnamed"
    return found | {"quant_method": found.get("quant_method") or guess}


def packed(formats: Mapping[str, tuple[Path, str, tuple[int, ...]]]) -> dict[str, str]:
    """Tensors whose stored numbers are not the weight itself, with their number format."""
    return {key: kind for key, (_, kind, _) in formats.items() if kind not in _PLAIN and not _TABLES.search(key)}


def check_report(name: str, model: ModelSpec, origin: Path, report: Mapping[str, Any]) -> None:
    """Raise SourceError unless every weight came from the source, and the source holds no weight that was left out."""
    unused = ("pooler.",) if model.objective in _NO_POOLER else ()
    missing = sorted(key for key in report["missing_keys"] if not any(part in key for part in unused))
    if missing:
        raise SourceError(
            f"models.{name}: {origin} lacks {len(missing)} weights that objective {model.objective!r} needs, "
            f"among them {missing[:_SHOWN]}: must be a complete model; is the objective right?"
        )
    if others := sorted(str(key) for key in report.get("mismatched_keys", ())):
        raise SourceError(f"models.{name}: {origin}: {len(others)} weights have another shape: {others[:_SHOWN]}")
    if left := sorted(_not_used(model.objective, report["unexpected_keys"])):
        raise SourceError(
            f"models.{name}: {origin} holds {len(left)} tensors that a model of its config.json does not use, among "
            f"them {left[:_SHOWN]}: it would run without them, as another model. Is config.json the right one, or are "
            "these the scales of a quantised model or a model's adapters? Give the plain, merged weights"
        )


@contextmanager
def watched_gguf() -> Iterator[set[str]]:
    """The set, filled while weights are read, of a GGUF file's tensors that the reader has no place for.

    The reader leaves them out and says nothing. It also draws a bar of its own, which the library's switch does not
    reach: no bar is drawn here.
    """
    from transformers import modeling_gguf_pytorch_utils as reader

    left: set[str] = set()
    known: set[str] = set()
    bar, find_places = reader.tqdm, reader.get_gguf_hf_weights_map

    def places(*args: Any, **options: Any) -> dict[str, str]:
        found = find_places(*args, **options)  # calls itself for each part of the model, the whole comes last
        known.clear()
        known.update(found)
        return found

    def tensors(items: Any, **_: Any) -> Any:
        # The experts of a layer are one tensor of the file, and are put in their place by other names.
        left.update(each.name for each in items if each.name not in known and "_exps." not in each.name)
        return items

    reader.tqdm, reader.get_gguf_hf_weights_map = tensors, places
    try:
        yield left
    finally:
        reader.tqdm, reader.get_gguf_hf_weights_map = bar, find_places


def check_gguf_used(name: str, origin: Path, left: Collection[str]) -> None:
    """Raise SourceError when the reader of GGUF files left out tensors, as `watched_gguf` saw."""
    if left:
        raise SourceError(
            f"models.{name}: {origin} holds {len(left)} tensors that the reader of GGUF files leaves out, among them "
            f"{sorted(left)[:_SHOWN]}: without them it is another model (rope_freqs: other positions). Use the model's "
            "safetensors"
        )


def _not_used(objective: str, keys: Any) -> Iterator[str]:
    for key in keys:
        head = _HEADS.match(key)
        other = head is not None and (head[1] not in _USED_HEADS[objective] or _UNUSED_PARTS.match(key))
        if not other and not _TABLES.search(key):
            yield key


def write_plain_config(source: Path, target: Path) -> None:
    """config.json without what it says about quantisation."""
    config = read_json(source / "config.json")
    config = {key: value for key, value in config.items() if key not in ("quantization_config", "compression_config")}
    target.write_text(json.dumps(config, indent=2), encoding="utf-8")
