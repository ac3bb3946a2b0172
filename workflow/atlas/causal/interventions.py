"""Change what single latents contribute to a running model, and nothing else. Normative: docs/metrics.md, section 18.

The tensor at the hook gets ``(new activation - activation) · decoder row`` added. What the SAE does not reconstruct
stays, so that a change of zero leaves the model as it is to the bit: rows that do not change are not touched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.errors import CausalError
from atlas.hook_points import SaeHooks
from atlas.models.adapters import find_place
from atlas.models.forward import edited, final_hidden, logits, observed
from atlas.models.load import LoadedModel
from atlas.training.sae import Sae

Kind = Literal["ablate", "clamp", "scale", "add"]


@dataclass(frozen=True, eq=False)
class Change:
    """A change of one latent in each context.

    ``ablate`` sets it to 0, ``clamp`` to `amount`, ``scale`` multiplies it by `amount`, ``add`` adds `amount`. `latent`
    and `amount` have a value per context, or one for all.
    """

    kind: Kind
    latent: Int[Tensor, " #contexts"]
    amount: Float[Tensor, " #contexts"]

    @classmethod
    def of(cls, kind: Kind, latent: int | Sequence[int], amount: float | Sequence[float] = 0.0) -> "Change":
        """Check and hold the values; raises CausalError for an unknown kind, or an amount that is not finite."""
        if kind not in get_args(Kind):
            raise CausalError(f"intervention {kind!r}: must be one of {', '.join(get_args(Kind))}")
        amounts = torch.atleast_1d(torch.as_tensor(amount, dtype=torch.float32))
        if not bool(amounts.isfinite().all()):
            raise CausalError(f"intervention {kind!r}: amount is {amounts.tolist()}, must be finite in float32")
        return cls(kind, torch.atleast_1d(torch.as_tensor(latent, dtype=torch.int64)), amounts)

    def apply(self, activation: Float[Tensor, "contexts position"]) -> Float[Tensor, "contexts position"]:
        """New activations."""
        amount = self.amount.to(activation.device)[:, None].expand_as(activation)
        if self.kind == "scale":
            return activation * amount
        if self.kind == "add":
            return activation + amount
        return torch.zeros_like(activation) if self.kind == "ablate" else amount

    def __str__(self) -> str:
        amounts = "" if self.kind == "ablate" else f", amount {_few(self.amount)}"
        return f"{self.kind} latent {_few(self.latent)}{amounts}"


def _few(values: Tensor) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:3].tolist())
    return shown if len(values) <= 3 else f"{shown}, … ({len(values)} in all)"


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of an SAE's latents at its hook, or of a transcoder's at its target.

    `positions` says where in the prompt, None everywhere; `generated`, whether the change goes on after the prompt.
    """

    sae: Sae
    hooks: SaeHooks
    change: Change
    positions: Bool[Tensor, "contexts position"] | None = None
    generated: bool = True

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        sae: Sae,
        hook: str,
        change: Change,
        positions: Bool[Tensor, "contexts position"] | None = None,
        generated: bool = True,
    ) -> "Intervention":
        """Check that model, SAE and change belong together.

        `hook` is one hook, or a transcoder's two. Raises AtlasError for a hook that the model lacks, CausalError for an
        SAE of another kind or a latent that it does not have.
        """
        hooks = SaeHooks.parse(hook)
        for name in hooks.names:
            find_place(loaded.model, loaded.adapter, name)
        if sae.is_transcoder != hooks.is_transcoder:
            kinds = {True: "a transcoder", False: "an SAE"}
            raise CausalError(
                f"hook {hook!r} belongs to {kinds[hooks.is_transcoder]}, the weights to {kinds[sae.is_transcoder]}: "
                "give the hook that it was trained on"
            )
        wrong = [number for number in change.latent.tolist() if not 0 <= number < sae.n_latents]
        if wrong:
            raise CausalError(f"latent {wrong[0]}: this dictionary has latents 0 to {sae.n_latents - 1}")
        if positions is None and not generated:
            raise CausalError(
                "generated is False, but without `positions` no prompt can be told from what follows it: give them"
            )
        return cls(sae.to(loaded.device), hooks, change, positions, generated)

    def __str__(self) -> str:
        return f"{self.change} at {self.hooks}"


