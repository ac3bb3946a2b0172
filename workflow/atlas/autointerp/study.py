"""Labels of latents of the SAEs of a study, and their scores."""

from atlas.autointerp.cost import Cost, cost
from atlas.config.plan import StudyPlan
from atlas.measure import Figure, Measure, of_saes


def _asks(study: StudyPlan) -> str:
    """Say what labelling asks of a language model at most."""
    return f"labelling {sum((cost(study.config.autointerp, row.n_latents) for row in study.rows), Cost())}"


MEASURE = Measure(
    "autointerp",
    writes="atlas.autointerp.study_table.write_autointerp_table",
    inputs={
        "summary": of_saes("results/autointerp/{sae}/autointerp.json"),
        "latents": of_saes("results/autointerp/{sae}/latents.parquet"),
        "metrics": of_saes("results/metrics/{sae}/metrics.json"),
    },
    params={"saes_by": lambda study: study.saes, "corpus": lambda study: list(study.in_sample.values())},
    note=_asks,
    figure=Figure(
        "atlas.autointerp.figure.draw_autointerp",
        kind="labels",
        # Other studies would have to be labelled for it.
        drawn=lambda study: study.has_pages and study.config.site.labels,
    ),
)
