"""Measure what the SAEs of a study see in financial text."""

from atlas.config.plan import StudyPlan
from atlas.measure import Figure, Measure


def _files(name: str):
    return lambda study: [f"results/finance/{study.name}/{sae}/{name}" for sae in study.saes]


def _baselines(study: StudyPlan) -> dict[str, str | None]:
    """Return for each SAE the one of its seed that saw no financial text; None: there is none."""
    corpus, general = study.config.finance[study.name].corpus, {}
    for row in study.rows:
        if corpus not in study.config.mixes[row.mix].corpora:
            general.setdefault((row.model, row.hook, row.recipe, row.seed), row.sae_id)
    return {row.sae_id: general.get((row.model, row.hook, row.recipe, row.seed)) for row in study.rows}


def _is_asked(study: StudyPlan) -> bool:
    return study.name in study.config.finance


MEASURE = Measure(
    "finance",
    writes="atlas.finance.study_table.write_finance_table",
    inputs={"results": _files("finance.json"), "draws": _files("draws.parquet")},
    params={
        "results_by": lambda study: study.saes,
        "draws_by": lambda study: study.saes,
        "baselines": _baselines,
    },
    studies=_is_asked,
    in_all=_is_asked,
    # A study of training text has one hook: its figure has mixes along x, where the others have layers.
    figure=Figure(
        "atlas.finance.figure.draw_finance",
        kind="figure",
        inputs={"table": "results/{study}.csv", "finance": "results/{study}_finance.csv"},
        is_main=True,
    ),
)
