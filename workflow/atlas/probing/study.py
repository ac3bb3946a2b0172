"""Sparse probes of the SAEs of a study."""

from atlas.measure import Measure

MEASURE = Measure(
    "probing",
    writes="atlas.probing.study_table.write_probing_table",
    per_sae={"results": "results/probing/{sae}/probing.json"},
)
