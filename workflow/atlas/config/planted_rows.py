"""Checks of study rows whose truth is planted: before anything is computed."""

from collections.abc import Iterable

from atlas.config.planted import PlantedSource, SampleSource
from atlas.config.recipe import Recipe
from atlas.config.sections import AtlasConfig
from atlas.errors import ConfigError


def check_planted(config: AtlasConfig, model: str, corpora: Iterable[str], recipe: Recipe, where: str) -> None:
    """Raise ConfigError when a row mixes text and planted rows, or its recipe cannot hold the truth."""
    corpora = list(dict.fromkeys(corpora))
    check_samples(config, model, corpora, where)
    source = config.models[model].source
    if not isinstance(source, PlantedSource):
        return
    by_seed: dict[int, str] = {}
    for corpus in corpora:
        sample = config.corpora[corpus].source
        assert isinstance(sample, SampleSource)  # check_samples
        other = by_seed.setdefault(sample.seed, corpus)
        if other != corpus:
            raise ConfigError(
                f"corpora.{corpus}.source.seed is {sample.seed}, as that of {other!r}: {where} "
                "would judge the rows that it trains on; give each corpus a seed of its own"
            )
    if recipe.n_latents < source.n_scored:
        raise ConfigError(
            f"{where}: {model!r} has {source.n_scored} features to be found, but its recipe has {recipe.n_latents} "
            f"latents and can hold {recipe.n_latents / source.n_scored:.0%} of them at most; expected n_latents of at "
            f"least {source.n_scored}, or scored_features of models.{model}.source at most {recipe.n_latents}"
        )


def check_samples(config: AtlasConfig, model: str, corpora: Iterable[str], where: str) -> None:
    """Raise ConfigError unless a planted model meets planted corpora, and a language model text."""
    planted = config.models[model].is_planted
    for corpus in corpora:
        if config.corpora[corpus].is_planted != planted:
            kinds = {True: "a planted_sample", False: "text"}
            raise ConfigError(
                f"{where}: model {model!r} is {'planted' if planted else 'a language model'}, but corpus {corpus!r} is "
                f"{kinds[not planted]}; expected {kinds[planted]}"
            )


def check_usefulness(config: AtlasConfig, study: str) -> None:
    """Raise ConfigError where a study asks for usefulness of SAEs that cannot have it."""
    asked, rows = config.studies[study].usefulness, config.studies[study].rows
    if not asked:
        return
    where = f"studies.{study}.usefulness"
    models = {row.model or config.studies[study].model for row in rows if row.sae is None}
    planted = sorted(name for name in models if name in config.models and config.models[name].is_planted)
    if planted:
        raise ConfigError(
            f"{where} is {list(asked)}, but model {planted[0]!r} is planted: its rows have no text for readers; leave "
            "out the key; results/<study>_recovery.csv says what such a dictionary found"
        )
    if all(row.shift is not None for row in rows):
        raise ConfigError(
            f"{where} is {list(asked)}, but every row has a shift: usefulness is of SAEs where they were trained; "
            "leave out the key, or add a row without a shift"
        )
