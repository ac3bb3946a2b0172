"""The audit as a gate: made on a corpus' own tokens, and asked for before activations are stored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from atlas.devices import DTYPES
from atlas.errors import AuditError
from atlas.files import read_json
from atlas.models.audit import audit_model, write_audit
from atlas.models.load import LoadedModel

# Contexts that are audited: enough for quantiles of norms, few enough to take seconds.
N_CONTEXTS = 4


def audit_on_text(
    loaded: LoadedModel, tokens: np.ndarray, counted: np.ndarray, hooks: Sequence[str], storage_dtype: str, target: Path
) -> None:
    """Audit the first contexts of a tokenised corpus, (contexts, position) each, and write the report to `target`.

    A failed audit raises AuditError; its report is kept as ``<target stem>.failed.json``, because a workflow deletes
    the outputs of a failed job.
    """
    contexts = torch.from_numpy(tokens[:N_CONTEXTS].astype(np.int64)).to(loaded.device)
    mask = torch.from_numpy(np.array(counted[:N_CONTEXTS])).to(loaded.device)
    report = audit_model(loaded, contexts, mask, hooks, DTYPES[storage_dtype])
    failed = target.with_name(f"{target.stem}.failed.json")
    write_audit(report, target if report["status"] == "pass" else failed)
    failed.unlink(missing_ok=True)


def require_passed(audit: Path, loaded: LoadedModel, hooks: Sequence[str]) -> None:
    """Raise AuditError unless `audit` passed, for this model and all of `hooks`."""
    report = read_json(audit)
    remedy = "delete it and run again"
    if report["status"] != "pass":
        raise AuditError(f"{audit}: status is {report['status']!r}: nothing is harvested; mend the pipeline first")
    if report["weights_sha256"] != loaded.identity["weights_sha256"]:
        raise AuditError(f"{audit}: made for weights {report['weights_sha256'][:12]}…, the model has others; {remedy}")
    if missing := [hook for hook in hooks if hook not in report["norms"]]:
        raise AuditError(f"{audit}: hooks {missing} were not audited; {remedy}")
