"""One training from files: open the shards, check that they belong together, gather the run card, train."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from atlas.activations.mixing import measure_mixing
from atlas.activations.store import Shard, shards_by_corpus
from atlas.activations.stream import BatchStream, median_norm, sample_tokens
from atlas.config.budget import too_many_epochs
from atlas.config.data import Mix
from atlas.config.recipe import Recipe
from atlas.errors import StoreError, TrainingError
from atlas.files import read_json
from atlas.hook_points import SaeHooks
from atlas.massive import MASSIVE_FACTOR
from atlas.prepared import read_identity
from atlas.training.tracking import Tracked, require_trackers
from atlas.training.train import train_sae


@dataclass(frozen=True)
class TrainingInputs:
    """Files of one training: prepared model folder, train shards, corpus summaries, eval shards to watch; reports that
    evaluation text is apart from training text, named ``<trained>/apart_from/<judged>.json``.
    """

    model: Path
    shards: list[Path]
    corpora: list[Path]
    monitors: list[Path]
    apart: list[Path] = field(default_factory=list)


def run_training(
    inputs: TrainingInputs,
    *,
    hook: str,
    mix: Mix,
    recipe: Recipe,
    seed: int,
    names: Mapping[str, str],
    roles: Mapping[str, str],
    monitored: Mapping[str, str],
    monitor_rows: int,
    device: torch.device,
    folder: Path,
    state: Path,
    tracked: Tracked | None = None,
) -> None:
    """Train one SAE, or one transcoder if `hook` names two hooks (``mlp_in.10-to-mlp_out.10``), into `folder`.

    `names` are the names of model, mix and recipe in the configuration; `roles` maps evaluation corpora to roles, and
    `monitored` the roles to the corpora that are watched while training. Raises StoreError when a shard belongs to
    another model than the prepared one, lacks the hook, or a monitor repeats training text, and TrainingError when the
    steps visit a corpus more often than the recipe allows.
    """
    if tracked is not None:
        require_trackers(tracked.settings)
    identity = read_identity(inputs.model)
    expected = {"weights_sha256": identity["weights_sha256"], "tokenizer_sha256": identity["tokenizer_sha256"]}
    shards = shards_by_corpus(inputs.shards, expected)
    watched = shards_by_corpus(inputs.monitors, expected)
    _require_distinct(shards, watched)
    stream = BatchStream(shards, hook, mix, seed, recipe.batch_size, recipe.steps, recipe.exclude_massive)
    _require_enough_rows(recipe, stream, hook)
    every = [shard for group in shards.values() for shard in group]
    hooks = SaeHooks.parse(hook)
    limits = {name: MASSIVE_FACTOR * median_norm(every, name) for name in hooks.names}
    samples = {role: sample_tokens(watched[corpus], limits, monitor_rows) for role, corpus in monitored.items()}
    monitors, targets = ({role: rows[name] for role, rows in samples.items()} for name in (hooks.source, hooks.target))
    card = {
        "names": dict(names),
        "model": identity,
        "hook": hooks.source,
        "target_hook": hooks.target_hook,
        "corpora": {summary["name"]: summary for summary in map(read_json, inputs.corpora)},
        "token_fingerprints": {name: group[0].identity["corpus_fingerprint"] for name, group in shards.items()},
        "near_duplicates": _near_duplicates(inputs.apart),
        "mix": mix.model_dump(mode="json"),
        "drawn_shares": stream.drawn_shares(),
        "epochs": stream.epochs(),
        "mixing": asdict(measure_mixing(stream)),
        "evaluation_roles": dict(roles),
        "monitored": dict(monitored),
        "store": _store_facts(every),
    }
    targets = targets if hooks.is_transcoder else None
    train_sae(recipe, stream, monitors, seed, device, folder, state, card, monitor_targets=targets, tracked=tracked)


def _require_distinct(shards: Mapping[str, list[Shard]], watched: Mapping[str, list[Shard]]) -> None:
    trained = {group[0].identity["corpus_fingerprint"]: name for name, group in shards.items()}
    for name, group in watched.items():
        if (fingerprint := group[0].identity["corpus_fingerprint"]) in trained:
            raise StoreError(
                f"{group[0].path}: the tokens of evaluation corpus {name!r} are those of training corpus "
                f"{trained[fingerprint]!r} (fingerprint {fingerprint[:12]}…); evaluate on text that was not trained on"
            )


def _require_enough_rows(recipe: Recipe, stream: BatchStream, hook: str) -> None:
    """The configuration was checked with token budgets; here the rows are counted that can really be drawn."""
    shares, epochs = stream.drawn_shares(), stream.epochs()
    needed = recipe.steps * recipe.batch_size
    rows = {name: shares[name] * needed / number for name, number in epochs.items() if number > 0}
    if fault := too_many_epochs(recipe, {name: shares[name] for name in rows}, rows):
        raise TrainingError(f"{hook}: {fault}")


def _near_duplicates(reports: list[Path]) -> dict[str, dict[str, Any]]:
    """Of each training corpus and each evaluation corpus, how many held-out documents are nearly training text."""
    found: dict[str, dict[str, Any]] = {}
    for path in reports:
        report = read_json(path)
        keys = ("near_duplicates", "compared_documents", "near_duplicate_share")
        found.setdefault(path.parents[1].name, {})[path.stem] = {key: report[key] for key in keys}
    return found


def _store_facts(shards: list[Shard]) -> dict[str, Any]:
    first = shards[0].identity
    return {
        "rows": sum(shard.n_rows for shard in shards),
        "shards": len(shards),
        "context_length": int(first["context_length"]),
        "llm_batch_contexts": int(first["batch_contexts"]),
        "storage_dtype": first["storage_dtype"],
        "versions": first["versions"],
    }
