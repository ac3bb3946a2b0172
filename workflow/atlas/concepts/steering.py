"""Judge generated text under an added direction; the judge reads the text alone. docs/metrics.md,
section 19.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from atlas.activations.store import Shard
from atlas.causal.firings import random_direction
from atlas.causal.generation import generate
from atlas.causal.interventions import Change, Intervention
from atlas.config.causal import Concepts
from atlas.errors import CausalError
from atlas.models.forward import final_hidden, logits
from atlas.models.load import LoadedModel
from atlas.probing.probes import dense_strength, stratified_split
from atlas.statistics.auc import Auc
from atlas.statistics.clusters import cluster_interval
from atlas.training.sae import Sae

# Directions that are added; `random` is drawn anew for each prompt.
METHODS = ("latent", "diffmean", "random")
# Share of a judge's texts on which it is tested.
_JUDGE_TEST = 0.4
# Part of the seed of draws.
_PROMPTS = 17


@dataclass(frozen=True, eq=False)
class Judge:
    """A logistic regression on text embeddings that says how much a text is of class True.

    Scores are in units of the distance between classes: 0 is the mean of held-out texts of class False, 1 the mean of
    class True. `auc` is of the same texts. Unlike probabilities scores do not depend on the penalty.
    """

    auc: float
    weights: Float[np.ndarray, " width"]
    zero: float
    unit: float

    @classmethod
    def of(cls, vectors: Float[np.ndarray, "texts width"], labels: Bool[np.ndarray, " texts"]) -> "Judge":
        """Fit on one part of the texts and test on the rest; the strength of the penalty is chosen within the first."""
        vectors = vectors.astype(np.float64)
        split = stratified_split(labels, _JUDGE_TEST, 0)
        train, mean, spread = vectors[split.train], *_scale(vectors[split.train])
        model = LogisticRegression(C=dense_strength(vectors, labels, split, seed=0), class_weight="balanced")
        model.set_params(max_iter=1000).fit((train - mean) / spread, labels[split.train])
        weights = model.coef_[0] / spread
        logits, held_out = vectors[split.test] @ weights, labels[split.test]
        zero, one = float(logits[~held_out].mean()), float(logits[held_out].mean())
        return cls(Auc.of(logits, held_out).value, weights, zero, one - zero)

    def tells(self, least: float) -> bool:
        """Return whether it tells the classes apart: with an AUC of at least `least`, and in the mean."""
        return self.auc >= least and self.unit > 0

    def __call__(self, vectors: Float[np.ndarray, "texts width"]) -> Float[np.ndarray, " texts"]:
        """Scores of texts, float64."""
        return (vectors.astype(np.float64) @ self.weights - self.zero) / self.unit


def _scale(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = vectors.std(axis=0)
    return vectors.mean(axis=0), np.where(spread > 1e-12, spread, 1.0)


def choose_prompts(shards: Sequence[Shard], settings: Concepts, seed: int) -> Int[Tensor, "prompts position"]:
    """Beginnings of different documents, drawn by chance; of a document cut by a context, of its first whole part.

    Raises CausalError when contexts are too short, or hold the beginnings of too few documents.
    """
    length, n_tokens = shards[0].context_length, settings.prompt_tokens
    if n_tokens > length:
        raise CausalError(f"concepts.prompt_tokens is {n_tokens}: must be at most a context, {length} tokens")
    tokens, documents = (
        np.concatenate([np.asarray(getattr(shard, name)).reshape(-1, length) for shard in shards])
        for name in ("tokens", "document")
    )
    starts = documents[:, : length - n_tokens + 1]
    begins = np.ones(starts.shape, bool)
    begins[:, 1:] = starts[:, 1:] != starts[:, :-1]
    contexts, positions = np.nonzero(begins & (starts == documents[:, n_tokens - 1 :]) & (starts >= 0))
    _, first = np.unique(documents[contexts, positions], return_index=True)
    if len(first) < settings.prompts:
        raise CausalError(
            f"concepts.prompts is {settings.prompts}, but {len(first)} held-out documents have {n_tokens} tokens in a "
            "context: ask for fewer prompts, or raise harvest.eval_tokens"
        )
    drawn = np.sort(np.random.Generator(np.random.PCG64([seed, _PROMPTS])).permutation(first)[: settings.prompts])
    found = [tokens[contexts[each], positions[each] : positions[each] + n_tokens] for each in drawn]
    return torch.from_numpy(np.stack(found).astype(np.int64))


@dataclass(frozen=True, eq=False)
class Texts:
    """Continuations of the prompts: the text, and per prompt the unchanged model's loss and share of new tokens."""

    texts: list[str]
    loss: Float[np.ndarray, " prompts"]
    distinct: Float[np.ndarray, " prompts"]


