"""Measure effects of latents on held-out text: each is removed, clamped, and compared with its nulls.

Definitions: docs/metrics.md, section 18.

Contexts are gone through one by one. All changes of a context's firings are branches of it (`atlas.models.branches`),
so that the context is computed once, from its stored state on where the hook is in the residual stream.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from torch import Tensor

from atlas.activations.store import Shard
from atlas.causal.firings import MeasuredFirings, random_direction, silent_position
from atlas.causal.outcomes import compare_states
from atlas.config.causal import Causal
from atlas.errors import CausalError
from atlas.evaluation.units import ContextBatch, context_batches
from atlas.hook_points import HookPoint, SaeHooks
from atlas.models.branches import Branches, can_join, run_apart, run_branches
from atlas.models.load import LoadedModel
from atlas.models.objectives import loss_mask
from atlas.progress import progress
from atlas.training.sae import Sae

log = logging.getLogger(__name__)

# Tokens of the branches of one pass.
_PASS_TOKENS = 512
# Changes that are followed over the horizon; of the first two it is measured too which tokens they promote.
OWN, RANDOM, OTHER, TWIN = "", "_random", "_other", "_twin"
FOLLOWED = (OWN, RANDOM, OTHER)


@dataclass(frozen=True, eq=False)
class FiringEffects:
    """Measurements of each firing, and sums over firings of the decrease of each logit.

    `firings` has a row per firing. Its columns `kl`, `loss` and `kl_after` are the latent's; with a suffix they are its
    nulls'. `kl_whole`: all latents are removed. `kl_silent`: this latent is removed where it does not fire.
    `kl_twin_<kind>`: the same latent of each of `twins` is removed. `doses` has a row per firing and clamp. `lifts` has
    the sums: (latent or random direction, half of the documents, latents, vocabulary). `n_lifts` counts the firings of
    each sum: (half, latents). `method` names how branches were run.
    """

    firings: pd.DataFrame
    doses: pd.DataFrame
    lifts: Float[Tensor, "2 2 latents vocabulary"]
    n_lifts: Int[np.ndarray, "2 latents"]
    method: str
    twins: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Context:
    """One context of the corpus: its first row there, tokens, rows at the target, and codes of its rows.

    `allowed` says on which rows firings are measured, `predicted` which rows' next token counts.
    """

    first: int
    tokens: Int[Tensor, " position"]
    rows: Float[Tensor, "position d_target"]
    codes: Float[Tensor, "position n_latents"]
    allowed: Bool[np.ndarray, " position"]
    predicted: Bool[Tensor, " position"]


@dataclass(frozen=True)
class _Firing:
    """One firing: place of its latent among those measured, and where it is in its context."""

    place: int
    latent: int
    position: int
    document: int
    half: int
    largest: float
    other: int


def allowed_rows(
    loaded: LoadedModel, shards: Sequence[Shard], massive: Bool[np.ndarray, " rows"], horizon: int
) -> Bool[np.ndarray, " rows"]:
    """Rows on which latents are measured: counted, no massive activation, and the next token counts as a prediction.

    The last `horizon` positions of a context are left out: too few tokens follow them. Raises CausalError when this
    leaves no position, or for a model that does not predict the next token.
    """
    require_next_tokens(loaded)
    length = shards[0].context_length
    if horizon >= length:
        raise CausalError(f"causal.horizon is {horizon}: must be less than a context, {length} tokens")
    n_contexts = sum(shard.n_rows for shard in shards) // length
    found = np.zeros((n_contexts, length), bool)
    for batch in context_batches(shards, n_contexts, n_contexts):
        mask = loss_mask(loaded, batch.tokens.to(loaded.device)).cpu() & batch.counted
        found[batch.first : batch.first + batch.n_contexts, :-1] = (mask[:, 1:] & batch.counted[:, :-1]).numpy()
    found[:, length - horizon :] = False
    return found.reshape(-1) & ~massive[: found.size]


def require_next_tokens(loaded: LoadedModel) -> None:
    """Raise CausalError for a model that does not predict the next token."""
    if loaded.objective != "causal_lm":
        raise CausalError(
            f"{loaded.identity['name']} has objective {loaded.objective!r}: effects are measured on the next token, "
            "which only a causal_lm predicts; use atlas.causal.interventions instead"
        )


@torch.inference_mode()
def measure(
    loaded: LoadedModel,
    sae: Sae,
    hook: str,
    shards: Sequence[Shard],
    allowed: Bool[np.ndarray, " rows"],
    firings: Sequence[MeasuredFirings],
    others: Int[np.ndarray, " latents"],
    settings: Causal,
    seed: int,
    stated: Mapping[int, Sequence[int]] | None = None,
    twins: Mapping[str, Float[Tensor, "n_latents d_target"]] | None = None,
    join: bool | None = None,
) -> FiringEffects:
    """Measure all chosen firings; `others` are the latents of the second null, -1 for none.

    `stated` are tokens that a latent promotes by its weights; what their logits lose is measured for each firing.
    `twins` are decoders of trained twins by kind: the same length is removed along the same latent of each.
    `join` says whether branches share their context's pass; None: wherever this gives the same numbers.
    """
    require_next_tokens(loaded)
    length = shards[0].context_length
    join = can_join(loaded, length) if join is None else join
    method = "branches of one pass" if join else "a pass per branch"
    log.info("effects at %s: %s", hook, method)
    run = run_branches if join else run_apart
    scene = _Scene(loaded, sae.to(loaded.device), SaeHooks.parse(hook), run, settings, seed, stated or {}, twins or {})
    size = (2, 2, len(firings), loaded.identity["vocabulary_size"])
    sums = _Sums(torch.zeros(size, device=loaded.device), np.zeros((2, len(firings)), np.int64))
    by_context = _by_context(firings, others, length)
    rows, doses = [], []
    with progress(sum(map(len, by_context.values())), f"effects {hook}", "firing") as shown:
        for context in _contexts(scene, shards, allowed, by_context):
            for group in _groups(by_context[context.first // length], settings):
                own, curve = _measure_group(scene, context, group, sums)
                rows.append(own)
                doses.append(curve)
                shown.update(len(group))
    nothing = pd.DataFrame({"place": pd.Series(dtype=np.int64)})
    return FiringEffects(
        pd.concat(rows, ignore_index=True) if rows else nothing,
        pd.concat(doses, ignore_index=True) if doses else nothing,
        sums.lifts,
        sums.counts,
        method,
        tuple(scene.twins),
    )


@dataclass(frozen=True, eq=False)
class _Scene:
    loaded: LoadedModel
    sae: Sae
    hooks: SaeHooks
    run: Callable
    settings: Causal
    seed: int
    stated: Mapping[int, Sequence[int]]
    twins: Mapping[str, Tensor]

    def branches(self, context: _Context, start: Tensor, delta: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Clean and changed final states, (position, d) and (branches, length, d); of an overflow NaN."""
        moved = context.rows[start] + delta
        bad = ~moved.square().sum(1).isfinite()
        stop = int(start.max()) + length
        delta = delta.masked_fill(bad[:, None], 0.0)
        rows = context.rows[:stop] if HookPoint.parse(self.hooks.target).is_residual else None
        clean, found = self.run(
            self.loaded, context.tokens[:stop], self.hooks.target, rows, Branches(start, delta, length)
        )
        return clean, found.masked_fill(bad[:, None, None], torch.nan)


