"""Join what training drew with what evaluation and usefulness say: one row per SAE of a study of budgets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.errors import EvaluationError
from atlas.hook_points import SaeHooks
from atlas.runcard import read_run_card
from atlas.sae_files import require_sae
from atlas.sae_ids import SaeId
from atlas.studies.rows import frame_of, identity
from atlas.tables import read_csv, write_csv

_SAE = ["model", "hook", "target_hook", "mix", "recipe", "seed"]
_ENDS = ("low", "high")


@dataclass(frozen=True)
class Quantity:
    """A quantity of the table, and the columns that it is read from.

    `floor` is what a random dictionary scores and `twin` the best twin's value, in the study's table. A quantity of
    the table of usefulness has its floor, ceiling and twin there, under its own name.
    """

    value: str
    floor: str | None = None
    twin: str | None = None


# Of results/<study>.csv.
OF_METRICS = {
    "explained_variance": Quantity(
        "atlas_explained_variance_regular",
        "random_explained_variance_regular",
        "best_twin_value_explained_variance_regular",
    ),
    "delta_loss": Quantity("atlas_delta_loss_regular", twin="best_twin_value_delta_loss_regular"),
    "silent_pct": Quantity("atlas_dead_pct"),
    "dense_pct": Quantity("atlas_dense_pct"),
}
# Of results/<study>_usefulness.csv.
OF_USEFULNESS = ("loss", "coherence", "stability", "labels")
QUANTITIES = (*OF_METRICS, *OF_USEFULNESS)


def write_budget_table(
    study: str, cards: Mapping[str, Path], metrics_table: Path, usefulness_table: Path, table: Path
) -> None:
    """Write results/<study>_budget.csv from the run cards of the SAEs (SAE id → file) and two tables of the study.

    Columns: docs/metrics.md, section 21. SAEs without a row in the table of usefulness, those evaluated under a shift
    alone, are left out. Raises EvaluationError when a card is of another SAE, or when the study's table lacks an SAE.
    """
    metrics, usefulness = _by_sae(read_csv(metrics_table)), _by_sae(read_csv(usefulness_table))
    rows = []
    for sae_id, path in cards.items():
        key = _key(identity(study, sae_id))
        if key not in usefulness:
            continue
        (useful,) = usefulness[key]
        judged = [row for row in metrics.get(key, []) if row["corpus"] == useful["corpus"]]
        if not judged:
            raise EvaluationError(
                f"{metrics_table} has no row of {sae_id} on {useful['corpus']}, which {usefulness_table} has; make "
                "both again"
            )
        rows.append(identity(study, sae_id) | _trained(sae_id, path) | dict(_judged(judged[0], useful)))
    write_csv(table, frame_of(rows))


def _by_sae(table: pd.DataFrame) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        found.setdefault(_key(row), []).append({str(name): value for name, value in row.items()})
    return found


def _key(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return tuple("" if pd.isna(row[name]) else str(row[name]) for name in _SAE)


def _trained(sae_id: str, path: Path) -> dict[str, Any]:
    """Read from the run card which rows the SAE was trained on."""
    card = read_run_card(path)
    names, hooks = card["names"], SaeHooks.of(card["hook"], card["target_hook"])
    found = SaeId(names["model"], hooks, names["mix"], names["recipe"], card["seed"])
    require_sae(path, str(found), sae_id)
    own, tokens = card["optimisation"], card["tokens"]
    return {
        "n_latents": card["sae"]["n_latents"],
        "k": card["sae"]["k"],
        "steps": own["steps"],
        "batch_size": own["batch_size"],
        "rows": tokens["rows_drawn"],
        "distinct_rows": min(tokens["rows_drawn"], tokens["rows_trainable"]),
    }


def _judged(metrics: Mapping[str, Any], useful: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("corpus", "outcome", "learnt", "useful"):
        yield name, useful[name]
    for name, quantity in OF_METRICS.items():
        yield f"{name}_value", metrics[quantity.value]
        for end in _ENDS:
            yield f"{name}_interval_{end}", metrics.get(f"{quantity.value}_interval_{end}")
        yield f"{name}_floor", metrics.get(quantity.floor) if quantity.floor else None
        yield f"{name}_ceiling", None
        yield f"{name}_twin", metrics.get(quantity.twin) if quantity.twin else None
    for name in OF_USEFULNESS:
        for part in ("value", *(f"interval_{end}" for end in _ENDS), "floor", "ceiling"):
            yield f"{name}_{part}", useful[f"{name}_{part}"]
        yield f"{name}_twin", useful[f"{name}_value"] - useful[f"{name}_over_twin"]
        yield f"{name}_word", useful[f"{name}_word"]
