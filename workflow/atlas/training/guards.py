"""Stop a training before it computes, warn about it after, and name the rows that an error is about."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from atlas.config.recipe import TRANSCODERS, Recipe
from atlas.errors import TrainingError
from atlas.training.architectures import ARCHITECTURES
from atlas.training.parity import conventions
from atlas.training.streams import PairStream, RowStream
from atlas.training.update import NotFiniteError

# Relative distance of L0 from its target that is worth a warning (docs/metrics.md, sparsity).
_L0_TOLERANCE = 0.1
_NAMED_ROWS = 5


def check_inputs(
    recipe: Recipe,
    stream: RowStream,
    monitors: Mapping[str, Tensor],
    targets: Mapping[str, Tensor] | None,
    run_card: Mapping[str, Any],
) -> None:
    """Raise TrainingError when rows, monitors and run card do not belong together."""
    if (run_card.get("target_hook") is None) != (targets is None):
        raise TrainingError(
            f"the run card has target_hook {run_card.get('target_hook')!r}, but targets to monitor are "
            f"{'missing' if targets is None else 'given'}: a transcoder needs both, an SAE neither"
        )
    if "in_sample" not in monitors:
        raise TrainingError(f"monitors are {sorted(monitors)}: 'in_sample' is required, its L0 is compared with K")
    _check_width(stream.d_model, run_card)
    for name, rows in monitors.items():
        _check_monitor(f"monitor {name!r}", rows, f"d_model {stream.d_model}", stream.d_model)
    if targets is not None:
        _check_transcoder(recipe, cast(PairStream, stream), monitors, targets)


def _check_width(width: int, run_card: Mapping[str, Any]) -> None:
    model = run_card.get("model") or {}
    if model.get("d_model", width) != width:
        raise TrainingError(
            f"the stored rows at {run_card.get('hook')} have d_model {width}, model {model.get('name')!r} has "
            f"{model['d_model']}: these activations are of another model; delete them and run again"
        )


def _check_monitor(name: str, rows: Tensor, size: str, width: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != width or len(rows) < 2:
        raise TrainingError(f"{name} has shape {tuple(rows.shape)}: expected at least 2 rows of {size}")
    if not bool(rows.isfinite().all()) or bool((rows == rows[0]).all()):
        raise TrainingError(f"{name}: rows are not finite or all equal; check its activation files")


def _check_transcoder(
    recipe: Recipe, stream: PairStream, monitors: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> None:
    if recipe.architecture not in TRANSCODERS or recipe.parity:
        raise TrainingError(
            f"a transcoder cannot have architecture {recipe.architecture!r} with parity {recipe.parity!r}: expected "
            f"one of {', '.join(TRANSCODERS)}, without parity"
        )
    if recipe.twin:
        raise TrainingError(
            f"twin is {recipe.twin!r}: a transcoder has no twins, its input and target are different spaces; leave out "
            "the recipe's twin"
        )
    for name, rows in monitors.items():
        if name not in targets or len(targets[name]) != len(rows):
            raise TrainingError(f"monitor {name!r}: its {len(rows)} rows need as many targets")
        _check_monitor(f"targets of monitor {name!r}", targets[name], f"d_target {stream.d_target}", stream.d_target)


def warnings_before(recipe: Recipe, epochs: Mapping[str, float]) -> list[str]:
    """Return what is known to be amiss before training; `epochs` says how often each corpus is visited."""
    warnings, tokens = [], recipe.steps * recipe.batch_size
    revives = (
        ARCHITECTURES[recipe.architecture].revives and conventions(recipe).auxiliary and recipe.aux_coefficient > 0
    )
    if revives and recipe.dead_feature_tokens >= tokens:
        warnings.append(
            f"auxiliary_loss_never_active: dead_feature_tokens is {recipe.dead_feature_tokens:,}, training has "
            f"{tokens:,} rows; no latent can be counted dead, so none is revived; lower dead_feature_tokens"
        )
    repeated = [f"{name} {number:.3g} times" for name, number in epochs.items() if number > 1]
    if repeated:
        warnings.append(
            f"rows_repeat: corpora are visited more than once ({', '.join(repeated)}); compare in_sample, which is not "
            "trained on, with train"
        )
    return warnings


def warnings_after(recipe: Recipe, in_sample: Mapping[str, Any]) -> list[str]:
    """Return what the last look at held-out in-sample rows shows to be amiss."""
    name, target = ("K", recipe.k) if recipe.k is not None else ("target_l0", recipe.target_l0)
    if target is None or abs(in_sample["l0"] - target) <= _L0_TOLERANCE * target:
        return []
    return [
        f"sparsity_constraint_broken: L0 on held-out in-sample rows is {in_sample['l0']:.4g}, {name} is {target:g}; "
        "they differ by more than 10 %"
    ]


def named_rows(error: NotFiniteError, stream: RowStream, step: int) -> TrainingError:
    """The error with file and row number of the rows it is about, or of the largest row where all are finite."""
    places = stream.where(step)
    if error.rows:
        chosen = error.rows[:_NAMED_ROWS]
        left_out = len(error.rows) - len(chosen)
        more = f" and {left_out} more" if left_out else ""
        return TrainingError(f"{error}. Not finite: {'; '.join(_place(places, row) for row in chosen)}{more}")
    norms = stream.batch(step).rows.double().norm(dim=1)
    largest = int(norms.argmax())
    median = float(norms.median())
    return TrainingError(
        f"{error}. The largest row has norm {float(norms[largest]):.4g}, the median is {median:.4g}: "
        f"{_place(places, largest)}"
    )


def _place(places: list, row: int) -> str:
    path, number = places[row]
    return f"row {row} of the batch is row {number} of {path}"
