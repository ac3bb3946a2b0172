"""Labels and scores of one SAE from files: its codes and a random dictionary's, model, tokenizer, sentence encoder."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from atlas.autointerp.by_context import fact_correlations
from atlas.autointerp.ceilings import score_planted
from atlas.autointerp.clients import ClientFiles, make_client
from atlas.autointerp.examples import AllExamples, choose_examples, nearest_latents
from atlas.autointerp.explainers import EXPLAINERS, promoted_tokens
from atlas.autointerp.intruder import judge_intruders
from atlas.autointerp.intruder_scorers import INTRUDERS
from atlas.autointerp.judge import LabelResults, judge_labels
from atlas.autointerp.quality import repetition, seed_stability
from atlas.autointerp.scorers import SCORERS
from atlas.autointerp.summary import summarise
from atlas.autointerp.tools import Embed, LatentExamples, ScorerTools, Tools
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords
from atlas.codes.encode import identity_of, open_dictionaries, sae_sha256
from atlas.codes.store import Codes
from atlas.config.autointerp import Autointerp
from atlas.corpora.encoding import tokenizer_sha256
from atlas.errors import EvaluationError
from atlas.evaluation.undefined import without_nonfinite
from atlas.files import write_json
from atlas.folder import Folder
from atlas.hook_points import HookPoint, SaeHooks
from atlas.latents.drift import require_distinct
from atlas.latents.embedder import SentenceEmbedder
from atlas.latents.table import write_sae_table
from atlas.latents.token_classes import TokenTable
from atlas.models.load import load_model, load_tokenizer
from atlas.training.sae import Sae

log = logging.getLogger(__name__)

DICTIONARIES = ("sae", "random")
_ENCODING = ("embedding", "intruder_embedding")
# Sites whose rows are summands of the residual stream: the head reads their directions.
_READ_BY_HEAD = ("resid_pre", "resid_post", "mlp_out", "attn_out")


@dataclass(frozen=True)
class AutointerpInputs:
    """Files: prepared model, SAE folder, training shards (for the random dictionary), codes of both by corpus, the
    prepared embedder if there is one, the folder in which replies of a language model are kept, and the Python of
    Delphi's environment and the prepared model that answers prompts, if they are used.
    """

    model: Path
    sae: Folder
    train_shards: list[Path]
    codes: Mapping[str, Path]
    random_codes: Mapping[str, Path]
    embedder: Path | None
    replies: Path
    delphi: Path | None = None
    client_model: Path | None = None


@dataclass(frozen=True)
class AutointerpOutputs:
    """Tables of labels and of scores (one row per latent, dictionary and what they are of), of single answers, of what
    plain facts of tokens tell (one row per latent, dictionary and fact), and the summary.
    """

    labels: Path
    scores: Path
    answers: Path
    tokens: Path
    summary: Path


@dataclass(frozen=True, eq=False)
class _Scene:
    """Input that both dictionaries share."""

    windows: Windows
    tools: ScorerTools
    settings: Autointerp
    samples: int


def run_autointerp(
    inputs: AutointerpInputs,
    *,
    hook: str,
    seed: int,
    settings: Autointerp,
    bootstrap_samples: int,
    device: torch.device,
    outputs: AutointerpOutputs,
) -> None:
    """Label all alive latents of the SAE and of its random dictionary, score the labels beside their controls.

    Raises EvaluationError when codes, SAE and tokenizer do not belong together, when a scorer lacks the sentence
    encoder, or when the corpora are too short; StoreError for damaged codes.
    """
    saes = open_dictionaries(inputs.sae, inputs.train_shards, hook, seed)
    codes = _open_codes(inputs, hook, seed)
    require_distinct({name: str(own.identity["corpus_fingerprint"]) for name, own in codes["sae"].items()})
    encoding = [name for name in settings.scorers if name in _ENCODING]
    if encoding and inputs.embedder is None:
        raise EvaluationError(
            f"autointerp.scorers has {encoding[0]!r}, but latents.embedder is null: configure a sentence encoder "
            "there, or another scorer"
        )
    windows, tokens = Windows.of(codes["sae"], settings.window_tokens), TokenTable.of(inputs.model)
    client = make_client(settings.client, ClientFiles(inputs.replies, inputs.client_model, device))
    tokenizer = load_tokenizer(inputs.model)
    tools = Tools(
        windows, WindowWords.find(windows, tokens), tokens, tokenizer, client, settings.seeds[0], inputs.delphi
    )
    embed = _once(SentenceEmbedder.load(inputs.embedder, device)) if inputs.embedder else None
    scene = _Scene(windows, ScorerTools(tools, embed, device, settings.per_prompt), settings, bootstrap_samples)
    promoted = _promoted(inputs.model, saes, hook, tokens.texts, device)
    found = {kind: _label_and_judge(saes[kind], codes[kind], promoted[kind], scene) for kind in DICTIONARIES}
    own = list(codes["sae"].values())
    ceilings = score_planted(own, _densities(own, found["sae"]), scene.tools, settings, bootstrap_samples)
    _write(inputs, scene, found, ceilings, outputs)


def _label_and_judge(
    sae: Sae, codes: Mapping[str, Codes], promoted: Sequence[tuple[str, ...]], scene: _Scene
) -> LabelResults:
    settings, tools = scene.settings, scene.tools.tools
    W_dec = sae.W_dec.float().cpu().numpy()
    neighbours = nearest_latents(W_dec, settings.neighbours)
    rows, judged, quality = [], {}, {}
    by_explainer: dict[str, list[dict[int, str]]] = {name: [] for name in settings.explainers}
    for number, seed in enumerate(settings.seeds):
        examples = choose_examples(list(codes.values()), scene.windows, neighbours, settings, seed)
        alive = np.flatnonzero(examples.n_firings > 0)
        chosen = _sample(alive, settings)
        evidence = [LatentExamples(examples.latents[latent], promoted[latent]) for latent in chosen]
        for name in settings.explainers:
            written = EXPLAINERS[name](evidence, tools)
            own = {int(latent): label for latent, label in zip(chosen, written, strict=True) if label is not None}
            by_explainer[name].append(own)
            rows.append(_label_rows(name, seed, chosen, own, examples))
            if number == 0:
                labels = [own.get(latent) for latent in range(len(W_dec))]
                for scorer in settings.label_scorers:
                    judged[name, scorer] = judge_labels(
                        labels,
                        examples,
                        chosen,
                        scene.windows,
                        SCORERS[scorer](scene.tools),
                        settings,
                        samples=scene.samples,
                        seed=seed,
                    )
                quality[name] = repetition(own, W_dec, scene.tools.embed)
        if number == 0:
            for scorer in settings.intruder_scorers:
                judged[None, scorer] = judge_intruders(
                    examples,
                    chosen,
                    scene.windows,
                    INTRUDERS[scorer](scene.tools),
                    settings,
                    samples=scene.samples,
                    seed=seed,
                )
    for name, own in by_explainer.items():
        quality[name] |= seed_stability(own, scene.tools.embed)
    by_fact = fact_correlations(
        list(codes.values()), scene.windows, tools.tokens.texts, settings.seeds[0], settings.min_examples
    )
    table = pd.concat(rows, ignore_index=True)
    return LabelResults(examples.n_firings, by_fact, len(alive), len(chosen), table, judged, quality)


def _densities(codes: Sequence[Codes], found: LabelResults) -> Float[np.ndarray, " alive"]:
    """Shares of the counted tokens on which the alive latents fire."""
    alive = found.n_firings[found.n_firings > 0]
    return alive / max(sum(int(own.counted.sum()) for own in codes), 1)


def _sample(alive: np.ndarray, settings: Autointerp) -> np.ndarray:
    """The latents that are labelled: all alive ones, or as many of them as `sample` says, the same for all seeds."""
    if settings.sample is None or settings.sample >= len(alive):
        return alive
    generator = np.random.Generator(np.random.PCG64([settings.seeds[0], 5]))
    return np.sort(generator.permutation(alive)[: settings.sample])


def _label_rows(
    explainer: str, seed: int, chosen: np.ndarray, labels: Mapping[int, str], examples: AllExamples
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "latent": chosen,
            "explainer": explainer,
            "seed": seed,
            "label": [labels.get(int(latent)) for latent in chosen],
            "n_train": [len(examples.latents[latent].train) for latent in chosen],
        }
    )


def _once(embed: Embed) -> Embed:
    """The same sentence encoder, which embeds every text once: windows and labels come up again and again."""
    known: dict[str, np.ndarray] = {}

    def remembered(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return remembered


def _promoted(
    model: Path, saes: Mapping[str, Sae], hook: str, texts: Sequence[str], device: torch.device
) -> dict[str, list[tuple[str, ...]]]:
    """Promoted tokens of each dictionary; none where the head does not read what the latents write."""
    if HookPoint.parse(SaeHooks.parse(hook).target).site not in _READ_BY_HEAD:
        return {kind: [()] * sae.n_latents for kind, sae in saes.items()}
    loaded = load_model(model, device)
    return {kind: promoted_tokens(sae.W_dec, loaded, texts) for kind, sae in saes.items()}


def _open_codes(inputs: AutointerpInputs, hook: str, seed: int) -> dict[str, dict[str, Codes]]:
    """Codes by dictionary and corpus, each of this SAE and of this corpus."""
    expected = identity_of(inputs.sae, hook, seed) | {"tokenizer_sha256": tokenizer_sha256(inputs.model)}
    files = dict(zip(DICTIONARIES, (inputs.codes, inputs.random_codes), strict=True))
    return {
        kind: {name: Codes.open(path, expected | {"dictionary": kind, "corpus": name}) for name, path in paths.items()}
        for kind, paths in files.items()
    }


def _answers(scene: _Scene, found: LabelResults) -> pd.DataFrame:
    """Each label scorer's answers on labels of the deciding explainer, each with where its window stands."""
    windows, settings = scene.windows, scene.settings
    parts = [
        found.judged[settings.explainers[0], scorer].answers.assign(scorer=scorer) for scorer in settings.label_scorers
    ]
    answers = pd.concat(parts, ignore_index=True)
    window = answers.window.to_numpy(np.int64)
    places = {
        "corpus": np.array(windows.corpora, object)[windows.corpus[window]],
        "start": windows.start[window],
        "width": windows.width,
    }
    return answers.drop(columns="window").assign(**places)