@torch.inference_mode()
def continued(
    loaded: LoadedModel,
    hook: str,
    prompts: Int[Tensor, "prompts position"],
    n_tokens: int,
    added: Float[Tensor, "prompts d_target"] | None = None,
) -> Texts:
    """Continue prompts greedily with `added` at `hook`, at each prompt's last token and all new ones; None: unchanged.

    `loss` is the mean loss of the unchanged model on the new tokens, nats: what the change costs in fluency.
    Raises CausalError when the change makes the model overflow.
    """
    prompts = prompts.to(loaded.device)
    new = generate(loaded, prompts, n_tokens, None if added is None else _adding(loaded, hook, prompts, added))
    whole = torch.cat([prompts, new], 1)
    hidden = final_hidden(loaded, whole)[:, prompts.shape[1] - 1 : -1]
    logs = logits(loaded, hidden).float().log_softmax(-1)
    loss = -logs.gather(2, new[..., None])[..., 0].mean(1)
    distinct = [len(set(row)) / n_tokens for row in new.tolist()]
    texts = loaded.tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Texts(texts, loss.cpu().numpy().astype(np.float64), np.array(distinct))


def _adding(loaded: LoadedModel, hook: str, prompts: Tensor, added: Tensor) -> Intervention:
    """An intervention that adds a vector per prompt: those of a dictionary whose latents never fire."""
    n_prompts, width = added.shape
    still = Sae("relu", torch.zeros(width, n_prompts), torch.zeros(n_prompts), added.float().cpu(), torch.zeros(width))
    where = torch.zeros(prompts.shape, dtype=torch.bool, device=prompts.device)
    where[:, -1] = True
    return Intervention.of(loaded, still, hook, Change.of("add", range(n_prompts), 1.0), where)


def steer(
    loaded: LoadedModel,
    hook: str,
    prompts: Int[Tensor, "prompts position"],
    directions: Mapping[str, Float[Tensor, " d_target"]],
    norm: float,
    settings: Concepts,
    seed: int,
    place: int,
) -> dict[float, dict[str, Texts | str]]:
    """Continuations by strength and method of METHODS, all of the same length of what is added.

    `norm` is the length that a strength of 1 adds. `place` says which draw of random directions is taken. Where the
    model overflows there is the reason in place of the texts.
    """
    width = len(directions["latent"])
    drawn = [random_direction(place, number, width, seed) for number in range(len(prompts))]
    every = {name: direction.expand(len(prompts), -1) for name, direction in directions.items()}
    every |= {"random": torch.from_numpy(np.stack(drawn))}
    found: dict[float, dict[str, Texts | str]] = {}
    for strength in settings.strengths:
        found[strength] = {}
        for method in METHODS:
            added = every[method].float() * (strength * norm)
            try:
                found[strength][method] = continued(loaded, hook, prompts, settings.new_tokens, added)
            except CausalError as error:
                found[strength][method] = str(error)
    return found


def scores(
    clean: Texts,
    steered: Mapping[str, Texts | str],
    judged: Mapping[str, Float[np.ndarray, " prompts"]],
    clean_judged: Float[np.ndarray, " prompts"],
) -> dict[str, Any]:
    """Numbers of one data set and strength, with intervals over prompts.

    `judged` has the judge's scores by method. `score` is their change against the unchanged continuations of the same
    prompts, in distances between classes, `loss` that of the unchanged model's loss, `distinct` the share of
    different tokens, `text` the first prompt's continuation. `minus_<method>` is the latent's score less that of
    another direction. A method without texts has its `reason`.
    """
    result: dict[str, Any] = {}
    for method, texts in steered.items():
        if isinstance(texts, str):
            result[method] = {"reason": texts}
            continue
        gained = judged[method] - clean_judged
        result[method] = {
            "score": over(gained),
            "loss": over(texts.loss - clean.loss),
            "distinct": float(texts.distinct.mean()),
            "text": texts.texts[0],
        }
    for other in METHODS[1:]:
        if "latent" in judged and other in judged:
            result[f"minus_{other}"] = over(judged["latent"] - judged[other])
    return result


def over(values: Float[np.ndarray, " clusters"]) -> dict[str, Any]:
    """Mean with its interval over clusters; None where there are fewer than four."""
    interval = cluster_interval(lambda draws: draws @ values / draws.sum(1), len(values))
    return {"value": float(values.mean()), "interval": interval}
