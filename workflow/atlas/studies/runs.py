"""The trainings of a study side by side: in what their run cards differ, what came out, and what it cost."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atlas.runcard import is_published, read_run_card
from atlas.sae_ids import NOT_STATED, SaeId
from atlas.studies.rows import frame_of
from atlas.tables import write_csv

# Sections that are results, not settings, and names that repeat the SAE's own.
_NO_SETTINGS = ("names", "outcomes", "cost", "warnings", "seed")
_ALWAYS = ("sae.architecture", "sae.n_latents", "sae.k")
_COST = ("wall_seconds", "rows_per_second", "stall_share")


def write_runs_table(cards: Mapping[str, Path], table: Path) -> None:
    """Write results/<study>_runs.csv from the run cards of its SAEs (SAE id → run_card.yaml), in their order.

    One row per SAE: its identity; every setting that is not the same in all cards, under its name on the card
    (``optimisation.lr``); the last look at each split (``outcome.oos.explained_variance``); cost; names of warnings.
    """
    read = {sae_id: read_run_card(path) for sae_id, path in cards.items()}
    settings = {sae_id: dict(_flat(_settings(card))) for sae_id, card in read.items()}
    keys = list(dict.fromkeys(key for flat in settings.values() for key in flat))
    differing = [key for key in keys if len({repr(flat.get(key)) for flat in settings.values()}) > 1]
    shown = [*_ALWAYS, *(key for key in differing if key not in _ALWAYS)]
    rows = [
        _identity(sae_id)
        | {key: settings[sae_id].get(key) for key in shown}
        | {f"outcome.{key}": value for key, value in _flat(_known(card["outcomes"]))}
        | _cost(card)
        | {"warnings": "; ".join(warning.split(":", 1)[0] for warning in card["warnings"])}
        for sae_id, card in read.items()
    ]
    write_csv(table, frame_of(rows))


def _identity(sae_id: str) -> dict[str, Any]:
    """A transcoder's two hooks stay one name here."""
    own = SaeId.parse(sae_id)
    return {key: value for key, value in own.columns.items() if key != "target_hook"} | {"hook": str(own.hooks)}


def _settings(card: Mapping[str, Any]) -> dict[str, Any]:
    known = {section: value for section, value in card.items() if value != NOT_STATED}
    return {section: value for section, value in known.items() if section not in _NO_SETTINGS}


def _cost(card: Mapping[str, Any]) -> dict[str, Any]:
    if is_published(card):  # reading it cost something; training it is not known to
        return {}
    cost = card["cost"]
    own = {f"cost.{key}": cost[key] for key in _COST}
    own |= {f"cost.peak_memory_mb.{key}": value for key, value in cost["peak_memory_mb"].items()}
    return own | {"cost.resumed": len(cost["resumed_from_steps"])}


def _known(section: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """A section of the card; none where the card says in words that it is not known."""
    return section if isinstance(section, Mapping) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested fields by dotted name; a list is one value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
