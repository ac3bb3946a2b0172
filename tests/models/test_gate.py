import json

import numpy as np
import pytest

from atlas.errors import AuditError
from atlas.models.gate import audit_on_text, require_passed
from tiny import prepare_and_load, tiny_llama

HOOKS = ["resid_post.0", "resid_post.1"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return prepare_and_load(tiny_llama(folder / "source"), folder / "prepared", n_layers=4)


def audit(loaded, target, hooks=HOOKS):
    tokens = np.random.default_rng(0).integers(70, 96, (6, 32)).astype(np.uint32)
    audit_on_text(loaded, tokens, np.ones(tokens.shape, bool), hooks, "float32", target)


def test_passed_audit_opens_the_gate_for_its_model_and_hooks(loaded, tmp_path):
    audit(loaded, tmp_path / "m.json")
    require_passed(tmp_path / "m.json", loaded, HOOKS)
    with pytest.raises(AuditError, match=r"m\.json: hooks \['mlp_out\.1'\] were not audited"):
        require_passed(tmp_path / "m.json", loaded, ["mlp_out.1"])


def test_failed_audit_leaves_no_target_but_keeps_its_report(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr("atlas.models.checks._LEAST_EFFECT", {"causal_lm": 1e9})
    with pytest.raises(AuditError, match="zero_ablation_matters"):
        audit(loaded, tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()
    assert json.loads((tmp_path / "m.failed.json").read_text())["status"] == "fail"


def test_failed_or_foreign_report_keeps_the_gate_shut(loaded, tmp_path):
    audit(loaded, tmp_path / "m.json")
    report = json.loads((tmp_path / "m.json").read_text())
    for changes, message in (({"status": "fail"}, "nothing is harvested"), ({"weights_sha256": "0" * 64}, "other")):
        (tmp_path / "x.json").write_text(json.dumps(report | changes))
        with pytest.raises(AuditError, match=message):
            require_passed(tmp_path / "x.json", loaded, HOOKS)
