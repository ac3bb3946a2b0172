#!/usr/bin/env bash
# hypothesaes 2.0.1: `load_model` gives a batch-top-k SAE back in training mode.
# Guess: a saved SAE that is loaded and called on some rows gives the same codes as before it was saved, call by call.
# Behaviour: calling it selects the largest codes of the whole batch, so a row's codes depend on its neighbours, and each
# call moves the stored threshold by a hundredth of the way to the smallest code that was kept. `get_activations`
# switches to evaluation and then uses the moved threshold: fewer latents fire than in the file's own SAE.
# Output seen (threshold in the file 0.5; active codes a row of the same 100 rows):
#   as loaded 19.99 a row; after 50 calls on these rows 11.50 a row, threshold 0.500 -> 0.937
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.2 tqdm==4.67.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps hypothesaes==2.0.1
"$folder/venv/bin/python" - "$folder/sae" <<'PYTHON'
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import torch

# The package imports clients of language models; the SAE is in a file that needs none of them.
place = next(file for file in importlib.metadata.files("hypothesaes") if file.name == "sae.py").locate()
spec = importlib.util.spec_from_file_location("sae", place)
hypothesaes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hypothesaes)

torch.manual_seed(0)
rows = torch.randn(100, 16)
sae = hypothesaes.SparseAutoencoder(16, 64, 4, use_batch_topk=True)
sae.initialize_weights_(rows)
sae.threshold.fill_(0.5)
path = str(Path(sys.argv[1]) / "sae.pt")
sae.save(path)


def active(model) -> float:
    return float((model.get_activations(rows, show_progress=False) > 0).sum(1).mean())


kept = hypothesaes.load_model(path, "cpu")
assert kept.training, "load_model switches to evaluation now"
as_loaded = active(kept)
assert abs(kept.threshold.item() - 0.5) < 1e-6

called = hypothesaes.load_model(path, "cpu")
alone = called(rows[:1])[1]["activations"]
together = called(rows)[1]["activations"][:1]
assert not torch.equal(alone > 0, together > 0), "codes of a row no longer depend on its batch"
for _ in range(50):
    called(rows)
after = active(called)
print(
    f"as loaded {as_loaded:.2f} a row; after 50 calls on these rows {after:.2f} a row, "
    f"threshold 0.500 -> {called.threshold.item():.3f}"
)
assert called.threshold.item() > 0.55 and after < 0.9 * as_loaded
PYTHON
