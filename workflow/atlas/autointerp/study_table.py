"""Auto-interpretation of a study: one row per SAE, dictionary, explainer, scorer and kind of negatives."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.autointerp.planted import ALL, PLANTED_CLASSES, RANDOM
from atlas.sae_files import read_of_sae
from atlas.statistics.intervals import difference_interval
from atlas.studies.rows import frame_of, identity
from atlas.studies.table import flat, random_seed
from atlas.tables import read_parquet, write_csv

# What the labels are held against: the guide's redundancy, and how badly rows are reconstructed.
_REDUNDANCY = ("absorption_guide", "mean_max_cosine")
# Rows that agree in these differ in their model alone.
_PLACE = ["hook", "target_hook", "mix", "recipe", "seed"]
_QUESTION = ["dictionary", "explainer", "scorer", "negatives"]
_SCORE = ["score", "score_interval_low", "score_interval_high"]
RANDOM_MODEL = "random model"


@dataclass(frozen=True)
class LabelFiles:
    """Files of one SAE; `corpus` is one it was trained on. latents.parquet is the one with outcomes."""

    summary: Path
    latents: Path
    told: Path
    metrics: Path
    corpus: str


def write_autointerp_table(study: str, saes: Mapping[str, LabelFiles], table: Path) -> None:
    """Write results/<study>_autointerp.csv (SAE id → files); FVU is that on text like its training's.

    Rows of the random dictionary are controls: their redundancy is that of the null, and they have no FVU and no
    outcomes. Columns: docs/metrics.md, section 14. Raises EvaluationError when a file is of another SAE.
    """
    rows = [row for sae_id, files in saes.items() for row in _rows(study, sae_id, files)]
    write_csv(table, beside_random_model(frame_of(rows)))


def beside_random_model(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of an SAE with those of the SAE of a model with random weights beside them, where a study has one.

    `over_random_model` is the difference of the scores; its interval combines both by their distances from the values
    (MOVER, Zou and Donner 2008). An interval above 0 beats the control; it joins `beats`, or else `does_not_beat`.
    """
    random = rows[rows.random_weights.notna()]
    if random.empty or not set(_SCORE) <= set(rows):
        return rows
    keys = [*_PLACE, *_QUESTION]
    names = {name: f"random_model_{name.removeprefix('score_')}" for name in _SCORE} | {"model": "random_model"}
    control = random[[*keys, "model", *_SCORE]].drop_duplicates(keys).rename(columns=names)
    merged = rows.merge(control, on=keys, how="left", validate="many_to_one")
    own, other = ([merged[name] for name in columns] for columns in (_SCORE, [names[name] for name in _SCORE]))
    held = merged.random_weights.isna() & merged.random_model.notna() & (merged.dictionary == "sae")
    held &= own[0].notna() & other[0].notna()
    merged.loc[~held, ["random_model", *(names[name] for name in _SCORE)]] = None
    low, high = difference_interval(*other, *own)
    merged["over_random_model"] = (own[0] - other[0]).where(held)
    merged["over_random_model_interval_low"] = low.where(held)
    merged["over_random_model_interval_high"] = high.where(held)
    beaten = held & (merged.over_random_model_interval_low > 0)
    for column, where in (("beats", beaten), ("does_not_beat", held & ~beaten)):
        joined = merged[column].where(merged[column] == "", merged[column] + ", ") + RANDOM_MODEL
        merged[column] = merged[column].where(~where, joined)
    merged["verdict"] = merged.verdict.where(~(held & ~beaten), "does not beat " + merged.does_not_beat)
    return merged


def _rows(study: str, sae_id: str, files: LabelFiles) -> Iterator[dict[str, Any]]:
    summary, metrics = read_of_sae(files.summary, sae_id), read_of_sae(files.metrics, sae_id)
    shares_told = read_of_sae(files.told, sae_id)
    latents = read_parquet(files.latents, columns=["outcome", "told_by"])
    shares = latents.outcome.value_counts(normalize=True)
    told = latents.told_by.fillna("nothing").value_counts(normalize=True)
    for own in summary["rows"]:
        ours = own["dictionary"] == "sae"
        key = "value" if ours else "null_mean"
        columns: dict[str, Any] = {}
        for name, value in own.items():
            if isinstance(value, dict) and "value" in value:
                columns |= {each.removesuffix("_value"): number for each, number in flat(name, value)}
            elif not isinstance(value, dict | list):
                columns[name] = value
        yield {
            **identity(study, sae_id),
            "random_weights": random_seed(metrics.get("random_weights")),
            **columns,
            "beats": ", ".join(own["beats"]),
            "does_not_beat": ", ".join(own["does_not_beat"]),
            "unscored": json.dumps(own["unscored"], sort_keys=True),
            **{name: metrics["redundancy"][name][key] for name in _REDUNDANCY},
            "fvu": metrics["corpora"][files.corpus]["atlas"]["fvu_regular"] if ours else None,
            "outcome_shares": json.dumps(shares.round(4).to_dict(), sort_keys=True) if ours else None,
            "told_by_shares": json.dumps(told.round(4).to_dict(), sort_keys=True) if ours else None,
            "told_by_token_share": summary["by_token"][own["dictionary"]]["share_told"],
            **_share("told", shares_told[own["dictionary"]]),
            **_share("planted_told", shares_told["planted"].get(ALL, {})),
            **_ends(summary["ceilings"], own),
        }


def _share(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a share of latents that something tells, with its interval and the number of latents."""
    low, high = told.get("interval") or (None, None)
    ends = {f"{name}_interval_low": low, f"{name}_interval_high": high}
    return {f"{name}_share": told.get("share"), **ends, f"{name}_latents": told.get("n")}


def _ends(ceilings: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """Mean scores of planted latents by class, for the explainer, scorer and negatives of a row; None where none is."""
    scores = {
        (own["class"], own["dense"]): own["score"]
        for own in ceilings
        if (own["explainer"], own["scorer"]) == (row["explainer"], row["scorer"]) and row["negatives"] == "random"
    }
    columns: dict[str, Any] = {}
    for name in PLANTED_CLASSES:
        for dense, suffix in ((False, ""), (True, "_dense")) if name != RANDOM else ((False, ""),):
            score = scores.get((name, dense)) or {"value": None, "interval": None}
            low, high = score["interval"] or (None, None)
            key = f"planted_{name}{suffix}"
            columns |= {key: score["value"], f"{key}_interval_low": low, f"{key}_interval_high": high}
    return columns