class _Edit:
    """Hooks of one intervention. `first` is the position of a pass' first token: with a cache it is not 0."""

    def __init__(self, intervention: Intervention):
        self._intervention, self.first = intervention, 0
        self._source: Tensor | None = None

    def see(self, rows: Tensor) -> None:
        self._source = rows

    def edit(self, tensor: Float[Tensor, "contexts position d_target"]) -> Float[Tensor, "contexts position d_target"]:
        sae, change = self._intervention.sae, self._intervention.change
        rows = self._source if self._intervention.hooks.is_transcoder else tensor
        assert rows is not None  # `see` ran: the source comes before the target
        _require_width(rows, sae.d_model, self._intervention.hooks.source)
        _require_width(tensor, sae.d_target, self._intervention.hooks.target)
        latent = change.latent.to(tensor.device).expand(len(tensor))
        activation = activations_of(sae, rows, latent)
        difference = change.apply(activation) - activation
        difference = torch.where(self._where(tensor), difference, 0.0)
        moved = tensor.float() + difference[..., None] * sae.W_dec[latent].float()[:, None]
        result = torch.where((difference != 0)[..., None], moved.to(tensor.dtype), tensor)
        # A norm divides by the root of this sum, and makes zeros of what is too large: no later test would see it.
        if not bool(result.float().square().sum(-1).isfinite().all()):
            raise CausalError(f"{self._intervention}: the state overflows there; give it a smaller amount")
        return result

    def _where(self, tensor: Tensor) -> Bool[Tensor, "contexts position"]:
        positions, length = self._intervention.positions, tensor.shape[1]
        if positions is None:
            return torch.ones(tensor.shape[:2], dtype=torch.bool, device=tensor.device)
        known = positions.to(tensor.device)[:, self.first : self.first + length]
        rest = known.new_full((len(known), length - known.shape[1]), self._intervention.generated)
        return torch.cat([known, rest], dim=1).expand(len(tensor), -1)


def activations_of(
    sae: Sae, rows: Float[Tensor, "contexts position d_model"], latent: Int[Tensor, " contexts"]
) -> Float[Tensor, "contexts position"]:
    """Activation of each context's own latent, float32; the whole dictionary competes, as at inference."""
    found = torch.empty(rows.shape[:2], device=rows.device)
    for number, own in enumerate(rows):
        found[number] = sae.encode(own)[:, latent[number]]
    return found


@contextmanager
def intervened(loaded: LoadedModel, intervention: Intervention | None) -> Iterator[Callable[[int], None]]:
    """Make the change in all forward passes inside the block; None changes nothing.

    Gives a function that says at which position the tokens of the next pass begin: needed behind a cache alone.
    """
    if intervention is None:
        yield lambda first: None
        return
    edit, hooks = _Edit(intervention), intervention.hooks
    source, target = (find_place(loaded.model, loaded.adapter, hook) for hook in (hooks.source, hooks.target))

    def begin(first: int) -> None:
        edit.first = first

    if hooks.is_transcoder:
        with observed(source, edit.see), edited(target, edit.edit):
            yield begin
    else:
        with edited(target, edit.edit):
            yield begin


@torch.inference_mode()
def intervened_logits(
    loaded: LoadedModel, input_ids: Int[Tensor, "contexts position"], intervention: Intervention | None
) -> Float[Tensor, "contexts *position n_outputs"]:
    """Logits of whole contexts under a change, in the model's number format (a classifier's are per context).

    Raises CausalError when the change makes the model overflow, AtlasError for a prompt longer than the context.
    """
    with intervened(loaded, intervention):
        hidden = final_hidden(loaded, input_ids)
    return require_finite(logits(loaded, require_finite(hidden, intervention)), intervention)


def require_finite(values: Tensor, intervention: Intervention | None) -> Tensor:
    """Return the values; raises CausalError that names the change when one of them is not finite."""
    if not bool(values.isfinite().all()):
        if intervention is None:
            raise CausalError("the output of the unchanged model is not finite; give the model in float32 (in_float32)")
        raise CausalError(f"{intervention}: the model's output is not finite; give the change a smaller amount")
    return values


def _require_width(rows: Tensor, width: int, hook: str) -> None:
    if rows.shape[-1] != width:
        raise CausalError(
            f"rows of {hook} have width {rows.shape[-1]}, but the dictionary expects {width}: it was trained on "
            "another hook or model"
        )
