"""The registry of architectures: one file each, one line here."""

from atlas.training.architectures.base import Architecture
from atlas.training.architectures.batch_topk import BATCH_TOPK
from atlas.training.architectures.gated import GATED
from atlas.training.architectures.inference_only import GROUP_MAX, NORM_TOPK
from atlas.training.architectures.jumprelu import JUMPRELU
from atlas.training.architectures.matryoshka_batch_topk import MATRYOSHKA_BATCH_TOPK
from atlas.training.architectures.relu import RELU
from atlas.training.architectures.topk import TOPK

ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry for entry in (TOPK, BATCH_TOPK, MATRYOSHKA_BATCH_TOPK, RELU, GATED, JUMPRELU)
}
# What a saved SAE may be: the trained ones, and those of other projects.
INFERENCE: dict[str, Architecture] = ARCHITECTURES | {entry.name: entry for entry in (GROUP_MAX, NORM_TOPK)}

__all__ = ["ARCHITECTURES", "INFERENCE", "Architecture"]
