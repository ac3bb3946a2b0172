"""One training from files: open the shards, check that they belong together, gather the run card, train."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas.activations.mixing import measure_mixing
from atlas.activations.sampling import median_norm, sample_tokens
from atlas.activations.store import Shard, shards_by_corpus
from atlas.activations.stream import BatchStream
from atlas.activations.windowed import Windowed
from atlas.config.budget import too_many_epochs
from atlas.config.mixes import Mix
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
    evaluation text is apart from training text, named ``<trained>/apart_from/<judged>.json``; with windows, the facts
    of each corpus' first part.
    """

    model: Path
    shards: list[Path]
    corpora: list[Path]
    monitors: list[Path]
    apart: list[Path] = field(default_factory=list)
    facts: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """Settings of one SAE, or of one transcoder if `hook` names two hooks.

    `names` are the names of model, mix and recipe; `roles` maps evaluation corpora to roles, and `monitored` the roles
    to the corpora of which `monitor_rows` rows are watched while training.
    """

    hook: str
    mix: Mix
    recipe: Recipe
    seed: int
    names: Mapping[str, str]
    roles: Mapping[str, str]
    monitored: Mapping[str, str]
    monitor_rows: int

    @property
    def hooks(self) -> SaeHooks:
        """The hooks, parsed."""
        return SaeHooks.parse(self.hook)


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
    window_shards: int | None = None,
) -> None:
    """Train one SAE, or one transcoder if `hook` names two hooks (``mlp_in.10-to-mlp_out.10``), into `folder`.

    `names` and what follows are those of `Asked`; with `window_shards` batches come from one window of each corpus at a
    time. Raises StoreError when a shard belongs to another model than the prepared one, lacks the hook, or a monitor
    repeats training text, and TrainingError when the steps visit a corpus more often than the recipe allows.
    """
    if tracked is not None:
        require_trackers(tracked.settings)
    asked = Asked(hook, mix, recipe, seed, names, roles, monitored, monitor_rows)
    identity = read_identity(inputs.model)
    expected = expected_of(identity)
    shards = shards_by_corpus(inputs.shards, expected)
    facts = shards_by_corpus(inputs.facts, expected) if window_shards is not None else shards
    watched = shards_by_corpus(inputs.monitors, expected)
    windowed = None if window_shards is None else Windowed.of(shards, facts, window_shards)
    require_distinct(shards, watched)
    stream = stream_of(asked, shards, windowed)
    require_enough_rows(asked, stream, windowed)
    monitors, targets = samples_of(asked, watched, facts)
    rows = {name: [shard.n_rows for shard in group] for name, group in shards.items()}
    card = card_of(asked, identity, inputs.corpora, inputs.apart, stream, facts, rows, windowed)
    card |= {"epochs": stream.epochs(), "mixing": asdict(measure_mixing(stream))}
    train_sae(recipe, stream, monitors, seed, device, folder, state, card, monitor_targets=targets, tracked=tracked)


def expected_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what activation files must say to be of a prepared model."""
    return {key: identity[key] for key in ("weights_sha256", "tokenizer_sha256")}


def stream_of(asked: Asked, shards: Mapping[str, Any], windowed: Windowed | None) -> BatchStream:
    """The batches of one SAE."""
    recipe = asked.recipe
    return BatchStream(
        shards,
        asked.hook,
        asked.mix,
        asked.seed,
        recipe.batch_size,
        recipe.steps,
        recipe.exclude_massive,
        windowed,
    )


def samples_of(
    asked: Asked, watched: Mapping[str, list[Shard]], facts: Mapping[str, list[Shard]]
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Rows to watch by role, and for a transcoder what is to be reconstructed from them.

    `facts` are files of training text that say which norms are massive: all shards, or those of the first part.
    """
    hooks = asked.hooks
    every = [shard for name in asked.mix.corpora for shard in facts[name]]
    limits = {name: MASSIVE_FACTOR * median_norm(every, name) for name in hooks.names}
    samples = {
        role: sample_tokens(watched[corpus], limits, asked.monitor_rows) for role, corpus in asked.monitored.items()
    }
    monitors, targets = ({role: rows[name] for role, rows in samples.items()} for name in (hooks.source, hooks.target))
    return monitors, targets if hooks.is_transcoder else None


