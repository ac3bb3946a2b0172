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
class Group:
    """SAEs that one job trains from one pass of their model: they share the model and its training corpora."""

    name: str
    model: str
    corpora: tuple[str, ...]
    rows: tuple[SaeRow, ...]


def sae_bytes(row: SaeRow, d_model: int) -> int:
    """Memory for weights, gradients and moments of an SAE while it is trained."""
    return _COPIES * 4 * 2 * row.recipe.n_latents * d_model


def stream_groups(config: AtlasConfig, rows: Iterable[SaeRow]) -> list[Group]:
    """Groups of all SAEs whose models stream, in the order of `rows`, in which an SAE may occur again.

    SAEs share a group up to `group_memory_mb` of their model; what is more makes a further group.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[list[SaeRow]]] = {}
    for row in {row.sae_id: row for row in rows}.values():
        model = config.models[row.model]
        if model.harvest.mode != "stream":
            continue
        parts = groups.setdefault((row.model, tuple(sorted(config.mixes[row.mix].corpora))), [[]])
        used = sum(sae_bytes(each, model.d_model) for each in parts[-1])
        if parts[-1] and used + sae_bytes(row, model.d_model) > model.harvest.group_memory_mb * 1e6:
            parts.append([])
        parts[-1].append(row)
    return [
        Group(f"{model}/{'+'.join(corpora)}-{number}", model, corpora, tuple(part))
        for (model, corpora), parts in groups.items()
        for number, part in enumerate(parts)
    ]


def check_streams(config: AtlasConfig, studies: Mapping[str, list[SaeRow]]) -> None:
    """Raise ConfigError for windows that hold no batch, SAEs that fit into no group, and what needs stored rows."""
    for study, rows in studies.items():
        for row in rows:
            model = config.models[row.model]
            for corpus in config.mixes[row.mix].corpora:
                _check_window(f"studies.{study}: {row.sae_id!r}", row, corpus, model.harvest.of(corpus))
            needed = sae_bytes(row, model.d_model) / 1e6
            if model.harvest.mode == "stream" and needed > model.harvest.group_memory_mb:
                raise ConfigError(
                    f"studies.{study}: {row.sae_id!r} needs {needed:,.0f} MB for the weights, gradients and moments of "
                    f"{row.recipe.n_latents:,} latents, models.{row.model}.harvest.group_memory_mb is "
                    f"{model.harvest.group_memory_mb:,}; raise it, or lower n_latents"
                )
            if row.intended and config.models[row.judged.model].harvest.mode == "stream":
                raise ConfigError(
                    f"studies.{study}: {row.judged_id!r} provokes {row.intended!r}, for which silent latents are "
                    f"counted on stored training text; models.{row.judged.model}.harvest.mode is 'stream', which keeps "
                    "none: use mode 'store'"
                )
    if config.frameworks is not None and config.frameworks.study in studies:
        for name in {row.model for row in studies[config.frameworks.study]}:
            if config.models[name].harvest.mode == "stream":
                raise ConfigError(
                    f"frameworks.study: {config.frameworks.study!r} trains on {name!r}, whose harvest.mode is "
                    "'stream'; frameworks read stored training text: use mode 'store'"
                )


def _check_window(where: str, row: SaeRow, corpus: str, harvest: Harvest) -> None:
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
