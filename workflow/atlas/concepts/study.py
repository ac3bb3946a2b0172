"""Labelled concepts of the SAEs of a study."""

from atlas.measure import Measure

MEASURE = Measure(
    "concepts",
    writes="atlas.concepts.study_table.write_concepts_table",
    per_sae={"results": "results/concepts/{sae}/concepts.json"},
)
