"""Compare the SAEs of a study before and under a shift."""

from dataclasses import asdict

from atlas.config.plan import StudyPlan
from atlas.config.rows import SaeRow
from atlas.measure import Figure, Measure


def _shifted(study: StudyPlan) -> list[SaeRow]:
    return [row for row in study.rows if row.shift]


def _asks_for_transfer(study: StudyPlan) -> bool:
    """Studies that provoke regimes shift an SAE to see it fail."""
    return bool(_shifted(study)) and not any(row.intended for row in study.rows)


MEASURE = Measure(
    "transfer",
    writes="atlas.transfer.study_table.write_transfer_table",
    inputs={"results": lambda study: [f"results/shifted/{row.judged_id}/transfer.json" for row in _shifted(study)]},
    params={
        "rows": lambda study: [
            {"sae_id": row.sae_id, "shift": row.shift, "corpora": list(row.roles), **asdict(row.judged)}
            for row in _shifted(study)
        ]
    },
    in_all=_asks_for_transfer,
    figure=Figure("atlas.transfer.figure.draw_transfer", kind="transfer"),
)
