"""Twins of a study's SAEs: the trained nulls that every row and seed gets. docs/twins.md."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from atlas.config.recipe import Recipe, TwinKind
from atlas.config.rows import SaeRow, expand_rows
from atlas.config.sections import AtlasConfig
from atlas.errors import ConfigError


def twins_of(row: SaeRow, kinds: Sequence[TwinKind], where: str = "twins") -> dict[TwinKind, SaeRow]:
    """Make the twins of one SAE: the same row, named ``<recipe>.<kind>``, with the recipe's key `twin`.

    Raises ConfigError, which begins with `where`, for a row that can have none.
    """
    if row.target_hook is not None:
        raise ConfigError(
            f"{where}: {row.sae_id!r} is a transcoder, which has no twins: its input and target are different spaces; "
            "give transcoders a study without `twins`"
        )
    if row.shift is not None:
        raise ConfigError(
            f"{where}: {row.judged_id!r} is judged away from home, where twins are not judged; give rows with a shift "
            "a study without `twins`"
        )
    assert row.recipe is not None  # only published SAEs have none, and they are left out
    if row.recipe.twin is not None:
        raise ConfigError(f"{where}: {row.sae_id!r} is a twin already (twin: {row.recipe.twin}); leave out that key")
    return {kind: _twin(row, kind, where) for kind in kinds}


def expand_twins(config: AtlasConfig) -> dict[str, dict[str, dict[TwinKind, SaeRow]]]:
    """List for each study with twins the id of each SAE that was trained here, and its twins by kind.

    Raises ConfigError with study, SAE and what was expected.
    """
    studies = expand_rows(config)
    known = {row.sae_id: row for rows in studies.values() for row in rows}
    found: dict[str, dict[str, dict[TwinKind, SaeRow]]] = {}
    for name, study in config.studies.items():
        if not study.twins:
            continue
        where, trained = f"studies.{name}.twins", [row for row in studies[name] if row.published is None]
        if not trained:
            raise ConfigError(
                f"{where}: every row is a published SAE, whose training is unknown: no twin can be trained beside it; "
                "leave out `twins`"
            )
        found[name] = {row.sae_id: twins_of(row, study.twins, where) for row in trained}
        for twins in found[name].values():
            for kind, twin in twins.items():
                other = known.get(twin.sae_id)
                if other is not None and other.recipe != twin.recipe:
                    raise ConfigError(
                        f"studies.{name}.twins: {kind} is to be {twin.sae_id!r}, which study {other.study!r} trains "
                        f"otherwise; rename recipe {twin.recipe_name!r}"
                    )
    return found


def _twin(row: SaeRow, kind: TwinKind, where: str) -> SaeRow:
    assert row.recipe is not None  # checked by twins_of
    try:
        recipe = Recipe.model_validate(row.recipe.model_dump(exclude_unset=True) | {"twin": kind})
    except ValidationError as error:
        raise ConfigError(f"{where}: {row.sae_id!r} has no twin {kind}: {error.errors()[0]['msg']}") from error
    return replace(row, recipe_name=f"{row.recipe_name}.{kind}", recipe=recipe, intended=None, cause=None)