@dataclass(frozen=True, eq=False)
class _Sums:
    lifts: Float[Tensor, "2 2 latents vocabulary"]
    counts: Int[np.ndarray, "2 latents"]


def _by_context(firings: Sequence[MeasuredFirings], others: np.ndarray, length: int) -> dict[int, list[_Firing]]:
    found: dict[int, list[_Firing]] = {}
    for place, own in enumerate(firings):
        for row, document, half in zip(own.row.tolist(), own.document.tolist(), own.half.tolist(), strict=True):
            context, position = divmod(row, length)
            each = _Firing(place, own.latent, position, document, half, own.largest, int(others[place]))
            found.setdefault(context, []).append(each)
    return found


def _groups(firings: list[_Firing], settings: Causal) -> Iterator[list[_Firing]]:
    """So many firings at a time as fit into a pass."""
    tokens = max(len(FOLLOWED) * settings.horizon, 2 * len(settings.clamps) + 2)
    step = max(1, _PASS_TOKENS // tokens)
    for first in range(0, len(firings), step):
        yield firings[first : first + step]


def _contexts(
    scene: _Scene, shards: Sequence[Shard], allowed: np.ndarray, wanted: Mapping[int, object]
) -> Iterator[_Context]:
    length = shards[0].context_length
    n_contexts = sum(shard.n_rows for shard in shards) // length
    for batch in context_batches(shards, n_contexts, 1):
        if batch.first in wanted:
            yield _context(scene, batch, allowed[batch.first * length : (batch.first + 1) * length])


def _context(scene: _Scene, batch: ContextBatch, allowed: np.ndarray) -> _Context:
    device, hooks = scene.loaded.device, scene.hooks
    source = batch.rows(hooks.source)[0].to(device)
    target = batch.rows(hooks.target)[0].to(device) if hooks.is_transcoder else source
    first = batch.first * batch.shard.context_length
    predicted = batch.counted[0].roll(-1).to(device)
    return _Context(first, batch.tokens[0].to(device), target, scene.sae.encode(source), allowed, predicted)


def _measure_group(
    scene: _Scene, context: _Context, group: list[_Firing], sums: _Sums
) -> tuple[pd.DataFrame, pd.DataFrame]:
    sae, settings, device = scene.sae, scene.settings, scene.loaded.device
    position = torch.tensor([each.position for each in group], device=device)
    latent = torch.tensor([each.latent for each in group], device=device)
    row = sae.W_dec[latent].float()
    norm = row.norm(dim=1, keepdim=True)
    drawn = [random_direction(each.latent, context.first + each.position, sae.d_target, scene.seed) for each in group]
    random = torch.from_numpy(np.stack(drawn)).to(device) * norm
    has_other = np.array([each.other >= 0 for each in group])
    other = torch.nn.functional.normalize(sae.W_dec[[max(each.other, 0) for each in group]].float(), dim=1) * norm
    activation = context.codes[position, latent][:, None]

    removed = torch.stack([-activation * each for each in (row, random, other)], dim=1)
    followed = _followed(scene, context, group, position, removed, sums)
    columns = {"place": [each.place for each in group], "document": [each.document for each in group]}
    columns |= {"latent": latent.cpu().numpy(), "activation": activation[:, 0].cpu().numpy()} | followed
    for name in columns:
        if name.endswith(OTHER):
            columns[name] = np.where(has_other, columns[name], np.nan)

    silent = [_silent(context, each, scene.seed) for each in group]
    places = torch.tensor([each.position if at is None else at for each, at in zip(group, silent, strict=True)])
    at_silent = -context.codes[places, latent][:, None] * row
    whole = -context.codes[position] @ sae.W_dec.float()
    largest = torch.tensor([each.largest for each in group], device=device)[:, None]
    clamps = settings.clamps[1:]  # the first is 0, hence what was removed
    added = [(clamp * largest - activation) * direction for direction in (row, random) for clamp in clamps]
    for W_dec in scene.twins.values():
        twin = torch.nn.functional.normalize(W_dec[latent.cpu()].float(), dim=1).to(device)
        added.append(-activation * norm * twin)
    start = torch.cat([places.to(device), position.repeat(1 + len(added))])
    clean, changed = scene.branches(context, start, torch.cat([at_silent, whole, *added]), 1)
    changed = changed[:, 0].unflatten(0, (-1, len(group))).transpose(0, 1)
    silent_kl, _ = compare_states(scene.loaded, clean[places], changed[:, :1], context.tokens[places + 1])
    kl, loss = compare_states(scene.loaded, clean[position], changed[:, 1:], context.tokens[position + 1])
    kl, loss = kl.cpu().numpy(), loss.cpu().numpy()
    columns["kl_silent"] = np.where([at is None for at in silent], np.nan, silent_kl[:, 0].cpu().numpy())
    columns["kl_whole"] = kl[:, 0]
    columns |= {f"kl{TWIN}_{kind}": kl[:, 1 + 2 * len(clamps) + place] for place, kind in enumerate(scene.twins)}
    curves = [
        _dose(
            columns, settings.clamps[0], *(columns[f"{name}{end}"] for name in ("kl", "loss") for end in (OWN, RANDOM))
        )
    ]
    for number, clamp in enumerate(clamps, 1):
        own, null = number, number + len(clamps)
        curves.append(_dose(columns, clamp, kl[:, own], kl[:, null], loss[:, own], loss[:, null]))
    return pd.DataFrame(columns), pd.concat(curves, ignore_index=True)


def _dose(columns, clamp, kl, kl_random, loss, loss_random) -> pd.DataFrame:
    known = {name: columns[name] for name in ("place", "latent", "document")}
    numbers = {"kl": kl, "kl_random": kl_random, "loss": loss, "loss_random": loss_random}
    return pd.DataFrame(known | {"clamp": clamp} | numbers)


def _silent(context: _Context, firing: _Firing, seed: int) -> int | None:
    silent = np.flatnonzero(context.allowed & (context.codes[:, firing.latent] == 0).cpu().numpy())
    return silent_position(silent, firing.latent, context.first + firing.position, seed)


def _followed(
    scene: _Scene, context: _Context, group: list[_Firing], position: Tensor, removed: Tensor, sums: _Sums
) -> dict[str, np.ndarray]:
    """Effects of what is removed, at the firing and over the horizon behind it, by name of the column."""
    n_changes, length = len(FOLLOWED), scene.settings.horizon
    start = position.repeat_interleave(n_changes)
    clean, changed = scene.branches(context, start, removed.flatten(0, 1), length)
    changed = changed.unflatten(0, (-1, n_changes))
    where = position[:, None] + torch.arange(length, device=position.device)
    lift = _Lift(scene, group, sums)
    kl, loss = compare_states(scene.loaded, clean[position], changed[:, :, 0], context.tokens[position + 1], lift.add)
    found = {"half": np.array([each.half for each in group])}
    for number, end in enumerate(FOLLOWED):
        found |= {f"kl{end}": kl[:, number].cpu().numpy(), f"loss{end}": loss[:, number].cpu().numpy()}
    found |= lift.stated
    if not bool(kl.isfinite().all()):
        raise CausalError(
            f"{scene.hooks}: the model's output is not finite when one of latents {_latents(group)} is removed"
        )
    later, _ = compare_states(
        scene.loaded,
        clean[where[:, 1:]].flatten(0, 1),
        changed[:, :, 1:].transpose(1, 2).flatten(0, 1),
        context.tokens[where[:, 1:] + 1].flatten(),
    )
    counts = context.predicted[where[:, 1:]].float()
    after = (later.unflatten(0, counts.shape) * counts[..., None]).sum(1) / counts.sum(1, keepdim=True)  # NaN: of none
    return found | {f"kl_after{end}": after[:, number].cpu().numpy() for number, end in enumerate(FOLLOWED)}


def _latents(group: list[_Firing]) -> list[int]:
    return sorted({each.latent for each in group})


class _Lift:
    """Adds up what logits lose, by latent and half of the documents, and keeps what the stated tokens lose."""

    def __init__(self, scene: _Scene, group: list[_Firing], sums: _Sums):
        self._scene, self._group, self._sums = scene, group, sums
        self.stated = {f"stated_lift{end}": np.full(len(group), np.nan) for end in (OWN, RANDOM)}

    def add(self, units: slice, lost: Float[Tensor, "units changes vocabulary"]) -> None:
        group = self._group[units]
        flat = self._sums.lifts.flatten(1, 2)
        places = torch.tensor([each.half * self._sums.lifts.shape[2] + each.place for each in group])
        for number in range(2):
            flat[number].index_add_(0, places.to(lost.device), lost[:, number])
        for place, each in enumerate(group):
            self._sums.counts[each.half, each.place] += 1
            tokens = self._scene.stated.get(each.latent)
            if tokens is not None and len(tokens):
                means = lost[place][:2, list(tokens)].mean(1).cpu().numpy()
                for number, end in enumerate((OWN, RANDOM)):
                    self.stated[f"stated_lift{end}"][units.start + place] = means[number]
