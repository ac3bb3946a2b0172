"""The columns of losses where there is no model that could have one: all null, with the reason."""

from typing import Any

import numpy as np

from atlas.config.study import Evaluation
from atlas.evaluation.losses import LossTable, RegularLosses, loss_metrics


def no_losses(settings: Evaluation, reason: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what `loss_metrics` gives, with None for every value, and the reason of each."""
    zero = np.zeros(1)
    nothing = LossTable(zero, zero, zero, zero, zero, zero, RegularLosses(zero, zero, zero, 0, 0))
    names = loss_metrics(nothing, "causal_lm", settings, reason)[0]
    return dict.fromkeys(names), {f"atlas_{name}": reason for name in names}
