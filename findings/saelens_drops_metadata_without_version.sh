#!/usr/bin/env bash
# SAELens 6.54.12: an SAE whose metadata does not name a version of SAELens loses all its metadata on loading.
# Guess: `SAE.load_from_disk` reads `metadata` of cfg.json as it stands, whoever wrote the file; the version is a note.
# Behaviour: without `sae_lens_version`, or with one below 6.0, the file is taken for one of the old flat layout. The
# nested metadata is dropped without a warning: the hook and the model are None, and `prepend_bos: false` becomes true, so
# activations would be collected with a token that the SAE has never seen. With a version that does not exist ("99.0")
# everything is kept.
# Output seen:
#   with version 99.0: hook blocks.3.hook_resid_post, prepend_bos False
#   without version:   hook None, prepend_bos True, 0 warnings
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sae-lens==6.54.12 transformer-lens==3.9.0
HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
import warnings
from pathlib import Path

import torch
from sae_lens import SAE
from safetensors.torch import save_file

shapes = {"W_enc": (8, 16), "W_dec": (16, 8), "b_enc": (16,), "b_dec": (8,)}
torch.manual_seed(0)
weights = {name: torch.randn(shape) for name, shape in shapes.items()}
config = {"architecture": "standard", "d_in": 8, "d_sae": 16, "dtype": "float32", "device": "cpu"}
metadata = {"hook_name": "blocks.3.hook_resid_post", "model_name": "gpt2", "prepend_bos": False}
found = {}
for name, version in (("with version 99.0", {"sae_lens_version": "99.0"}), ("without version", {})):
    release = Path(sys.argv[1]) / name.replace(" ", "_")
    release.mkdir()
    save_file(weights, release / "sae_weights.safetensors")
    (release / "cfg.json").write_text(json.dumps(config | {"metadata": metadata | version}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sae = SAE.load_from_disk(release, device="cpu")
    kept = sae.cfg.metadata
    found[name] = (kept.hook_name, kept.prepend_bos)
    about = sum("metadata" in str(each.message) or "version" in str(each.message) for each in caught)
    print(f"{name}: hook {kept.hook_name}, prepend_bos {kept.prepend_bos}, {about} warnings")
    assert about == 0
assert found["with version 99.0"] == ("blocks.3.hook_resid_post", False)
assert found["without version"] == (None, True), "metadata is kept now"
PYTHON
