"""Does a model survive being saved? Its weights bit for bit, and what it says on a probe text up to rounding."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.errors import SourceError
from atlas.models.adapters import apply_head
from atlas.models.forward import final_hidden
from atlas.models.load import LoadedModel

_LONGEST = 64
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Outcome:
    """Logits (final states where the objective has none) on a probe text, and the hash of every weight and buffer."""

    outputs: Float[Tensor, "rows outputs"]
    hashes: dict[str, str]
    limit: float

    @classmethod
    def of(cls, loaded: LoadedModel, text: str) -> "Outcome":
        """Return what `loaded` makes of `text`."""
        limit = min(_LONGEST, loaded.identity["longest_context"] or _LONGEST)
        ids = loaded.tokenizer(text, split_special_tokens=True)["input_ids"][:limit]
        hidden = final_hidden(loaded, torch.tensor([ids], device=loaded.device))
        if loaded.objective in loaded.adapter.heads:
            with torch.inference_mode():
                hidden = apply_head(loaded.model, loaded.adapter, loaded.objective, hidden)
        # Rounding errors of the blocks add like a random walk, as in the audit's check of single rows.
        rounding = 4 * torch.finfo(loaded.dtype).eps * (loaded.identity["n_layers"] + 1) ** 0.5
        return cls(hidden.float().flatten(0, -2), _hashes(loaded.model), rounding)


def require_same(name: str, before: Outcome, after: Outcome) -> None:
    """Raise SourceError unless the saved model, loaded again, is the model that was saved."""
    keys = sorted(set(before.hashes) | set(after.hashes))
    if changed := [key for key in keys if before.hashes.get(key) != after.hashes.get(key)]:
        raise SourceError(
            f"models.{name}: {len(changed)} weights changed while the model was saved and loaded again, among them "
            f"{changed[:_SHOWN]}: this version of transformers cannot save the model; give it as plain safetensors"
        )
    gaps = (after.outputs - before.outputs).norm(dim=-1) / before.outputs.norm(dim=-1).clamp_min(1e-30)
    if not (gap := gaps.median().item()) <= before.limit:
        raise SourceError(
            f"models.{name}: the saved model, loaded again, gives other outputs on a probe text (median relative "
            f"difference of a token {gap:.3g}, limit {before.limit:.3g}): its config.json does not say all that the "
            "model is, or its outputs are not finite"
        )


def _hashes(model: torch.nn.Module) -> dict[str, str]:
    return {
        key: hashlib.sha256(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
        for key, value in model.state_dict().items()
    }
