"""Effects of latents of the SAEs of a study."""

from atlas.measure import Measure

MEASURE = Measure(
    "effects",
    writes="atlas.causal.study_table.write_effects_table",
    per_sae={"summaries": "results/effects/{sae}/effects.json"},
)
