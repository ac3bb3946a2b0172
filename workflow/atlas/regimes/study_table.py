"""The table of provoked regimes, and how often each was called by its name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.evaluation.outcome import COPIES
from atlas.files import read_json
from atlas.statistics.intervals import rate_interval
from atlas.studies.rows import frame_of, identity
from atlas.studies.table import because
from atlas.tables import write_csv
from atlas.twins.learnt import UNTESTED

RANDOM = "random dictionary"
# Rows that agree in these have one random dictionary at one place.
_RANDOM = ["hook", "mix", "recipe", "seed", "random_explained_variance_regular"]
_EVIDENCE = (
    "explained_variance",
    "explained_variance_regular",
    "explained_variance_regular_interval",
    "l0",
    "dense_pct",
    "delta_loss_regular",
    "loss_recovered_mean_regular",
)


def write_regimes(
    study: str,
    rows: Sequence[Mapping[str, str | None]],
    metrics: Sequence[Path],
    regimes: Sequence[Path],
    table: Path,
    confusion: Path,
) -> None:
    """Write results/<study>_regimes.csv and _confusion.csv.

    `rows` have sae_id, shift, intended and cause, in the order of their files.
    """
    found = [
        _row(study, row, read_json(one), read_json(other))
        for row, one, other in zip(rows, metrics, regimes, strict=True)
    ]
    frame = frame_of(found)
    for target, values in ((table, frame), (confusion, confusion_table(frame))):
        write_csv(target, values)


def _row(study: str, row: Mapping[str, Any], metrics: dict[str, Any], regime: dict[str, Any]) -> dict[str, Any]:
    judged, outcome = metrics["corpora"][regime["corpus"]], regime["outcome"]
    atlas, redundancy = judged["atlas"], metrics["redundancy"]
    result = identity(study, row["sae_id"]) | {
        "shift": row["shift"],
        "cause": row["cause"],
        "intended": row["intended"],
        "outcome": outcome["verdict"],
        "learnt": UNTESTED,
        "as_intended": outcome["verdict"] == row["intended"],
        "outcome_because": because(outcome),
        "outcome_unknown": "; ".join(outcome["unknown"]),
        "corpus": regime["corpus"],
        "n_latents": metrics["n_latents"],
        "k": metrics["k"],
    }
    for name in _EVIDENCE:
        if name.endswith("_interval"):
            result[f"{name}_low"], result[f"{name}_high"] = atlas[name] or (None, None)
        else:
            result[name] = atlas[name]
    absorption, copies = redundancy["absorption_guide"], redundancy[COPIES]
    result |= {
        "absorption_guide": absorption["value"],
        "absorption_guide_null_mean": absorption["null_mean"],
        "absorption_guide_null_sd": absorption["null_sd"],
        COPIES: copies["value"],
        f"{COPIES}_null_mean": copies["null_mean"],
        f"{COPIES}_null_sd": copies["null_sd"],
    }
    *few, every = regime["deadness"]
    for name in ("dead_pct", "dead_tokens", "dead_status", "dead_pct_upper", "expected_false_dead"):
        result[name] = every[name]
    for count in few:
        tokens = count["dead_tokens"]
        result[f"dead_pct_at_{tokens}"] = count["dead_pct"]
        result[f"expected_false_dead_at_{tokens}"] = count["expected_false_dead"]
        result[f"outcome_at_{tokens}_if_silent_is_dead"] = count["outcome_if_silent_is_dead"]["verdict"]
    return result | {
        "outcome_on_evaluation_text": judged["outcome"]["atlas"]["verdict"],
        "guide_outcome": judged["outcome"]["guide"]["verdict"],
        "guide_loss_recovered_pct": judged["guide"]["loss_recovered_pct"],
        "random_explained_variance_regular": judged["random"]["explained_variance_regular"],
        "random_outcome": judged["random"]["outcome"]["verdict"],
    }


def confusion_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return how often each intended regime got each verdict: n of `of`, the share and its 95 % Clopper–Pearson
    interval.

    One more kind of row, `random dictionary`: what is said of random dictionaries of the same shapes at the same
    places. None of them learnt anything, so how often one is called `good` is the taxonomy's false-positive rate.
    """
    # A shift of scale has the random dictionary of home, on the same rows: it is counted once.
    random = table.drop_duplicates(_RANDOM)
    pairs = list(zip(table.intended, table.outcome, strict=True)) + [(RANDOM, name) for name in random.random_outcome]
    frame = pd.DataFrame(pairs, columns=["intended", "verdict"])
    counts = frame.value_counts(sort=False).rename("n").reset_index()
    order = list(dict.fromkeys(frame.intended))
    counts = counts.sort_values(["intended", "n"], key=lambda c: c.map(order.index) if c.name == "intended" else -c)
    of = frame.intended.value_counts()
    counts["of"] = counts.intended.map(of)
    counts["share"] = counts.n / counts.of
    counts["share_low"], counts["share_high"] = rate_interval(counts.n, counts.of)
    counts["as_intended"] = counts.intended == counts.verdict
    return counts.reset_index(drop=True)
