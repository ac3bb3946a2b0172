"""The table of latents: one row per latent, corpus and dictionary. Columns: docs/metrics.md, section 6."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from atlas.codes.store import Codes
from atlas.evaluation.sparsity import DENSE_RATE
from atlas.latents.activity import Activity, formatting_artefact, measure_activity
from atlas.latents.coherence import Coherence
from atlas.latents.contexts import TopContexts, top_contexts
from atlas.latents.drift import FiringCounts, log_ratio, newly_silent
from atlas.latents.fragmentation import Fragmentation, measure_fragmentation
from atlas.latents.text import CorpusText, ratio
from atlas.latents.token_classes import CLASSES, WORD, TokenTable
from atlas.statistics.intervals import rate_interval
from atlas.tables import write_parquet
from atlas.training.sae import Sae

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class CorpusMeasurements:
    """Measurements of a dictionary on a corpus."""

    text: CorpusText
    activity: Activity
    contexts: TopContexts
    fragmentation: Fragmentation

    @classmethod
    def of(cls, sae: Sae, codes: Codes, text: CorpusText, n_contexts: int, samples: int) -> "CorpusMeasurements":
        """Measure everything that needs no embedding."""
        activity = measure_activity(codes, text, samples)
        fragmentation = measure_fragmentation(sae.W_dec, codes, text, activity.n_firings)
        return cls(text, activity, top_contexts(codes, text, n_contexts), fragmentation)

    @property
    def firings(self) -> FiringCounts:
        """Firings by group of documents."""
        return FiringCounts(self.activity.by_group, self.text.tokens_of_group)


@dataclass(frozen=True)
class Status:
    """Number of tokens after which a silent latent is called dead; before, it is untested."""

    dead_min_tokens: int

    def of(self, n_firings: np.ndarray, n_tokens: int) -> np.ndarray:
        """alive, dead or untested."""
        silent = "dead" if n_tokens >= self.dead_min_tokens else "untested"
        return np.where(n_firings > 0, "alive", silent)


def decoder_columns(sae: Sae) -> pd.DataFrame:
    """Return what the weights alone say of each latent: the same on every corpus."""
    unit = torch.nn.functional.normalize(sae.W_dec.float(), dim=1)
    best, nearest = torch.empty(len(unit)), torch.empty(len(unit), dtype=torch.int64)
    for first in range(0, len(unit), _CHUNK):
        cosines = unit[first : first + _CHUNK] @ unit.T
        own = torch.arange(len(cosines))
        cosines[own, own + first] = -2.0  # below any cosine: a latent is no neighbour of itself
        best[first : first + _CHUNK], nearest[first : first + _CHUNK] = cosines.max(1)
    columns = {"max_cosine": best.double().numpy(), "nearest": nearest.numpy()}
    cosine = np.full(len(unit), np.nan)
    if not sae.is_transcoder:
        cosine = torch.nn.functional.cosine_similarity(sae.W_enc.T.double(), sae.W_dec.double(), dim=1).numpy()
    return pd.DataFrame({"encoder_decoder_cosine": cosine} | columns)


def latent_rows(
    decoder: pd.DataFrame,
    measured: CorpusMeasurements,
    coherence: Coherence | None,
    home: CorpusMeasurements,
    tokens: TokenTable,
    status: Status,
) -> pd.DataFrame:
    """Rows of one dictionary on one corpus; `home` is the same dictionary on the in-sample corpus."""
    text, activity = measured.text, measured.activity
    n_firings, n_tokens, n_latents = activity.n_firings, text.n_tokens, len(decoder)
    low, high = rate_interval(n_firings, n_tokens)
    columns = {
        "latent": np.arange(n_latents),
        "corpus": text.name,
        "role": text.role,
        "n_tokens": n_tokens,
        "n_firings": n_firings,
        "status": status.of(n_firings, n_tokens),
        "density": n_firings / n_tokens,
        "density_low": low,
        "density_high": high,
        "dense": n_firings > DENSE_RATE * n_tokens,
        "mean_activation": ratio(activity.mass, n_firings),
        "max_activation": np.where(n_firings > 0, activity.largest, np.nan),
        "massive_share": ratio(activity.massive_firings, n_firings),
        **_token_columns(activity, text, tokens),
        "n_contexts": measured.contexts.n_contexts,
        **_coherence_columns(coherence, n_latents),
        **_drift_columns(home, measured),
        "cluster": pd.array(measured.fragmentation.cluster, dtype="Int64"),
        **{name: decoder[name].to_numpy() for name in decoder},
    }
    rows = pd.DataFrame(columns)
    rows.loc[rows["cluster"] < 0, "cluster"] = pd.NA
    return rows


def write_sae_table(path: Path, rows: pd.DataFrame, first: Sequence[str], sae_id: str, sha256: str) -> None:
    """Write rows about latents as parquet, columns `first` ahead, NaN as null; metadata says which SAE they are of."""
    ordered = rows[[*first, *(name for name in rows if name not in first)]]
    written = pa.Table.from_pandas(ordered, preserve_index=False)
    write_parquet(path, written.replace_schema_metadata({"sae_id": sae_id, "sae_sha256": sha256}))


def _token_columns(activity: Activity, text: CorpusText, tokens: TokenTable) -> dict[str, Any]:
    shares = ratio(activity.class_mass, activity.mass[:, None])
    base = np.array([text.base_rates[name] for name in CLASSES])
    first_lift = ratio(ratio(activity.first_mass, activity.mass), np.full(len(shares), text.base_rates["first"]))
    nonword = 1 - shares[:, WORD]
    artefact = formatting_artefact(activity.n_firings, activity.first_firings, nonword, first_lift)
    counted = [index for index, name in enumerate(CLASSES) if name != "special"]  # special tokens are not counted
    return {
        **{f"mass_{CLASSES[index]}": shares[:, index] for index in counted},
        **{f"lift_{CLASSES[index]}": ratio(shares[:, index], np.full(len(shares), base[index])) for index in counted},
        "nonword_mass": nonword,
        "first_firings": activity.first_firings,
        "first_lift": first_lift,
        "formatting_artefact": pd.array([None if np.isnan(flag) else bool(flag) for flag in artefact], dtype="boolean"),
        "top_token": [tokens.texts[token] if token >= 0 else None for token in activity.top_token],
        "top_token_mass": ratio(activity.top_token_mass, activity.mass),
    }


def _coherence_columns(coherence: Coherence | None, n_latents: int) -> dict[str, np.ndarray]:
    nothing = np.full(n_latents, np.nan)
    if coherence is None:
        return dict.fromkeys(("coherence", "coherence_null_mean", "coherence_null_sd", "coherence_z"), nothing)
    return {
        "coherence": coherence.value,
        "coherence_null_mean": coherence.null_mean,
        "coherence_null_sd": coherence.null_sd,
        "coherence_z": coherence.z,
    }


def _drift_columns(home: CorpusMeasurements, measured: CorpusMeasurements) -> dict[str, object]:
    n_latents = len(measured.activity.n_firings)
    if measured.text.role == "in_sample":
        nothing = pd.array([None] * n_latents, dtype="boolean")
        return {"log_rate_ratio": np.full(n_latents, np.nan), "newly_silent": nothing}
    return {
        "log_rate_ratio": log_ratio(home.firings, measured.firings),
        "newly_silent": pd.array(newly_silent(home.firings, measured.firings), dtype="boolean"),
    }
