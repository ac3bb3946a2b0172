"""Sparsity and deadness: firing counts, and what a count of zero is worth. docs/metrics.md, section 3."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from torch import Tensor

from atlas.statistics.intervals import rate_upper

# |l0 − k| beyond this share of k: the inference path does not keep what it was built to keep.
CONSTRAINT_TOLERANCE = 0.1
# A latent that fires on more than this share of tokens is dense.
DENSE_RATE = 0.1


@dataclass
class FiringSums:
    """Count of each latent's firings (values above 0) on `n_rows` rows; `n_regular` of them were not massive."""

    n_rows: int
    n_regular: int
    counts: Int[Tensor, " n_latents"]
    firings_regular: int

    @classmethod
    def start(cls, n_latents: int, device: torch.device) -> "FiringSums":
        """Nothing seen yet."""
        return cls(0, 0, torch.zeros(n_latents, dtype=torch.int64, device=device), 0)

    def update(self, fired: Bool[Tensor, "rows n_latents"], massive: Bool[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Add rows; return how many latents fired on each.

        Few latents fire: where they are is found once, for sums over truth values take several times as long.
        """
        row, latent = fired.nonzero(as_tuple=True)
        of_rows = torch.bincount(row, minlength=len(fired))
        self.n_rows += len(fired)
        self.n_regular += int((~massive).sum())
        self.counts += torch.bincount(latent, minlength=fired.shape[1])
        self.firings_regular += int(of_rows[~massive].sum())
        return of_rows

    @property
    def l0(self) -> float | None:
        """Mean number of latents that fire on a row."""
        return self.counts.sum().item() / self.n_rows if self.n_rows else None

    @property
    def l0_regular(self) -> float | None:
        """`l0` over rows that are no massive activations."""
        return self.firings_regular / self.n_regular if self.n_regular else None


def sparsity_metrics(
    sums: FiringSums, k: int | None, dead_min_tokens: int
) -> dict[str, float | int | str | bool | None]:
    """All metrics of docs/metrics.md section 3 from firing counts; `k` is None where there is no target L0."""
    counts, tokens, n_latents = sums.counts.cpu().numpy(), sums.n_rows, len(sums.counts)
    return {
        "l0": sums.l0,
        "l0_regular": sums.l0_regular,
        "l0_target": k,
        "sparsity_constraint_broken": None if k is None or sums.l0 is None else constraint_broken(sums.l0, k),
        "dead_pct": 100 * float((counts == 0).mean()),
        "dead_status": "dead" if tokens >= dead_min_tokens else "untested",
        "dead_tokens": tokens,
        "dead_rate_bound": float(rate_upper(np.zeros(1), tokens)[0]),
        "dead_pct_upper": 100 * float((counts <= rare_count(tokens, dead_min_tokens)).mean()),
        "expected_false_dead": expected_false_dead(counts),
        "dense_pct": 100 * float((counts > DENSE_RATE * tokens).mean()) if n_latents else None,
    }


def constraint_broken(l0: float, k: int) -> bool:
    """Return whether `l0` misses the target `k` by more than 10 %."""
    return abs(l0 - k) > CONSTRAINT_TOLERANCE * k


def rare_count(n_tokens: int, dead_min_tokens: int) -> int:
    """Most firings in `n_tokens` that show, with 95 % confidence, a rate no higher than the dead rate; −1 for none.

    The dead rate is the bound that silence on exactly `dead_min_tokens` tokens gives.
    """
    limit = rate_upper(np.zeros(1), dead_min_tokens)[0] * (1 + 1e-9)
    low, high = -1, n_tokens  # the bound rises with the count: bisect
    while high - low > 1:
        middle = (low + high) // 2
        if rate_upper(np.array([middle]), n_tokens)[0] <= limit:
            low = middle
        else:
            high = middle
    return low


def silent_by_chance(rates: Float[np.ndarray, " n_latents"], n_tokens: int) -> float:
    """Return how many latents with these firing probabilities are expected to stay silent on `n_tokens`: Σ (1 −
    p)^T.
    """
    return float(np.exp(n_tokens * np.log1p(-np.asarray(rates, dtype=np.float64))).sum())


def expected_false_dead(counts: Int[np.ndarray, " n_latents"]) -> float:
    """Return how many of the silent latents are expected to be alive, judged from how many fired once and twice.

    Bias-corrected Chao estimator f1 (f1 − 1) / (2 (f2 + 1)) of unseen classes (Chao 1984), a lower bound; never
    more than the silent latents there are. That the rates of the latents that did fire say little about those
    that did not is why it rests on the rarest of them.
    """
    counts = np.asarray(counts)
    once, twice, silent = (int((counts == number).sum()) for number in (1, 2, 0))
    return min(float(silent), once * (once - 1) / (2 * (twice + 1)))
