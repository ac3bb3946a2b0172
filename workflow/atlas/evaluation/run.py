"""One evaluation from files: open what it needs, check that it belongs together, judge, write."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from atlas.activations.store import shards_by_corpus
from atlas.config.recipe import Recipe
from atlas.config.study import Evaluation
from atlas.errors import EvaluationError
from atlas.evaluation.document_sums import DocumentSums, write_document_sums
from atlas.evaluation.evaluate import CorpusInputs, evaluate_sae
from atlas.evaluation.facts import TrainingFacts
from atlas.files import write_json
from atlas.folder import Folder
from atlas.models.load import PlantedModel, load_subject


@dataclass(frozen=True)
class EvaluationInputs:
    """Files of one evaluation: prepared model and SAE folders, training shards, eval shards, references by corpus."""

    model: Path
    sae: Folder
    train_shards: list[Path]
    shards: list[Path]
    references: list[Path]


def run_evaluation(
    inputs: EvaluationInputs,
    *,
    hook: str,
    roles: Mapping[str, str],
    recipe: Recipe | None,
    settings: Evaluation,
    seed: int,
    device: torch.device,
    target: Path,
    batch_contexts: int = 8,
    scale: float = 1.0,
    document_sums: Path | None = None,
) -> None:
    """Judge one SAE on the corpora of `roles` (corpus → in_sample, proxy or oos) and write metrics.json.

    With `document_sums`, what it did on each document is written there, to be held against another SAE.

    `hook` is one hook, or a transcoder's two: that of the SAE's path, or another one to judge it away from home, on
    rows times `scale`. `recipe` is what the SAE was trained by, None if it was published.
    Shards lie in a folder with their corpus' name, references are files of that name (none for a planted model, which
    has no losses); the SAE's id is the last five parts of its folder. Raises EvaluationError when a corpus lacks its
    files, StoreError for damaged shards.
    """
    loaded = load_subject(inputs.model, device)
    planted = isinstance(loaded, PlantedModel)
    shards, references = shards_by_corpus(inputs.shards, {}), {path.stem: path for path in inputs.references}
    for corpus in roles:
        if corpus not in shards or (corpus not in references and not planted):
            raise EvaluationError(
                f"corpus {corpus!r} has no eval shards or no references: given are shards of {sorted(shards)} "
                f"and references of {sorted(references)}"
            )
    kept: dict[str, DocumentSums] = {}
    result = evaluate_sae(
        inputs.sae,
        loaded,
        hook,
        {
            corpus: CorpusInputs(role, shards[corpus], None if planted else references[corpus])
            for corpus, role in roles.items()
        },
        TrainingFacts.of(shards_by_corpus(inputs.train_shards, {}), hook),
        settings,
        recipe,
        seed,
        sae_id="/".join(inputs.sae.parts[-5:]),
        batch_contexts=batch_contexts,
        scale=scale,
        kept=kept,
    )
    if document_sums is not None:
        fingerprints = {corpus: judged["fingerprint"] for corpus, judged in result["corpora"].items()}
        write_document_sums(document_sums, result["sae_id"], kept, fingerprints)
    write_json(target, result)