def _write(
    inputs: AutointerpInputs,
    scene: _Scene,
    found: Mapping[str, LabelResults],
    ceilings: Sequence[Mapping[str, Any]],
    outputs: AutointerpOutputs,
) -> None:
    sae_id, sha256 = "/".join(inputs.sae.parts[-5:]), sae_sha256(inputs.sae)
    labels = [own.labels.assign(dictionary=kind) for kind, own in found.items()]
    scores = [
        judged.rows.assign(dictionary=kind, explainer=explainer, scorer=scorer)
        for kind, own in found.items()
        for (explainer, scorer), judged in own.judged.items()
    ]
    write_sae_table(outputs.labels, pd.concat(labels), ["dictionary", "latent", "explainer", "seed"], sae_id, sha256)
    first = ["dictionary", "latent", "explainer", "scorer", "negatives"]
    write_sae_table(outputs.scores, pd.concat(scores), first, sae_id, sha256)
    write_sae_table(outputs.answers, _answers(scene, found["sae"]), ["latent", "scorer", "kind"], sae_id, sha256)
    tokens = [
        pd.DataFrame({"latent": np.arange(len(values)), "fact": fact, "correlation": values, "dictionary": kind})
        for kind, own in found.items()
        for fact, values in own.by_fact.items()
    ]
    write_sae_table(outputs.tokens, pd.concat(tokens), ["dictionary", "latent", "fact"], sae_id, sha256)
    reasons: dict[str, str] = {}
    result = summarise(found, scene.windows, scene.settings) | {"ceilings": list(ceilings)}
    write_json(
        outputs.summary,
        {"sae_id": sae_id, "sae_sha256": sha256, **without_nonfinite(result, reasons), "reasons": reasons},
    )
    for row in result["rows"]:
        if row["dictionary"] == "sae":
            log.info(
                "%s, %s, %s negatives: %s",
                row["explainer"] or "no label",
                row["scorer"],
                row["negatives"],
                row["verdict"],
            )
