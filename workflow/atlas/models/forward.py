"""Read and replace activations of a running model.

All functions take whole contexts without padding, so no attention mask is passed, and run in inference mode on the
device that `input_ids` is on. Only the base model runs; its head is applied by `logits` alone.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from atlas.errors import AtlasError
from atlas.hook_points import HookPoint
from atlas.models.adapters import ModuleTensor, apply_head, find_place, get_blocks, has_experts
from atlas.models.load import LoadedModel


class _AllCaptured(Exception):  # noqa: N818 - a signal, not an error
    """Leaves the forward pass as soon as the last wanted tensor is known."""


@torch.inference_mode()
def capture(
    loaded: LoadedModel, input_ids: Int[Tensor, "contexts position"], hooks: Sequence[str], after: Cache | None = None
) -> dict[str, Float[Tensor, "contexts position d_model"]]:
    """Activations at `hooks` from one pass that stops after the deepest of them; in the model's number format.

    All contexts go on from `after`, what `read_prefix` gave for the same hooks; it stays as it is. Raises AtlasError
    when the model has no such place, or when a place does not carry (contexts, position, d_model).
    """
    if after is not None:
        after = copy.deepcopy(after)
        after.batch_repeat_interleave(len(input_ids))
    return _capture(loaded, input_ids, hooks, after)


@torch.inference_mode()
def read_prefix(loaded: LoadedModel, prefix: Int[Tensor, " position"], hooks: Sequence[str]) -> Cache | None:
    """Return what the model keeps of a beginning that many contexts share, down to the deepest of `hooks`; see
    `capture`.

    None where rows would differ by more than rounding: in a model that reads both ways, or one with recurrent blocks,
    keys and values are not all that a token leaves behind; a mixture of experts may choose another expert where
    rounding differs; before the first attention nothing is kept, not even how long the beginning is.
    """
    if loaded.objective != "causal_lm" or has_experts(loaded.model.config):
        return None
    cache = DynamicCache(config=loaded.model.config)
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        return None
    _capture(loaded, prefix[None], hooks, cache)
    return cache if cache.get_seq_length() == len(prefix) else None


def _capture(
    loaded: LoadedModel, input_ids: Tensor, hooks: Sequence[str], cache: Cache | None
) -> dict[str, Float[Tensor, "contexts position d_model"]]:
    if not hooks:
        return {}
    captured: dict[str, Tensor] = {}
    places = {hook: find_place(loaded.model, loaded.adapter, hook) for hook in hooks}

    def store(hook: str, value: Tensor) -> None:
        captured[hook] = _checked(hook, value, input_ids, loaded)
        if len(captured) == len(places):
            raise _AllCaptured

    with ExitStack() as stack:
        for hook, place in places.items():
            stack.enter_context(observed(place, lambda value, hook=hook: store(hook, value)))
        try:
            _run(loaded, input_ids, cache)
        except _AllCaptured:
            return {hook: captured[hook] for hook in hooks}
    missing = sorted(set(places) - set(captured))
    raise AtlasError(f"the forward pass of {loaded.identity['name']} never reached {missing}: mend its adapter")


@torch.inference_mode()
def final_hidden(
    loaded: LoadedModel, input_ids: Int[Tensor, "contexts position"]
) -> Float[Tensor, "contexts position d_model"]:
    """Hidden state just before the head (after the final norm), of the unchanged model."""
    return _run(loaded, input_ids).last_hidden_state


@torch.inference_mode()
def run_from(
    loaded: LoadedModel,
    input_ids: Int[Tensor, "contexts position"],
    hook: str,
    activation: Float[Tensor, "contexts position d_model"],
) -> Float[Tensor, "contexts position d_model"]:
    """Final hidden state with `activation` in place of the tensor at `hook`.

    A residual hook carries the whole state, so only the blocks after it are computed; other sites need the whole
    model. `activation` is converted to the model's number format.
    """
    point = HookPoint.parse(hook)
    find_place(loaded.model, loaded.adapter, hook)
    activation = _checked(hook, activation, input_ids, loaded).to(input_ids.device, loaded.dtype)
    first = point.layer + (point.site == "resid_post")
    if not point.is_residual or first == 0:
        return run_with(loaded, input_ids, hook, lambda _: activation)
    with skipped(get_blocks(loaded.model, loaded.adapter)[:first], activation):
        return final_hidden(loaded, input_ids)


@torch.inference_mode()
def run_with(
    loaded: LoadedModel, input_ids: Int[Tensor, "contexts position"], hook: str, edit: Callable[[Tensor], Tensor]
) -> Float[Tensor, "contexts position d_model"]:
    """Final hidden state of the whole model with ``edit(tensor)`` in place of the tensor at `hook`."""
    with edited(find_place(loaded.model, loaded.adapter, hook), edit):
        return final_hidden(loaded, input_ids)


@torch.inference_mode()
def logits(loaded: LoadedModel, hidden: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*units n_outputs"]:
    """The head on a final hidden state, in the model's number format.

    Raises AtlasError for an objective without logits (embedding).
    """
    return apply_head(loaded.model, loaded.adapter, loaded.objective, hidden.to(loaded.dtype))


def require_positions(loaded: LoadedModel, n_tokens: int) -> None:
    """Raise AtlasError when the model has no positions for a context of `n_tokens`."""
    limit = loaded.identity.get("longest_context")
    if limit is not None and n_tokens > limit:
        raise AtlasError(
            f"a context of {n_tokens} tokens is longer than {loaded.identity['name']} has positions for, {limit}: "
            "give it at most that many"
        )


def _run(loaded: LoadedModel, input_ids: Int[Tensor, "contexts position"], cache: Cache | None = None) -> Any:
    require_positions(loaded, input_ids.shape[1] + (0 if cache is None else cache.get_seq_length()))
    if loaded.objective != "causal_lm":
        return loaded.base(input_ids=input_ids)
    return loaded.base(input_ids=input_ids, use_cache=cache is not None, past_key_values=cache)


def _checked(hook: str, value: Tensor, input_ids: Tensor, loaded: LoadedModel) -> Tensor:
    expected = (*input_ids.shape, loaded.identity["d_model"])
    if tuple(value.shape) != expected:
        raise AtlasError(
            f"the tensor at {hook} of {loaded.identity['name']} has shape {tuple(value.shape)}: "
            f"must be (contexts, position, d_model) = {expected}"
        )
    return value


@contextmanager
def observed(place: ModuleTensor, look: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `look` with the tensor at `place` during the forward passes inside the block."""

    def see(value: Tensor) -> Tensor:
        look(value)
        return value

    with edited(place, see):
        yield


@contextmanager
def edited(place: ModuleTensor, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the tensor at `place` by ``edit(tensor)`` during forward passes."""

    def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        # Architectures differ in whether they hand the hidden state over by position or by name.
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    def after(module: nn.Module, args: tuple, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    if place.side == "input":
        handle = place.module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = place.module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skipped(blocks: Iterable[nn.Module], activation: Tensor) -> Iterator[None]:
    """Make `blocks` return `activation` at no cost.

    The model's own forward still prepares masks and rotary embeddings for the blocks that do run, so nothing of an
    architecture is repeated here. Blocks of all registered architectures return a plain tensor.
    """
    try:
        for block in blocks:
            block.forward = lambda *args, **kwargs: activation  # on the instance; the class keeps its own
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)
