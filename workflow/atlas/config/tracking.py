"""Services that show the curves of a training while it runs; no part of any result."""

from typing import Literal

from pydantic import Field

from atlas.config.base import Section


class Wandb(Section):
    """Weights & Biases. The key comes from the environment variable WANDB_API_KEY, never from a file."""

    project: str = Field(min_length=1, description="Project that the runs appear in.")
    entity: str | None = Field(default=None, description="User or team; null: the default of the account.")
    mode: Literal["offline", "online"] = Field(
        default="offline", description="'offline' writes files that `wandb sync` uploads later; 'online' needs the key."
    )


class Tracking(Section):
    """Live views of training, below results/tracking/. Changing this reruns nothing."""

    tensorboard: bool = Field(default=False, description="Write TensorBoard event files.")
    wandb: Wandb | None = Field(default=None, description="Log to Weights & Biases; null: do not.")
