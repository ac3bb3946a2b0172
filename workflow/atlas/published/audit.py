"""The audit before a published SAE is judged: does another reading of its files explain the rows better?

Each reading's error is summed over documents, because tokens of one document are not independent. Two readings are
compared by their fractions of variance unexplained (FVU) on the same documents. The interval of the difference is
Student's over documents (linearised ratio), with Bonferroni's correction for the number of readings.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from scipy.stats import t as student
from torch import Tensor

from atlas.errors import ReadingError
from atlas.hook_points import SaeHooks
from atlas.published.base import Published
from atlas.published.readings import SaeReading, other_readings

_LEVEL = 0.05
# Another reading has to leave this share less of what the stated one leaves unexplained. Readings that differ by less
# change no verdict: a bias near zero, or a norm near 1.
_MARGIN = 0.1
# One that keeps more latents explains more for that alone: it has to halve what is unexplained, and its gain has to be
# nearer to 1.
_MARGIN_OF_MORE = 0.5
_SAME_L0 = 1.25
# One that keeps at most this share of the latents is better if it explains as much, but for this share of the FVU.
_FEWER, _AS_MUCH = 0.5, 0.05
# Latents a row against what the release says: text of another kind changes them too, but not by this factor.
_L0_FACTOR = 2.5
# Rows above this many times the median norm are left out: one of them may hold more variance than all others.
_MASSIVE = 10.0
# Rows that are encoded at a time, and float32 elements of their latents at most: 32 MiB.
_CHUNK, _CHUNK_ELEMENTS = 512, 2**23


@dataclass(frozen=True)
class AuditRows:
    """The same tokens at every stored hook, by hook.

    `document` is the document of each token, `position` its place in its context, `counted` whether it is no special
    token and no padding.
    """

    by_hook: Mapping[str, Float[Tensor, "rows width"]]
    document: Int[np.ndarray, " rows"]
    position: Int[np.ndarray, " rows"]
    counted: Bool[np.ndarray, " rows"]


@dataclass(frozen=True)
class Explained:
    """Scores of one reading: unexplained variance (FVU), latents a row (L0), and distance from the stated reading.

    `gain` is the number by which the reconstruction, relative to its mean, would have to be multiplied to explain most:
    1 as trained with a squared error, below 1 where more latents pass than in training, above 1 where fewer do. `less`
    is the stated FVU less this one, with its interval. Both are None for a reading that gives values that are not
    numbers, `less` for the stated one too.
    """

    reading: str
    fvu: float | None
    l0: float
    less: tuple[float, float, float] | None = None
    gain: float | None = None

    @property
    def distance_from_one(self) -> float:
        """Return the distance of the gain from 1, as a factor's logarithm; infinite for no number and below 0."""
        return abs(float(np.log(self.gain))) if self.gain is not None and self.gain > 0 else np.inf


@dataclass(frozen=True)
class ReadingReport:
    """The stated reading and all others, the best first.

    `better` explains significantly more than the stated one. `l0_of_release` is the number of latents a row that the
    release states. `nearest` is the reading that comes closest to it, if the stated one is far from it. For a sound
    reading `better` and `nearest` are None.
    """

    hook: str
    target_hook: str | None
    n_rows: int
    n_documents: int
    stated: Explained
    others: tuple[Explained, ...]
    better: Explained | None
    l0_of_release: float | None = None
    nearest: Explained | None = None
    accepted: bool = False

    @property
    def is_sound(self) -> bool:
        """Return whether nothing speaks against the stated reading."""
        return self.better is None and self.nearest is None

    def described(self) -> dict[str, Any]:
        """For the run card."""
        return asdict(self)


