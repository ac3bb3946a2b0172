"""Split one logit into what latents, bias and error contribute at a hook. Normative: docs/metrics.md, section 18.

Gradient × activation, position by position. The scale of the final norm is held constant, as is usual: the norm undoes
every change of length, so that otherwise the contributions at its input would add up to zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from atlas.causal.interventions import require_finite
from atlas.errors import CausalError
from atlas.hook_points import SaeHooks
from atlas.models.adapters import apply_head, find_place
from atlas.models.forward import edited, observed, require_positions
from atlas.models.load import LoadedModel
from atlas.training.sae import Sae


@dataclass(frozen=True, eq=False)
class Attribution:
    """Summands of a logit, float64; they and `rest` add up to it.

    `latents` are activation × (decoder row · gradient), `bias` is b_dec · gradient, `error` what the SAE does not
    reconstruct · gradient, each at the position where it is. `rest` is what is not first order in the tensor at the
    hook: biases of later blocks and all that is not linear. It is 0 at the last residual hook of a model whose final
    norm and head have no bias. `logit` is the unchanged model's own.
    """

    latents: Float[Tensor, "position n_latents"]
    bias: Float[Tensor, " position"]
    error: Float[Tensor, " position"]
    rest: float
    logit: float

    @property
    def total(self) -> float:
        """Sum of all summands."""
        return float(self.latents.sum() + self.bias.sum() + self.error.sum()) + self.rest

    def strongest(self, count: int) -> list[tuple[int, int, float]]:
        """Position, latent and contribution of the `count` largest, by size."""
        order = self.latents.abs().flatten().topk(min(count, self.latents.numel())).indices
        places = [divmod(int(place), self.latents.shape[1]) for place in order]
        return [(position, latent, float(self.latents[position, latent])) for position, latent in places]


def attribute(
    loaded: LoadedModel,
    sae: Sae,
    hook: str,
    tokens: Int[Tensor, " position"],
    position: int,
    token: int,
    hold_norm: bool = True,
) -> Attribution:
    """Split the logit of `token` that the model predicts at `position` of a context.

    `hook` is one hook, or a transcoder's two: then the tensor at its target is split. The sums of a bfloat16 model are
    as inexact as its logits: give `in_float32(loaded)`. Raises CausalError for a model without logits per token, a
    position or token that there is not, or a final norm of unknown form; AtlasError for a hook that the model lacks.
    """
    _require_token_logits(loaded, tokens, position, token)
    hooks, held = SaeHooks.parse(hook), nullcontext()
    if hold_norm and loaded.adapter.final_norm is not None:
        held = _held(loaded.base.get_submodule(loaded.adapter.final_norm))
    seen: dict[str, Tensor] = {}

    def leaf(tensor: Tensor) -> Tensor:
        seen["target"] = tensor.detach().clone().requires_grad_()
        return seen["target"]

    source, target = (find_place(loaded.model, loaded.adapter, name) for name in (hooks.source, hooks.target))
    with torch.no_grad():
        own = float(_logit(loaded, tokens, position, token))
    with torch.enable_grad(), observed(source, lambda rows: seen.update(source=rows.detach())), edited(target, leaf):
        with held:
            logit = _logit(loaded, tokens, position, token)
        (gradient,) = torch.autograd.grad(logit, seen["target"])
    with torch.no_grad():
        rows, gradient = seen["target"][0].detach().double(), require_finite(gradient, None)[0].double()
        codes, W_dec = sae.to(loaded.device).encode(seen["source"][0]).double(), sae.W_dec.to(loaded.device).double()
        bias = sae.b_dec.to(loaded.device).double()
        return Attribution(
            latents=codes * (gradient @ W_dec.T),
            bias=gradient @ bias,
            error=((rows - codes @ W_dec - bias) * gradient).sum(1),
            rest=float(logit) - float((rows * gradient).sum()),
            logit=own,
        )


def _logit(loaded: LoadedModel, tokens: Tensor, position: int, token: int) -> Tensor:
    ids = tokens[None].to(loaded.device)
    require_positions(loaded, ids.shape[1])
    cache = {"use_cache": False} if loaded.objective == "causal_lm" else {}
    hidden = loaded.base(input_ids=ids, **cache).last_hidden_state
    return apply_head(loaded.model, loaded.adapter, loaded.objective, hidden)[0, position, token]


@contextmanager
def _held(norm: nn.Module) -> Iterator[None]:
    """Let gradients pass through `norm` as if its scale were constant; values stay as they are."""

    def hold(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        centred, factor = _norm_form(norm, args[0].detach(), output.detach())
        moved = args[0] - args[0].detach()
        if centred:
            moved = moved - moved.mean(-1, keepdim=True)
        return output.detach() + moved * factor

    handle = norm.register_forward_hook(hold)
    try:
        yield
    finally:
        handle.remove()


def _norm_form(norm: nn.Module, rows: Tensor, output: Tensor) -> tuple[bool, Tensor]:
    """Find the form of a norm that gives its output: whether it subtracts the mean, and the factor of each value."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    exact, scaled = rows.double(), output.double() - (0 if bias is None else bias.detach().double())
    for centred, plus_one in product((False, True), repeat=2):
        own = exact - exact.mean(-1, keepdim=True) if centred else exact
        gain = 1.0 if weight is None else weight.detach().double() + plus_one
        # The scale of each row by least squares: some norms do not say what they add below the root.
        along = own * gain
        scale = (along * scaled).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True).clamp_min(1e-300)
        if torch.allclose(along * scale, scaled, rtol=1e-2, atol=1e-4 * float(scaled.abs().max())):
            return centred, (scale * gain).expand_as(exact).to(rows.dtype)
    raise CausalError(
        f"the final norm is a {type(norm).__name__}, neither an RMS norm nor a layer norm: its scale cannot be held; "
        "ask with hold_norm=False"
    )


def _require_token_logits(loaded: LoadedModel, tokens: Tensor, position: int, token: int) -> None:
    if loaded.objective not in ("causal_lm", "masked_lm"):
        raise CausalError(f"{loaded.identity['name']}: objective {loaded.objective!r} has no logits of tokens")
    if not 0 <= position < len(tokens):
        raise CausalError(f"position {position}: the context has positions 0 to {len(tokens) - 1}")
    if not 0 <= token < loaded.identity["vocabulary_size"]:
        raise CausalError(f"token {token}: the vocabulary has tokens 0 to {loaded.identity['vocabulary_size'] - 1}")
