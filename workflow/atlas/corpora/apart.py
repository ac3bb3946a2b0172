"""No evaluation text is training text: the same text is refused, near-duplicates are counted or left out."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from atlas.corpora.near import THRESHOLD, bare_text, held_documents, nearest, same_text
from atlas.corpora.ordered import SCHEMA
from atlas.corpora.templates import Template
from atlas.corpora.tokens import open_documents
from atlas.errors import SourceError
from atlas.files import read_json, write_json
from atlas.tables import parquet_writer

log = logging.getLogger(__name__)

_BATCH_DOCUMENTS = 256
_EXAMPLES = 5


@dataclass(frozen=True)
class _Split:
    """One split of a corpus' documents."""

    path: Path
    split: str
    template: Template

    @classmethod
    def of(cls, path: Path, split: str) -> "_Split":
        return cls(Path(path), split, read_json(Path(path).with_name("corpus.json"))["template"])

    def documents(self) -> Iterator[tuple[str, str]]:
        """Id and bare text of each."""
        with open_documents(self.path) as file:
            for batch in file.iter_batches(_BATCH_DOCUMENTS, columns=["document_id", "split", "text"]):
                for document_id, split, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if split == self.split:
                        yield document_id, bare_text(text, self.template)

    def texts(self) -> Iterator[str]:
        """Bare text of each."""
        return (text for _, text in self.documents())

    def ids(self) -> list[str]:
        """Ids in order."""
        return [document_id for document_id, _ in self.documents()]


def write_apart(trained: Path, judged: Path, target: Path) -> None:
    """Write what `check_apart` finds."""
    write_json(target, check_apart(trained, judged))


def check_apart(trained: Path, judged: Path) -> dict[str, Any]:
    """Compare training documents of the corpus `trained` with evaluation documents of `judged`, both documents.parquet.

    Of two corpora the same text is a SourceError, whatever its template, white space and name. Near-duplicates are
    counted (docs/metrics.md, section 1): of all evaluation documents, or of the first, a uniform sample, if they have
    more words than are held in memory.
    """
    training, evaluation = _Split.of(trained, "train"), _Split.of(judged, "eval")
    n_training = _refuse_same(training, evaluation) if trained != judged else len(training.ids())
    held = next(held_documents(evaluation.texts()), [])
    found = nearest(held, training.texts())
    shown = found.near[found.share[found.near].argsort()[::-1][:_EXAMPLES]]
    names, trained_names = evaluation.ids(), training.ids() if len(shown) else []
    report = {
        "training_documents": n_training,
        "evaluation_documents": len(names),
        "compared_documents": len(held),
        "near_duplicates": len(found.near),
        "near_duplicate_share": len(found.near) / len(held) if held else None,
        "examples": [
            {
                "evaluation": names[index],
                "training": trained_names[found.training[index]],
                "shared": round(float(found.share[index]), 4),
            }
            for index in shown
        ],
    }
    if len(found.near):
        log.warning(
            "%d of %d evaluation documents of %s are near-duplicates of training documents of %s: more than %d %% of "
            "their runs of words are in one; near_duplicates: drop leaves out those of one corpus",
            len(found.near),
            len(held),
            judged,
            trained,
            100 * THRESHOLD,
        )
    return report


def _refuse_same(training: _Split, evaluation: _Split) -> int:
    """Raise SourceError for text on both sides; returns the number of training documents."""
    # The training corpus' own held-out documents, which the other holds too: near-duplicates within one corpus.
    own = set(replace(training, split="eval").ids())
    ids, same = set(), {}
    for document_id, text in evaluation.documents():
        ids.add(document_id)
        if document_id not in own:
            same[same_text(text)] = document_id
    shared, n_training = set(), 0
    for document_id, text in training.documents():
        n_training += 1
        if document_id in ids:
            shared.add(document_id)
        elif (digest := same_text(text)) in same:
            shared.add(same[digest])
    if shared:
        raise SourceError(
            f"{len(shared):,} of {len(evaluation.ids()):,} evaluation documents of {evaluation.path} are training "
            f"documents of {training.path}, for example {min(shared)}: text that was trained on cannot be evaluation "
            "text; give the two corpora different sources, or filters that exclude each other"
        )
    return n_training


def drop_near_duplicates(path: Path, template: Template) -> tuple[list[str], int]:
    """Rewrite documents.parquet without the evaluation documents that are near-duplicates of training documents.

    Returns the ids that are left out, and their characters as stored.
    """
    training, evaluation = _Split(path, "train", template), _Split(path, "eval", template)
    places: set[int] = set()
    first = 0
    for held in held_documents(evaluation.texts()):
        places.update((nearest(held, training.texts()).near + first).tolist())
        first += len(held)
    names = evaluation.ids()
    dropped = {names[place] for place in places}
    if not dropped:
        return [], 0
    kept, n_characters = path.with_name(f"{path.name}.kept"), 0
    with (
        open_documents(path) as file,
        parquet_writer(kept, SCHEMA, compression="zstd") as writer,
    ):
        for number in range(file.metadata.num_row_groups):
            table = file.read_row_group(number)
            out = [document_id in dropped for document_id in table["document_id"].to_pylist()]
            n_characters += sum(map(len, table.filter(pa.array(out))["text"].to_pylist()))
            writer.write_table(table.filter(pa.array([not each for each in out])))
    kept.replace(path)
    return sorted(dropped), n_characters