def audit_reading(
    published: Published,
    rows: AuditRows,
    hook: str | None = None,
    target_hook: str | None = None,
    accept_reading: bool = False,
) -> ReadingReport:
    """Compare the stated reading with the other plausible ones on stored rows.

    `hook` and `target_hook` are the hooks to be judged, where they differ from those that `published` names. Raises
    ReadingError when the rows do not fit the SAE. Unless `accept_reading` is set, raises it too when another reading
    explains significantly more, or the number of latents a row is far from what the release says.
    """
    hooks = _hooks(published, hook, target_hook)
    _require_fit(published, rows, hooks)
    stated = SaeReading("as stated", published.sae, hooks.source, hooks.target)
    kept = rows.counted & _regular(rows, hooks)
    first = kept & (rows.position == 0)
    if len(np.unique(rows.document[kept])) < 2:
        raise ReadingError(
            f"the reading of this SAE cannot be audited: its {int(kept.sum())} rows come from fewer than two "
            "documents; store rows of more documents"
        )
    # A few first positions do not decide anything; where they are most rows there is nothing to leave out.
    has_first = 0 < first.sum() < 0.5 * kept.sum()
    sums = _Sums.of(stated, rows, kept)
    mine = Explained(stated.name, sums.fvu, sums.l0, gain=sums.gain)
    readings = other_readings(stated, _kept(rows, kept), bool(has_first), published.alternatives)
    # One after the other: some have a dictionary of their own.
    others = [(_Sums.of(other, rows, kept), other.may_keep_more) for other in readings]
    compared = [_compare(sums, other, len(others)) for other, _ in others]
    compared.sort(key=lambda each: np.inf if each.fvu is None else each.fvu)
    fewer = {other.name for other, may_keep_more in others if not may_keep_more}
    better = next((each for each in compared if _is_better(mine, each, each.reading not in fewer)), None)
    report = ReadingReport(
        hook=hooks.source,
        target_hook=hooks.target_hook,
        n_rows=int(kept.sum()),
        n_documents=len(sums.error),
        stated=mine,
        others=tuple(compared),
        better=better,
        l0_of_release=published.l0,
        nearest=_nearest(sums.l0, published.l0, compared),
    )
    if not report.is_sound and not accept_reading:
        raise ReadingError(_message(report))
    return replace(report, accepted=not report.is_sound)


def _nearest(l0: float, expected: float | None, others: list[Explained]) -> Explained | None:
    """The reading whose L0 is nearest to the release's, where the stated one is far from it."""
    if expected is None or _distance(l0, expected) <= np.log(_L0_FACTOR):
        return None
    possible = [each for each in others if each.fvu is not None and each.fvu < 1] or others
    return min(possible, key=lambda each: _distance(each.l0, expected))


def _distance(l0: float, expected: float) -> float:
    return abs(np.log(l0 / expected)) if l0 > 0 else np.inf


def _hooks(published: Published, hook: str | None, target_hook: str | None) -> SaeHooks:
    hook, target_hook = hook or published.hook, target_hook or published.target_hook
    if hook is None or (published.sae.is_transcoder and target_hook is None):
        key = "hook" if hook is None else "target_hook"
        raise ReadingError(f"{key} is stated neither by the files of this {published.format} SAE nor by you; state it")
    try:
        return SaeHooks.of(hook, target_hook if published.sae.is_transcoder else None)
    except ValueError as error:
        raise ReadingError(str(error)) from error


def _require_fit(published: Published, rows: AuditRows, hooks: SaeHooks) -> None:
    widths = ((hooks.source, "d_model", published.sae.d_model), (hooks.target, "d_target", published.sae.d_target))
    for hook, key, width in widths:
        if hook not in rows.by_hook:
            raise ReadingError(
                f"rows of {hook} are not stored, only of {', '.join(rows.by_hook)}; add {hook} to the model's hooks"
            )
        if (found := rows.by_hook[hook].shape[1]) != width:
            raise ReadingError(
                f"{key} of this SAE is {width}, but rows of {hook} are {found} wide: it is of another model or hook"
            )


def _regular(rows: AuditRows, hooks: SaeHooks) -> Bool[np.ndarray, " rows"]:
    """Rows that are no massive activations at either hook."""
    regular = np.ones(len(rows.counted), dtype=bool)
    for hook in hooks.names:
        norms = rows.by_hook[hook].float().norm(dim=1).numpy()
        regular &= norms <= _MASSIVE * np.median(norms[rows.counted]) if rows.counted.any() else regular
    return regular


def _kept(rows: AuditRows, kept: Bool[np.ndarray, " rows"]) -> dict[str, Tensor]:
    mask = torch.from_numpy(kept)
    return {hook: values[mask] for hook, values in rows.by_hook.items()}


