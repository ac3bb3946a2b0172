"""SAE Bench: which of our SAEs its own evaluations judge, and on what."""

from pydantic import Field

from atlas.config.base import Section, Seeds


class SaeBench(Section):
    """SAE Bench's core evaluation and its evaluation with sae-probes, in an environment of their own."""

    seeds: Seeds | None = Field(default=None, description="Seeds whose SAEs are judged; null: all of a study.")
    batch_contexts: int = Field(
        default=4, ge=1, description="Contexts of one batch: it keeps logits in float32, several times."
    )
    datasets: tuple[str, ...] = Field(
        default=("105_click_bait", "155_athlete_sport_basketball"),
        min_length=1,
        description="Data sets of sae-probes; of those in probing.datasets our numbers stand beside.",
    )
    ks: tuple[int, ...] = Field(default=(1, 2, 5), min_length=1, description="Numbers of latents of a probe.")
