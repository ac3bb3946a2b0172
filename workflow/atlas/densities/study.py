"""Histograms of firing densities of the SAEs of a study."""

from atlas.measure import Figure, Measure

MEASURE = Measure(
    "densities",
    writes="atlas.densities.study_table.write_densities_table",
    per_sae={"tables": "results/latents/{sae}/latents.parquet"},
    params={"corpora": lambda study: study.corpora},
    figure=Figure("atlas.densities.figure.draw_densities", kind="firing densities"),
)