@dataclass(frozen=True)
class _Sums:
    """Per document: squared error, and squared distance from the mean of all rows that are reconstructed.

    `gain` is the slope of rows on their reconstructions, both relative to their means, over all values.
    """

    name: str
    error: Float[np.ndarray, " documents"]
    total: Float[np.ndarray, " documents"]
    l0: float
    gain: float | None

    @classmethod
    @torch.inference_mode()
    def of(cls, reading: SaeReading, rows: AuditRows, kept: Bool[np.ndarray, " rows"]) -> "_Sums":
        _, document = np.unique(rows.document[kept], return_inverse=True)
        n_documents = int(document.max()) + 1
        wanted = rows.position[kept] > 0 if reading.without_first else np.ones(len(document), dtype=bool)
        mask = torch.from_numpy(kept)
        source = rows.by_hook[reading.source][mask][torch.from_numpy(wanted)]
        target = rows.by_hook[reading.target][mask][torch.from_numpy(wanted)]
        owner = torch.from_numpy(document[wanted])
        error, total = torch.zeros(n_documents, dtype=torch.float64), torch.zeros(n_documents, dtype=torch.float64)
        mean, fired = target.double().mean(dim=0), 0
        together = spread = torch.zeros((), dtype=torch.float64)
        shift = torch.zeros_like(mean)
        step = max(16, min(_CHUNK, _CHUNK_ELEMENTS // reading.sae.n_latents))
        for start in range(0, len(source), step):
            part, aim = source[start : start + step].float(), target[start : start + step].double()
            latents = reading.latents(part)
            fired += int((latents > 0).sum())
            rebuilt = reading.reconstruction(latents, part).double() - mean
            aim = aim - mean
            difference = aim - rebuilt
            together, spread = together + (aim * rebuilt).sum(), spread + rebuilt.square().sum()
            shift += rebuilt.sum(dim=0)
            where = owner[start : start + step]
            error.index_add_(0, where, difference.square().sum(dim=1))
            total.index_add_(0, where, aim.square().sum(dim=1))
        # The rows' own distances from their mean add up to 0.
        gain = float(together / (spread - shift.square().sum() / len(source)))
        gain = gain if np.isfinite(gain) else None
        return cls(reading.name, error.numpy(), total.numpy(), fired / len(source), gain)

    @property
    def fvu(self) -> float:
        return float(self.error.sum() / self.total.sum())

    def residuals(self) -> Float[np.ndarray, " documents"]:
        """Return how far each document moves the FVU, to first order; they add up to 0."""
        return (self.error - self.fvu * self.total) / self.total.sum()


def _compare(stated: _Sums, other: _Sums, n_readings: int) -> Explained:
    if not np.isfinite(other.error).all() or not other.total.sum() > 0:
        return Explained(other.name, None, other.l0)
    n = len(stated.error)
    less = stated.fvu - other.fvu
    spread = (stated.residuals() - other.residuals()).std(ddof=1) * np.sqrt(n)
    width = float(student.ppf(1 - _LEVEL / (2 * max(n_readings, 1)), n - 1)) * spread
    interval = (float(less), float(less - width), float(less + width))
    return Explained(other.name, other.fvu, other.l0, interval, other.gain)


def _is_better(stated: Explained, other: Explained, may_keep_more: bool) -> bool:
    """Return whether another reading explains significantly more, by a margin, or as much with half of the latents."""
    if other.fvu is None or other.less is None or other.fvu >= 1:
        return False
    keeps_more = other.l0 > _SAME_L0 * stated.l0
    if keeps_more and not may_keep_more:
        return False
    if stated.fvu is None or not np.isfinite(stated.fvu):
        return True
    if keeps_more and other.distance_from_one >= stated.distance_from_one:
        return False  # latents that were not to pass add up to too much, however much they explain
    margin = _MARGIN_OF_MORE if keeps_more else _MARGIN
    if may_keep_more and other.l0 <= _FEWER * stated.l0:  # the same with half of the latents is no accident
        margin = -_AS_MUCH
    return other.less[1] > margin * stated.fvu


def _message(report: ReadingReport) -> str:
    stated, better, nearest = report.stated, report.better, report.nearest
    target = f" to {report.target_hook}" if report.target_hook else ""
    parts = [
        f"reading of this SAE at {report.hook}{target}: as stated, {stated.fvu:.3g} of the variance is unexplained "
        f"with {stated.l0:.1f} latents a row, on {report.n_rows} rows of {report.n_documents} documents"
    ]
    if better is not None and better.less is not None:
        less, low, high = better.less
        parts.append(
            f"with '{better.reading}' {better.fvu:.3g} with {better.l0:.1f}, which is {less:.3g} less "
            f"[{low:.3g}, {high:.3g}]"
        )
    if nearest is not None:
        parts.append(
            f"the release says {report.l0_of_release:g} latents a row, and nearest to it is '{nearest.reading}' with "
            f"{nearest.l0:.1f}"
        )
    parts.append("correct what is stated, or set accept_reading: true to judge it as stated")
    return "; ".join(parts)
