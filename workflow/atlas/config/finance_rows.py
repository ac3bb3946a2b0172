"""Check that section `finance` names studies, roles and corpora that fit together."""

from atlas.config.rows import expand_rows
from atlas.config.sections import AtlasConfig
from atlas.errors import ConfigError


def check_finance(config: AtlasConfig) -> None:
    """Raise ConfigError with key, value and what was expected."""
    studies = expand_rows(config) if config.finance else {}
    for study, section in config.finance.items():
        where = f"finance.{study}"
        if study not in studies:
            raise ConfigError(f"{where}: {study!r} is no study; expected one of {sorted(studies)}")
        for key in ("corpus", "generic", "rewritten", "moved"):
            if (name := getattr(section, key)) not in config.corpora:
                raise ConfigError(f"{where}.{key}: {name!r} is not one of {sorted(config.corpora)}")
        _check_same_text(config, study, where)
        for row in studies[study]:
            if row.target_hook is not None:
                raise ConfigError(f"{where}: {row.sae_id!r} is a transcoder; expected a study of SAEs alone")
            for key in ("corpus", "generic"):
                if (name := getattr(section, key)) not in row.roles:
                    raise ConfigError(
                        f"{where}.{key}: {row.sae_id!r} is not evaluated on {name!r}; give it a role there, it has "
                        f"{row.roles}"
                    )
            if row.published is not None:
                raise ConfigError(
                    f"{where}: {row.recipe_name!r} is a published SAE, and nobody knows whether it saw financial text; "
                    "expected a study of SAEs that are trained here"
                )
            for key in ("rewritten", "moved"):
                if (name := getattr(section, key)) in config.mixes[row.mix].corpora:
                    raise ConfigError(f"{where}.{key}: {name!r} is in training mix {row.mix!r}; it must be held out")


def _check_same_text(config: AtlasConfig, study: str, where: str) -> None:
    """Only documents that are the same but for the wrapper can be compared token by token."""
    section = config.finance[study]
    plain = config.corpora[section.corpus]
    wrappers = {section.corpus: plain.wrapper}
    for key in ("rewritten", "moved"):
        name = getattr(section, key)
        other = config.corpora[name]
        if other.wrapper in wrappers.values():
            raise ConfigError(f"{where}.{key}: the wrapper of {name!r} is that of another of {sorted(wrappers)}")
        wrappers[name] = other.wrapper
        for field in type(plain).model_fields:
            ours, theirs = getattr(plain, field), getattr(other, field)
            if field != "wrapper" and ours != theirs:
                raise ConfigError(
                    f"{where}.{key}: {field} of {name!r} is {theirs!r}, but {ours!r} of {section.corpus!r}; they must "
                    "differ in their wrapper alone"
                )
