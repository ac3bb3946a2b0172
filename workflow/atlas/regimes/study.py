"""Regimes that rows of a study provoke, and how often each was called by its name."""

from atlas.config.plan import StudyPlan, metrics_of
from atlas.config.rows import SaeRow
from atlas.config.shifts import HOME
from atlas.measure import Figure, Measure


def _provoked(study: StudyPlan) -> list[SaeRow]:
    return [row for row in study.rows if row.intended]


MEASURE = Measure(
    "regimes",
    writes="atlas.regimes.study_table.write_regimes",
    inputs={
        "metrics": lambda study: [metrics_of(row.sae_id, row.shift) for row in _provoked(study)],
        "regimes": lambda study: [f"results/regimes/{row.sae_id}/{row.shift or HOME}.json" for row in _provoked(study)],
    },
    params={
        "rows": lambda study: [
            {"sae_id": row.sae_id, "shift": row.shift, "intended": row.intended, "cause": row.cause}
            for row in _provoked(study)
        ]
    },
    outputs={"table": "results/{study}_regimes.csv", "confusion": "results/{study}_confusion.csv"},
    studies=lambda study: bool(_provoked(study)),
    in_all=lambda study: bool(_provoked(study)),
    # A study of causes has one line per cause: its figure has no layers along x.
    figure=Figure(
        "atlas.regimes.figure.draw_regimes",
        kind="figure",
        params={"taxonomy": lambda study: study.config.evaluation.taxonomy.model_dump(mode="json")},
        is_main=True,
    ),
)