def card_of(
    asked: Asked,
    identity: dict[str, Any],
    corpora: list[Path],
    apart: list[Path],
    stream: BatchStream,
    facts: Mapping[str, list[Shard]],
    rows: Mapping[str, Sequence[int]],
    windowed: Windowed | None,
) -> dict[str, Any]:
    """Return what the run card says before training; `rows` are those of all shards of each corpus.

    Epochs and mixing are missing: in windows they are known at the end.
    """
    names = asked.mix.corpora
    first = facts[names[0]][0].identity
    store = {
        "rows": sum(sum(rows[name]) for name in names),
        "shards": sum(len(rows[name]) for name in names),
        "context_length": int(first["context_length"]),
        "llm_batch_contexts": int(first["batch_contexts"]),
        "storage_dtype": first["storage_dtype"],
        "versions": first["versions"],
    }
    if windowed is not None:
        store |= {"window_shards": windowed.window_shards, "statistics_shards": len(facts[names[0]])}
    return {
        "names": dict(asked.names),
        "model": identity,
        "hook": asked.hooks.source,
        "target_hook": asked.hooks.target_hook,
        "corpora": {summary["name"]: summary for summary in map(read_json, corpora)},
        "token_fingerprints": {name: facts[name][0].identity["corpus_fingerprint"] for name in names},
        "near_duplicates": _near_duplicates(apart),
        "mix": asked.mix.model_dump(mode="json"),
        "drawn_shares": stream.drawn_shares(),
        "evaluation_roles": dict(asked.roles),
        "monitored": dict(asked.monitored),
        "store": store,
    }


def require_distinct(shards: Mapping[str, list[Shard]], watched: Mapping[str, list[Shard]]) -> None:
    """Raise StoreError when text that is watched is trained on."""
    trained = {group[0].identity["corpus_fingerprint"]: name for name, group in shards.items()}
    for name, group in watched.items():
        if (fingerprint := group[0].identity["corpus_fingerprint"]) in trained:
            raise StoreError(
                f"{group[0].path}: the tokens of evaluation corpus {name!r} are those of training corpus "
                f"{trained[fingerprint]!r} (fingerprint {fingerprint[:12]}…); evaluate on text that was not trained on"
            )


def require_enough_rows(asked: Asked, stream: BatchStream, windowed: Windowed | None) -> None:
    """Raise TrainingError for more epochs than the recipe allows.

    The configuration was checked with token budgets; here the rows are counted that can really be drawn. In windows
    these are all counted rows: which of them are massive activations is known only as they come.
    """
    recipe, shares = asked.recipe, stream.drawn_shares()
    if windowed is not None:
        rows = {name: float(len(windowed.documents[name])) for name in shares}
    else:
        needed, epochs = recipe.steps * recipe.batch_size, stream.epochs()
        rows = {name: shares[name] * needed / number for name, number in epochs.items() if number > 0}
    if fault := too_many_epochs(recipe, {name: shares[name] for name in rows}, rows):
        raise TrainingError(f"{asked.hook}: {fault}")


def _near_duplicates(reports: list[Path]) -> dict[str, dict[str, Any]]:
    """Count held-out documents that are nearly training text, by training corpus and evaluation corpus."""
    found: dict[str, dict[str, Any]] = {}
    for path in reports:
        report = read_json(path)
        keys = ("near_duplicates", "compared_documents", "near_duplicate_share")
        found.setdefault(path.parents[1].name, {})[path.stem] = {key: report[key] for key in keys}
    return found
