"""Rows that have a dictionary teach an SAE more than its twins; noise, where there is none, does not."""

import numpy as np
import pytest
import torch
from training.planted import PlantedStream, recipe, train

from atlas.config.recipe import TWINS
from atlas.evaluation.document_sums import ALL, REGULAR, DocumentSums
from atlas.evaluation.losses import LossTable
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.statistics.clusters import jackknife_interval
from atlas.training.sae import load_sae
from atlas.twins.learnt import DECIDING, best_twin, learnt
from atlas.twins.measures import MEASURES

N_DOCUMENTS, LENGTH = 12, 64
(EXPLAINED,) = (measure for measure in MEASURES if measure.name == DECIDING)


class Noise(PlantedStream):
    """The same in all directions: no direction is better than a random one."""

    def rows(self, number, n_rows):
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        return self.scale * torch.randn(n_rows, self.d_model, generator=generator)


def sums_of(folder, stream: PlantedStream, kind) -> DocumentSums:
    """Train with or without a twin's limits; the sums of documents that were not trained on."""
    own = recipe(twin=kind, steps=200, warmup_steps=20, monitor_every=200, checkpoint_every=200)
    sae = load_sae(train(folder / str(kind), own, stream))
    rows = stream.rows(5 * 10**6, N_DOCUMENTS * LENGTH)
    document = torch.arange(N_DOCUMENTS).repeat_interleave(LENGTH)
    sums = ReconstructionSums.start(rows.double().mean(0), N_DOCUMENTS)
    sums.update(rows, sae.decode(sae.encode(rows)), document)
    nothing = np.zeros(len(rows))
    return DocumentSums.of({ALL: sums, REGULAR: sums}, LossTable(*[nothing] * 4, None, document.numpy()))


@pytest.mark.parametrize(("stream", "words"), [(PlantedStream, {"yes"}), (Noise, {"no", "unresolved"})])
def test_what_is_there_is_learnt_and_what_is_not_is_not(tmp_path, stream, words):
    stream = stream(batch_size=256)
    own, *twins = (sums_of(tmp_path, stream, kind) for kind in (None, *TWINS))
    values = dict(zip(TWINS, map(EXPLAINED.value, twins), strict=True))
    best = twins[TWINS.index(best_twin(values, higher_is_better=True))]
    whole = EXPLAINED.better_by(own, best, np.ones((1, N_DOCUMENTS)))[0]
    interval = jackknife_interval(whole, EXPLAINED.better_by(own, best, 1 - np.eye(N_DOCUMENTS)))
    assert learnt(interval) in words
