"""Run many changed continuations of one context in a single pass.

A branch begins at a position of the context, where its tensor at a hook is changed, and goes on for some tokens. All
branches follow the context in one sequence: each token has the position that it stands for, and sees the context before
its branch, and its own branch. So the context is computed once, and all else costs as much as the branches' tokens.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from atlas.errors import AtlasError
from atlas.hook_points import HookPoint
from atlas.models.adapters import find_place, get_blocks, has_experts
from atlas.models.forward import edited, require_positions, run_from, run_with, skipped
from atlas.models.load import LoadedModel

# Tokens of all contexts of a pass that runs branches one by one.
_APART_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class Branches:
    """Branch b begins at position `start[b]`, where `delta[b]` is added at the hook; all have `length` tokens."""

    start: Int[Tensor, " branches"]
    delta: Float[Tensor, "branches d_target"]
    length: int

    @property
    def positions(self) -> Int[Tensor, "branches length"]:
        """Position of each token of each branch."""
        return self.start[:, None] + torch.arange(self.length, device=self.start.device)


def can_join(loaded: LoadedModel, n_tokens: int) -> bool:
    """Return whether `run_branches` gives the model's own numbers for contexts of `n_tokens`, up to rounding.

    Not where something besides keys and values passes from token to token (recurrent blocks, models that read both
    ways), where attention reaches less far than the context, or where rounding can turn a choice of experts.
    """
    if loaded.objective != "causal_lm" or has_experts(loaded.model.config):
        return False
    for layer in DynamicCache(config=loaded.model.config).layers:
        if type(layer) is DynamicSlidingWindowLayer and layer.sliding_window < n_tokens:
            return False
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            return False
    return True


@torch.inference_mode()
def run_branches(
    loaded: LoadedModel,
    tokens: Int[Tensor, " position"],
    hook: str,
    rows: Float[Tensor, "position d_target"] | None,
    branches: Branches,
) -> tuple[Float[Tensor, "position d_model"], Float[Tensor, "branches length d_model"]]:
    """Final states of the context and of its branches.

    `rows` are the clean activations at a residual hook: only the blocks after it are computed then. Other sites need
    the whole model, and no rows. Raises AtlasError for a model of which `can_join` is false.
    """
    if not can_join(loaded, len(tokens)):
        raise AtlasError(f"branches of {loaded.identity['name']} cannot be joined: use `run_apart`")
    require_positions(loaded, len(tokens))
    n_clean, where = len(tokens), branches.positions.flatten()
    ids = torch.cat([tokens, tokens[where]])[None]
    positions = torch.cat([torch.arange(n_clean, device=tokens.device), where])[None]
    firsts = n_clean + branches.length * torch.arange(len(branches.start), device=tokens.device)
    mask = _mask(n_clean, branches, loaded.dtype)
    options = {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "use_cache": False}

    def change(tensor: Float[Tensor, "1 position d_target"]) -> Float[Tensor, "1 position d_target"]:
        tensor = tensor.clone()
        tensor[0, firsts] = (tensor[0, firsts].float() + branches.delta).to(tensor.dtype)
        return tensor

    blocks = _before(loaded, hook)
    if rows is not None and blocks is not None:
        state = rows.to(loaded.device, loaded.dtype)
        with skipped(blocks, change(torch.cat([state, state[where]])[None])):
            hidden = loaded.base(**options).last_hidden_state[0]
    else:
        with edited(find_place(loaded.model, loaded.adapter, hook), change):
            hidden = loaded.base(**options).last_hidden_state[0]
    return hidden[:n_clean], hidden[n_clean:].unflatten(0, (-1, branches.length))


@torch.inference_mode()
def run_apart(
    loaded: LoadedModel,
    tokens: Int[Tensor, " position"],
    hook: str,
    rows: Float[Tensor, "position d_target"] | None,
    branches: Branches,
) -> tuple[Float[Tensor, "position d_model"], Float[Tensor, "branches length d_model"]]:
    """The same for any causal model: the context is run again for each branch."""
    n_branches = len(branches.start)
    starts = torch.cat([branches.start.new_zeros(1), branches.start])  # the first is the context as it is
    deltas = torch.cat([torch.zeros_like(branches.delta[:1]), branches.delta])
    step, found = max(1, _APART_TOKENS // len(tokens)), []
    for first in range(0, n_branches + 1, step):
        start, delta = starts[first : first + step], deltas[first : first + step]
        ids, each = tokens.expand(len(start), -1), torch.arange(len(start), device=tokens.device)

        def change(tensor: Tensor, each=each, start=start, delta=delta) -> Tensor:
            tensor = tensor.clone()
            moved = tensor[each, start].float() + delta
            tensor[each, start] = torch.where(
                (delta != 0).any(1, keepdim=True), moved.to(tensor.dtype), tensor[each, start]
            )
            return tensor

        if rows is not None and _before(loaded, hook) is not None:
            state = rows.to(loaded.device, loaded.dtype).expand(len(start), -1, -1)
            hidden = run_from(loaded, ids, hook, change(state))
        else:
            hidden = run_with(loaded, ids, hook, change)
        found.append(hidden)
    hidden = torch.cat(found)
    places = torch.arange(n_branches, device=tokens.device)[:, None]
    return hidden[0], hidden[1:][places, branches.positions]


def _before(loaded: LoadedModel, hook: str) -> list | None:
    """Blocks that a residual hook makes superfluous; None where the whole model must run."""
    point = HookPoint.parse(hook)
    find_place(loaded.model, loaded.adapter, hook)
    count = point.layer + (point.site == "resid_post")
    return list(get_blocks(loaded.model, loaded.adapter)[:count]) if point.is_residual and count else None


def _mask(n_clean: int, branches: Branches, dtype: torch.dtype) -> Float[Tensor, "1 1 position position"]:
    """0 where a token sees another one, else the lowest number."""
    n_branches, length, device = len(branches.start), branches.length, branches.start.device
    seen = torch.zeros(n_clean + n_branches * length, n_clean + n_branches * length, dtype=torch.bool, device=device)
    seen[:n_clean, :n_clean] = torch.ones(n_clean, n_clean, dtype=torch.bool, device=device).tril()
    before = torch.arange(n_clean, device=device) < branches.start[:, None]
    seen[n_clean:, :n_clean] = before.repeat_interleave(length, dim=0)
    own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen[n_clean:, n_clean:] = torch.block_diag(*[own] * n_branches)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)[None, None]
