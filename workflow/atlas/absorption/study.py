"""First-letter absorption of the SAEs of a study."""

from atlas.measure import Measure

MEASURE = Measure(
    "absorption",
    writes="atlas.absorption.study_table.write_absorption_table",
    per_sae={"results": "results/absorption/{sae}/absorption.json"},
)
