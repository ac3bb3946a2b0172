#!/usr/bin/env bash
# SAELens 6.54.12: with `normalize_activations: layer_norm`, `decode` depends on the rows that were encoded last.
# Guess: `decode` is a function of the codes: codes that are kept and decoded later give the same reconstruction.
# Behaviour: `encode` keeps mean and spread of its rows in the object, `decode` scales by them and throws them away. Codes
# of one batch that are decoded after another batch of the same size was encoded come out on the other batch's scale,
# without a warning; a second `decode` in a row is an AttributeError.
# Output seen (largest difference of the reconstruction of the same codes):
#   decoded at once 0.0; after another encode 100 times as large; second decode: AttributeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sae-lens==6.54.12 transformer-lens==3.9.0
HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from sae_lens import SAE
from safetensors.torch import save_file

torch.manual_seed(0)
shapes = {"W_enc": (8, 16), "W_dec": (16, 8), "b_enc": (16,), "b_dec": (8,)}
release = Path(sys.argv[1]) / "release"
release.mkdir()
save_file({name: torch.randn(shape) for name, shape in shapes.items()}, release / "sae_weights.safetensors")
config = {"architecture": "standard", "d_in": 8, "d_sae": 16, "dtype": "float32", "device": "cpu"}
config |= {"normalize_activations": "layer_norm", "apply_b_dec_to_input": True}
(release / "cfg.json").write_text(json.dumps(config | {"metadata": {"sae_lens_version": "6.54.12"}}))
sae = SAE.load_from_disk(release, device="cpu")
rows = torch.randn(5, 8)
with torch.no_grad():
    codes = sae.encode(rows)
    at_once = sae.decode(codes)
    assert torch.equal(at_once, (sae.encode(rows), sae.decode(codes))[1])
    sae.encode(rows)
    sae.encode(100 * rows)
    later = sae.decode(codes)
    ratio = (later.norm() / at_once.norm()).item()
    try:
        sae.decode(codes)
        second = "works"
    except AttributeError:
        second = "AttributeError"
print(f"decoded at once 0.0; after another encode {ratio:.0f} times as large; second decode: {second}")
assert ratio > 10 and second == "AttributeError"
PYTHON
