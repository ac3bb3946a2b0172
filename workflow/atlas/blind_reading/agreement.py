"""Compare readers of a sheet with each other, and the automatic measures with the readers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from atlas.autointerp.outcome import Deciding, judged_latents
from atlas.blind_reading.items import RANDOM, SAE, Sheet
from atlas.blind_reading.sheet import read_key
from atlas.blind_reading.votes import VOTES, read_votes
from atlas.codes.encode import sae_sha256
from atlas.config.autointerp import Autointerp
from atlas.errors import EvaluationError
from atlas.folder import Folder
from atlas.statistics.clusters import cluster_interval
from atlas.statistics.intervals import difference_interval, rate_interval
from atlas.statistics.ranks import rank_correlation
from atlas.tables import read_arrow, write_csv

CLEAR = VOTES.index("clear")
MEDIAN = "median reader"
# The outcome of a latent whose firing is told by its token, or by its label.
TOLD = "good"
# Automatic measures by their columns in `judged_latents`, which are ranked beside readers' votes.
_RANKED = {"label score": "random_score", "token correlation": "token_correlation"}


@dataclass(frozen=True)
class LabelFiles:
    """Name the files of one SAE: its folder, latents.parquet, and labels, scores and tokens of autointerp."""

    folder: Folder
    latents: Path
    labels: Path
    scores: Path
    tokens: Path


def write_reading_table(
    key: Path, votes: Sequence[Path], files: Mapping[str, LabelFiles], settings: Autointerp, table: Path
) -> None:
    """Write results/<study>_reading.csv; `files` are those of each SAE id.

    Raises EvaluationError for votes on another sheet, half a sheet, or tables of another SAE.
    """
    sheet = read_key(key)
    read = read_votes(votes, sheet)
    write_csv(table, reading_table(sheet, read, judged_items(sheet, files, settings)))


def judged_items(sheet: Sheet, files: Mapping[str, LabelFiles], settings: Autointerp) -> pd.DataFrame:
    """Look up what is said automatically of each item: the columns of `judged_latents`, by item number."""
    rows = []
    items = pd.DataFrame(vars(item) for item in sheet.items)
    for (sae_id, sha256), own in items.groupby(["sae_id", "sae_sha256"]):
        if sae_id not in files or sae_sha256(files[sae_id].folder) != sha256:
            raise EvaluationError(
                f"{sae_id}: the sheet was made of an SAE with hash {sha256}, which is gone; read a new one"
            )
        given = files[sae_id]
        tables = [read_arrow(path) for path in (given.latents, given.labels, given.scores, given.tokens)]
        frames = [each.to_pandas() for each in tables]
        for kind, part in own.groupby("dictionary"):
            dictionary = RANDOM if kind == RANDOM else SAE  # a twin has tables of its own
            judged = judged_latents(*frames, deciding=Deciding.of(settings), dictionary=dictionary).set_index("latent")
            rows.append(judged.reindex(part.latent).set_index(part.number))
    return pd.concat(rows).sort_index()


def reading_table(sheet: Sheet, votes: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Compute one row per measure, kind of dictionary and reader: value with its 95 % interval and number of items.

    `share_clear`: items marked clear, Clopper–Pearson. `clear_above`: this share of the SAEs minus the one of random
    dictionaries, or of a kind of twin, with the combined interval of both (MOVER). `kappa`: Cohen's kappa of two
    readers, of clear or not. `kappa_outcome`: of a reader and the outcome *good*. `rank_correlation`: Spearman's, of an
    automatic measure and the votes' ranks. Intervals of the last three are jackknives over items; null with fewer than
    four. The median reader has the lower median of all votes.
    """
    votes = votes.sort_index()
    if len(votes.columns) > 1:
        ranked = np.sort(votes.to_numpy(), axis=1)
        votes = votes.assign(**{MEDIAN: ranked[:, (ranked.shape[1] - 1) // 2]})
    kinds = pd.Series({item.number: item.dictionary for item in sheet.items})
    told = (judged.outcome == TOLD).reindex(votes.index).to_numpy()
    rows = []
    for reader, marks in votes.items():
        clear = marks.to_numpy() == CLEAR
        shares = {kind: _share(clear[(kinds == kind).reindex(votes.index).to_numpy()]) for kind in kinds.unique()}
        for kind, (n, value, low, high) in sorted(shares.items()):
            rows.append(_row("share_clear", kind, reader, "", n, value, [low, high]))
            if kind != SAE and SAE in shares:
                above = difference_interval(value, low, high, *shares[SAE][1:])
                n_both = n + shares[SAE][0]
                rows.append(_row("clear_above", SAE, reader, kind, n_both, shares[SAE][1] - value, list(above)))
        rows.append(_of_pairs("kappa_outcome", "all", reader, "outcome good", clear, told, _kappa))
        for name, column in _RANKED.items():
            value = judged[column].reindex(votes.index).astype(float).to_numpy()
            known = np.isfinite(value)
            pairs = (value[known], marks.to_numpy()[known])
            rows.append(_of_pairs("rank_correlation", "all", reader, name, *pairs, _spearman))
    for first, second in combinations([name for name in votes if name != MEDIAN], 2):
        both = (votes[first].to_numpy() == CLEAR, votes[second].to_numpy() == CLEAR)
        rows.append(_of_pairs("kappa", "all", first, second, *both, _kappa))
    return pd.DataFrame(rows).assign(study=sheet.study, sheet=sheet.sheet_id)


def _share(clear: np.ndarray) -> tuple[int, float, float, float]:
    """Number of items, share of clear ones, and its interval."""
    low, high = rate_interval(np.array(clear.sum()), len(clear))
    return len(clear), float(clear.mean()), float(low), float(high)


def _kappa(first: np.ndarray, second: np.ndarray) -> float:
    if len(np.unique(np.concatenate([first, second]))) < 2:
        return float("nan")  # with one value alone chance agrees as well
    return float(cohen_kappa_score(first, second))


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    found = rank_correlation(first, second)
    return float("nan") if found is None else found


def _of_pairs(
    measure: str,
    kind: str,
    reader: str,
    other: str,
    first: np.ndarray,
    second: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray], float],
) -> dict[str, object]:
    def of_counts(counts: np.ndarray) -> np.ndarray:
        return np.array([statistic(first[kept], second[kept]) for kept in counts.astype(bool)])

    value = statistic(first, second) if len(first) else float("nan")
    return _row(measure, kind, reader, other, len(first), value, cluster_interval(of_counts, len(first), (-1.0, 1.0)))


def _row(
    measure: str, kind: str, reader: str, other: str, n: int, value: float, interval: list[float] | None
) -> dict[str, object]:
    low, high = interval or (np.nan, np.nan)
    return {
        "measure": measure,
        "dictionary": kind,
        "reader": reader,
        "compared_with": other,
        "n": n,
        "value": value,
        "low": low,
        "high": high,
    }
