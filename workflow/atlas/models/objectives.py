"""Per-token loss of a model's output, and the divergence of one output from another.

`hidden` is always the final hidden state (`forward.final_hidden`). Logits are computed in the model's number format
and everything after them in float32, a chunk at a time: (tokens, vocabulary) is never held whole.
`per_token_loss`, `kl` and `divergence` compare two outputs directly, as an audit does. To hold many edited outputs
against one clean output, `summarise_clean` keeps what is needed of that and `compare` takes it.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.errors import AtlasError
from atlas.hook_points import HookPoint
from atlas.models.adapters import CLASS_POSITION
from atlas.models.forward import logits
from atlas.models.load import LoadedModel
from atlas.models.predictions import clean_predictions, compare_predictions, features, vocabulary_projection
from atlas.models.token_logits import compare_logits, cross_entropy, kl_of_tokens

TOKEN_OBJECTIVES = ("causal_lm", "masked_lm")


def loss_mask(loaded: LoadedModel, input_ids: Int[Tensor, "contexts position"]) -> Bool[Tensor, "contexts position"]:
    """Positions that have a loss: all but the first, which nothing precedes."""
    _require_per_token(loaded)
    mask = torch.ones_like(input_ids, dtype=torch.bool)
    mask[:, 0] = False
    return mask


def unreached(loaded: LoadedModel, hook: str, counted: Bool[Tensor, "contexts position"]) -> str | None:
    """Return why nothing at the counted positions of `hook` can change the output; None where it can.

    A classifier's head reads one position. After the last attention no other position has a way to it.
    """
    point, last = HookPoint.parse(hook), loaded.identity["n_layers"] - 1
    if loaded.objective != "sequence_classification" or point.layer < last or point.site == "resid_pre":
        return None
    if bool(counted[:, CLASS_POSITION].any()):
        return None
    return (
        f"not defined: the classifier reads position {CLASS_POSITION} alone, a special token that is never edited, and "
        f"after the attention of block {last} no other position reaches it; use a hook before that"
    )


@torch.inference_mode()
def own_token_loss(
    loaded: LoadedModel,
    input_ids: Int[Tensor, "contexts position"],
    hidden: Float[Tensor, "contexts position d_model"],
) -> Float[Tensor, "contexts position"]:
    """Cross-entropy of the token at each position from the state there, nats: for a model that reads both ways."""
    loss = cross_entropy(loaded, hidden.flatten(0, 1), input_ids.flatten())
    return _require_finite(loss.view(input_ids.shape), "cross-entropy", loaded)


@torch.inference_mode()
def per_token_loss(
    loaded: LoadedModel,
    input_ids: Int[Tensor, "contexts position"],
    hidden: Float[Tensor, "contexts position d_model"],
) -> Float[Tensor, "contexts position"]:
    """Cross-entropy in nats, float32; position p holds the loss of predicting token p from the tokens before it.

    Position 0 holds 0 and is excluded by `loss_mask`. Raises AtlasError for an objective without a loss per token,
    and when a loss is not finite (the number of such positions is named); NaN is never returned.
    """
    _require_per_token(loaded)
    loss = torch.zeros(input_ids.shape, dtype=torch.float32, device=hidden.device)
    predicted = cross_entropy(loaded, hidden[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    loss[:, 1:] = predicted.view(len(input_ids), -1)
    return _require_finite(loss, "cross-entropy", loaded)


@torch.inference_mode()
def kl(
    loaded: LoadedModel,
    hidden_clean: Float[Tensor, "contexts position d_model"],
    hidden_other: Float[Tensor, "contexts position d_model"],
) -> Float[Tensor, "contexts position"]:
    """KL(clean ‖ other) of the predictions at each position, in nats, float32.

    For models that predict tokens. Raises AtlasError when a value is not finite.
    """
    if loaded.objective not in TOKEN_OBJECTIVES:
        raise AtlasError(f"objective {loaded.objective!r} predicts no tokens: use `divergence`, one value per context")
    distance = kl_of_tokens(loaded, hidden_clean.flatten(0, 1), hidden_other.flatten(0, 1))
    return _require_finite(distance.view(hidden_clean.shape[:2]), "KL divergence", loaded)


@torch.inference_mode()
def divergence(
    loaded: LoadedModel,
    hidden_clean: Float[Tensor, "contexts position d_model"],
    hidden_other: Float[Tensor, "contexts position d_model"],
) -> Float[Tensor, " contexts"]:
    """Return how far the other output is from the clean one: one value per context, 0 when they agree, float32.

    Sequence classification: KL(clean ‖ other) of the predicted classes, nats. Embedding: 1 − cosine of the
    embeddings, which are means over all positions, as sentence encoders pool. Models that predict tokens: mean of
    `kl` over positions. Raises AtlasError when a value is not finite.
    """
    if loaded.objective == "embedding":
        result = _cosine_distance(*(_embeddings(hidden) for hidden in (hidden_clean, hidden_other)))
    elif loaded.objective == "sequence_classification":
        result = _kl(logits(loaded, hidden_clean), logits(loaded, hidden_other))
    else:
        result = kl(loaded, hidden_clean, hidden_other).mean(dim=1)
    return _require_finite(result, "divergence", loaded)


@torch.inference_mode()
def summarise_clean(loaded: LoadedModel, hidden: Float[Tensor, "units ... d_model"]) -> dict[str, Tensor]:
    """Return what `compare` needs of the clean output: a row per unit under each name, of the objective's own kind.

    `hidden` is the final state at each position whose prediction is judged, (units, d_model), for a model that predicts
    tokens; of whole contexts, (units, position, d_model), for one that is judged by context.
    """
    if loaded.objective == "embedding":
        return {"embedding": _embeddings(hidden)}
    if loaded.objective == "sequence_classification":
        return {"log_chances": logits(loaded, hidden).float().log_softmax(-1)}
    projection = vocabulary_projection(loaded)
    if projection is None:
        return {"hidden": hidden.to(loaded.dtype)}
    return clean_predictions(projection, features(loaded, hidden))


@torch.inference_mode()
def compare(
    loaded: LoadedModel,
    hidden: Float[Tensor, "units ... d_model"],
    targets: Int[Tensor, " units"] | None,
    clean: Mapping[str, Tensor],
) -> tuple[Float[Tensor, " units"], Float[Tensor, " units"] | None]:
    """Loss of each unit, and KL from the clean prediction in nats (None for an embedding), float32.

    `clean` is from `summarise_clean` of the same units; `targets` are the tokens to be predicted, by models that
    predict tokens. The loss of others is their distance from the clean output: KL, or 1 − cosine. Raises AtlasError
    when a value is not finite.
    """
    if loaded.objective == "embedding":
        return _require_finite(_cosine_distance(clean["embedding"], _embeddings(hidden)), "1 - cosine", loaded), None
    if loaded.objective == "sequence_classification":
        distance = _require_finite(_kl(clean["log_chances"], logits(loaded, hidden)), "KL divergence", loaded)
        return distance, distance
    assert targets is not None  # models that predict tokens have them
    projection = vocabulary_projection(loaded)
    if projection is None:
        loss, distance = compare_logits(loaded, clean["hidden"], hidden, targets)
    else:
        loss, distance = compare_predictions(projection, features(loaded, hidden), targets, clean)
    return _require_finite(loss, "cross-entropy", loaded), _require_finite(distance, "KL divergence", loaded)


def _embeddings(hidden: Float[Tensor, "contexts position d_model"]) -> Float[Tensor, "contexts d_model"]:
    return hidden.float().mean(dim=1)


def _kl(clean: Float[Tensor, "rows outcomes"], other: Float[Tensor, "rows outcomes"]) -> Float[Tensor, " rows"]:
    clean_log, other_log = clean.float().log_softmax(-1), other.float().log_softmax(-1)
    return (clean_log.exp() * (clean_log - other_log)).sum(-1).clamp_(min=0)  # rounding can leave −1e-8


def _cosine_distance(
    clean: Float[Tensor, "rows d_model"], other: Float[Tensor, "rows d_model"]
) -> Float[Tensor, " rows"]:
    """1 − cosine as ½‖â − b̂‖²: exactly 0 for equal vectors and precise near 0; 1 where either vector is zero."""
    distance = 0.5 * (F.normalize(clean, dim=-1) - F.normalize(other, dim=-1)).square().sum(-1)
    empty = (clean == 0).all(-1) | (other == 0).all(-1)
    return distance.masked_fill(empty, 1.0)


def _require_per_token(loaded: LoadedModel) -> None:
    if loaded.objective == "masked_lm":
        raise AtlasError(
            f"{loaded.identity['name']}: a model of objective 'masked_lm' has a loss at masked positions only; "
            "use `compare` there, or `kl`"
        )
    if loaded.objective != "causal_lm":
        raise AtlasError(
            f"{loaded.identity['name']}: objective {loaded.objective!r} has no loss per token; "
            "use `divergence` from the clean output, one value per context"
        )


def _require_finite(value: Tensor, label: str, loaded: LoadedModel) -> Tensor:
    bad = int((~value.isfinite()).sum())
    if bad:
        raise AtlasError(
            f"{label} of {loaded.identity['name']} is not finite at {bad} of {value.numel()} places: "
            "the hidden state or the head holds NaN or infinity"
        )
    return value
