"""The columns of losses where there is no model that could have one: all null, with the reason."""

from dataclasses import fields
from typing import Any

import numpy as np

from atlas.config.study import Evaluation
from atlas.evaluation.losses import LossTable, loss_metrics


def no_losses(settings: Evaluation, reason: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What `loss_metrics` gives, with None for every value, and the reason of each."""
    nothing = LossTable(**{field.name: np.zeros(1) for field in fields(LossTable)})
    names = loss_metrics(nothing, "causal_lm", settings, reason)[0]
    return dict.fromkeys(names), {f"atlas_{name}": reason for name in names}
