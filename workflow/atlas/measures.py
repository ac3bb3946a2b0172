"""List the measures of studies. A package with a `study.py` is added by one line here."""

from functools import cache
from importlib import import_module

from atlas.measure import Measure, Stage

PACKAGES = (
    "latents",
    "densities",
    "stability",
    "probing",
    "absorption",
    "autointerp",
    "blind_reading",
    "causal",
    "concepts",
    "twins",
    "usefulness",
    "budget",
    "transfer",
    "regimes",
    "finance",
    "planted",
    "sae_bench",
)
# Of files that every study has.
_OF_ALL = ("_runs", "_training", "_width", "_public")


@cache
def measures() -> tuple[Measure, ...]:
    """Measures, in the order of their packages."""
    # Imported by name, so that one line adds a measure; and here, because their files read the configuration's types.
    return tuple(import_module(f"atlas.{package}.study").MEASURE for package in PACKAGES)


@cache
def stages() -> tuple[Stage, ...]:
    """Stages of all measures."""
    return tuple(stage for each in measures() for stage in each.stages)


@cache
def endings() -> tuple[str, ...]:
    """List what follows the name of a study in names of its files; no study may be named so."""
    return tuple(dict.fromkeys([*_OF_ALL, *(ending for each in measures() for ending in each.endings())]))
