"""Windows and groups: what the configuration must say for training text to be streamed, and which SAEs share a pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atlas.config.data import Harvest
from atlas.config.rows import SaeRow
from atlas.config.sections import AtlasConfig
from atlas.errors import ConfigError

# Float32 weights, their gradients and two moments of Adam.
_COPIES = 4


@dataclass(frozen=True)
class TrainingGroup:
    """SAEs that one job trains from one pass of their model: they share the model and its training corpora."""

    name: str
    model: str
    corpora: tuple[str, ...]
    rows: tuple[SaeRow, ...]


def sae_bytes(row: SaeRow, d_model: int) -> int:
    """Memory for weights, gradients and moments of an SAE while it is trained."""
    return _COPIES * 4 * 2 * row.n_latents * d_model


def stream_groups(config: AtlasConfig, rows: Iterable[SaeRow]) -> list[TrainingGroup]:
    """Groups of all SAEs whose models stream, in the order of `rows`; an SAE belongs to the first of its rows.

    SAEs of one study, or of all where `group_by` says so, share a group up to `group_memory_mb` of their model; what is
    more makes a further group.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[list[SaeRow]]] = {}
    first: dict[str, SaeRow] = {}
    for row in rows:
        first.setdefault(row.sae_id, row)
    for row in first.values():
        if row.published is not None:  # trained elsewhere
            continue
        model = config.models[row.model]
        if model.harvest.mode != "stream":
            continue
        study = row.study if model.harvest.group_by == "study" else "all"
        parts = groups.setdefault((row.model, study, tuple(sorted(config.mixes[row.mix].corpora))), [[]])
        used = sum(sae_bytes(each, model.d_model) for each in parts[-1])
        if parts[-1] and used + sae_bytes(row, model.d_model) > model.harvest.group_memory_mb * 1e6:
            parts.append([])
        parts[-1].append(row)
    return [
        TrainingGroup(f"{model}/{study}/{'+'.join(corpora)}-{number}", model, corpora, tuple(part))
        for (model, study, corpora), parts in groups.items()
        for number, part in enumerate(parts)
    ]


def check_streams(config: AtlasConfig, studies: Mapping[str, list[SaeRow]]) -> None:
    """Raise ConfigError for windows that hold no batch, and SAEs that fit into no group."""
    for study, rows in studies.items():
        for row in rows:
            if row.published is not None:
                continue
            model = config.models[row.model]
            for corpus in config.mixes[row.mix].corpora:
                _check_window(f"studies.{study}: {row.sae_id!r}", row, corpus, model.harvest.of(corpus))
            needed = sae_bytes(row, model.d_model) / 1e6
            if model.harvest.mode == "stream" and needed > model.harvest.group_memory_mb:
                raise ConfigError(
                    f"studies.{study}: {row.sae_id!r} needs {needed:,.0f} MB for the weights, gradients and moments of "
                    f"{row.n_latents:,} latents, models.{row.model}.harvest.group_memory_mb is "
                    f"{model.harvest.group_memory_mb:,}; raise it, or lower n_latents"
                )


def _check_window(where: str, row: SaeRow, corpus: str, harvest: Harvest) -> None:
    assert row.recipe is not None  # only published SAEs have none
    if harvest.window_shards is None:
        return
    sizes = harvest.shard_sizes("train")
    for first in range(0, len(sizes), harvest.window_shards):
        tokens = sum(sizes[first : first + harvest.window_shards])
        if tokens < row.recipe.batch_size:
            last = min(first + harvest.window_shards, len(sizes)) - 1
            raise ConfigError(
                f"{where} draws batches of {row.recipe.batch_size:,} rows, but the window of shards {first} to {last} "
                f"of corpus {corpus!r} has {tokens:,} tokens (window_shards {harvest.window_shards}, shard_tokens "
                f"{harvest.shard_tokens:,}, train_tokens {harvest.train_tokens:,}); raise window_shards or "
                "shard_tokens, choose train_tokens that fill the last window, or lower batch_size"
            )
