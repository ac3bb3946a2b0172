"""From numbers of single firings to one row per latent, per latent and clamp, and per latent and token."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int

from atlas.causal.effects import OTHER, OWN, RANDOM, TWIN, FiringEffects
from atlas.causal.firings import MeasuredFirings
from atlas.statistics.auc import area_of_ranks
from atlas.statistics.clusters import LEAST_CLUSTERS, ratio_intervals

BEYOND, NOT_BEYOND, UNMEASURED = "beyond a random direction", "no effect beyond a random direction", "not measured"
NO_TWIN = "no twin was given: causal.twins is false, or no study that holds this SAE has twins"
NEVER = "never fires on a row that is measured: counted, no massive activation, and followed by a counted token"
FEW_DOCUMENTS = f"fires in fewer than {LEAST_CLUSTERS} documents: there is no interval to tell an effect from chance"
# Means over firings with intervals over documents. The last are differences of pairs of one firing.
_MEANS = ("kl", "loss", "kl_after", "stated_lift")
_DIFFERENCES = {
    "kl_over_random": ("kl", "kl_random"),
    "kl_over_other": ("kl", "kl_other"),
    "kl_after_over_random": ("kl_after", "kl_after_random"),
    "stated_lift_over_random": ("stated_lift", "stated_lift_random"),
}


def effect_rows(
    measured: FiringEffects, firings: Sequence[MeasuredFirings], others: Int[np.ndarray, " latents"]
) -> pd.DataFrame:
    """One row per latent. Columns: docs/metrics.md, section 18; what is not defined is NaN, and `reason` says why."""
    by_place = dict(list(measured.firings.groupby("place"))) if len(measured.firings) else {}
    rows = []
    for place, own in enumerate(firings):
        row = {"latent": own.latent, "n_firings": own.n_firings, "largest": own.largest or np.nan}
        row["other"] = int(others[place]) if others[place] >= 0 else None
        row |= {"twin": None, "kl_twin": np.nan, "kl_twin_reason": NO_TWIN}
        rows.append(row | _numbers(by_place.get(place), measured.twins))
    table = pd.DataFrame(rows)
    return table.astype(dict.fromkeys(("other", "n_measured", "n_documents"), "Int64"))


def strongest_twin(found: pd.DataFrame, kinds: Sequence[str]) -> tuple[str | None, dict[str, np.ndarray]]:
    """Find the twin whose latents do most to the firings `found`: its kind, its KL, and by how much the latent's is
    larger. None without twins.
    """
    if not kinds:
        return None, {}
    kind = max(kinds, key=lambda each: found[f"kl{TWIN}_{each}"].mean())
    values = found[f"kl{TWIN}_{kind}"].to_numpy(float)
    return kind, {"kl_twin": values, "kl_over_twin": found.kl.to_numpy(float) - values}


def _numbers(found: pd.DataFrame | None, twins: Sequence[str]) -> dict[str, Any]:
    if found is None:
        reasons = {"reason": NEVER, "kl_twin_reason": NEVER if twins else NO_TWIN}
        return {"n_measured": 0, "n_documents": 0, "verdict": UNMEASURED, **reasons}
    n_documents = found.document.nunique()
    columns = {f"{name}{end}": found[f"{name}{end}"].to_numpy(float) for name in _MEANS for end in _ends(name)}
    columns |= {name: columns[more] - columns[less] for name, (more, less) in _DIFFERENCES.items()}
    twin, of_twin = strongest_twin(found, twins)
    columns |= of_twin
    above = np.stack(list(columns.values()), axis=1)
    below = np.isfinite(above).astype(float)
    names = list(columns)
    # The share of the SAE's whole effect is a ratio of sums, not a mean of ratios: some firings have hardly any.
    names.append("share_of_whole")
    above = np.column_stack([np.nan_to_num(above), found.kl])
    below = np.column_stack([below, found.kl_whole])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = above.sum(0) / below.sum(0)
    low, high = ratio_intervals(found.document.to_numpy(), above, below)
    row: dict[str, Any] = {"n_measured": len(found), "n_documents": n_documents}
    row |= {"twin": twin, "kl_twin_reason": None} if twin else {}
    for name, value, each_low, each_high in zip(names, values, low, high, strict=True):
        row |= {name: value, f"{name}_low": each_low, f"{name}_high": each_high}
    row["kl_silent"] = float(found.kl_silent.max()) if found.kl_silent.notna().any() else np.nan
    row["kl_whole"] = float(found.kl_whole.mean())
    if n_documents < LEAST_CLUSTERS:
        return row | {"verdict": UNMEASURED, "reason": FEW_DOCUMENTS}
    beyond = max(row["kl_over_random_low"], row["stated_lift_over_random_low"], key=lambda low: low > 0) > 0
    return row | {"verdict": BEYOND if beyond else NOT_BEYOND, "reason": None}


def _ends(name: str) -> tuple[str, ...]:
    return (OWN, RANDOM) if name == "stated_lift" else (OWN, RANDOM, OTHER)


def dose_rows(measured: FiringEffects) -> pd.DataFrame:
    """One row per latent and clamp: KL and growth of the loss, beside a random direction with the same length added."""
    names = ("kl", "kl_random", "loss", "loss_random")
    rows = []
    for (latent, clamp), found in measured.doses.groupby(["latent", "clamp"]) if len(measured.doses) else ():
        values = found[list(names)].to_numpy(float)
        bad = int((~np.isfinite(values)).any(1).sum())
        row = {"latent": latent, "clamp": clamp, "n": len(found), "reason": None}
        if bad:
            row["reason"] = f"the model overflows on {bad} of {len(found)} firings"
            rows.append(row | dict.fromkeys([f"{name}{end}" for name in names for end in ("", "_low", "_high")]))
            continue
        low, high = ratio_intervals(found.document.to_numpy(), values, np.ones_like(values))
        for number, name in enumerate(names):
            row |= {name: values[:, number].mean(), f"{name}_low": low[number], f"{name}_high": high[number]}
        rows.append(row)
    return pd.DataFrame(rows)


def mean_lifts(measured: FiringEffects, half: int | None = None) -> Float[torch.Tensor, "2 latents vocabulary"]:
    """Compute what logits lose on average without the latent, and without a random direction; NaN without firings."""
    lifts = measured.lifts.sum(1) if half is None else measured.lifts[:, half]
    counts = torch.from_numpy(measured.n_lifts.sum(0) if half is None else measured.n_lifts[half]).to(lifts.device)
    return lifts / counts[None, :, None]


def token_rows(
    measured: FiringEffects, firings: Sequence[MeasuredFirings], texts: Sequence[str], count: int
) -> pd.DataFrame:
    """Tokens that each latent promotes and suppresses most, as measured: chosen on half the documents.

    `lift` is what their logits lose without the latent on the other half: on the same half, the largest of many would
    be large by chance. `dictionary` is `sae`, or `random` for the same choice with random directions. Latents with
    firings in one document have no rows.
    """
    # A vocabulary may have more rows than the tokenizer has tokens.
    chosen, held_out = (mean_lifts(measured, half).cpu()[..., : len(texts)] for half in (0, 1))
    known = (measured.n_lifts > 0).all(0)
    rows = []
    for place in np.flatnonzero(known).tolist():
        for number, dictionary in enumerate(("sae", "random")):
            for which, sign in (("promoted", 1), ("suppressed", -1)):
                tokens = (sign * chosen[number, place]).topk(min(count, chosen.shape[2])).indices
                for rank, token in enumerate(tokens.tolist(), 1):
                    row = {"latent": firings[place].latent, "dictionary": dictionary, "which": which, "rank": rank}
                    row |= {"token": token, "text": texts[token]}
                    row |= {"lift_chosen": float(chosen[number, place, token])}
                    rows.append(row | {"lift": float(held_out[number, place, token])})
    columns = ["latent", "dictionary", "which", "rank", "token", "text", "lift_chosen", "lift"]
    return pd.DataFrame(rows, columns=columns)


def promoted_columns(tokens: pd.DataFrame) -> pd.DataFrame:
    """By latent: mean held-out lift of its promoted tokens, and of those chosen for random directions."""
    own = tokens[tokens.which == "promoted"].groupby(["latent", "dictionary"]).lift.mean().unstack()
    own = own.reindex(columns=["sae", "random"])
    return own.rename(columns={"sae": "promoted_lift", "random": "promoted_lift_random"}).reset_index()


def label_rows(
    measured: FiringEffects,
    firings: Sequence[MeasuredFirings],
    labels: Mapping[int, str],
    names: Sequence[str],
    kept: np.ndarray,
    seed: int,
) -> pd.DataFrame:
    """Measure whether labels tell which tokens a latent promotes: AUC of the tokens that a label names.

    They are compared with all tokens that begin a word (`kept`); `names` are the names of tokens (`name_of`).
    `label_auc` reads the whole label, `label_auc_fires` the part without the tokens that it states as promoted.
    `_other` is the AUC of another latent's label. Latents without a label, or whose label names no token, have NaN.
    """
    lifts = mean_lifts(measured)[0].cpu().numpy()
    candidates = np.flatnonzero(kept[: lifts.shape[1]])
    places_of: dict[str, list[int]] = {}
    for place, token in enumerate(candidates.tolist()):
        places_of.setdefault(names[token].lower(), []).append(place)
    latents = [own.latent for own in firings]
    order = np.random.Generator(np.random.PCG64([seed, 14])).permutation(len(latents))
    another = np.empty(len(latents), np.int64)
    another[order] = np.roll(order, 1)
    rows = []
    for place, latent in enumerate(latents):
        row: dict[str, object] = {"latent": latent}
        measurable = bool(np.isfinite(lifts[place]).all())
        ranks = lifts[place][candidates].argsort().argsort() if measurable else None
        for name, part in (("label_auc", _whole), ("label_auc_fires", _fires)):
            for end, of in (("", latent), ("_other", latents[another[place]])):
                words = part(labels.get(of) or "")
                named = sorted({each for word in words for each in places_of.get(word, ())})
                row[f"{name}{end}"] = np.nan if ranks is None else _auc(ranks, named)
        rows.append(row)
    return pd.DataFrame(rows)


def _whole(label: str) -> list[str]:
    return [word for word in _split(label.replace("; promotes ", ", ")) if word]


def _fires(label: str) -> list[str]:
    return [word for word in _split(label.split("; promotes ")[0]) if word]


def _split(text: str) -> list[str]:
    return [word.strip(".,;:!?\"'()[]").lower() for word in text.split()]


def _auc(ranks: Int[np.ndarray, " tokens"], named: Sequence[int]) -> float:
    """Chance that a named token is lifted more than another one; ties are broken by place."""
    return float(area_of_ranks(float((ranks[named] + 1).sum()), len(named), len(ranks)))
