"""Table and figure of the gain from more training rows, where one recipe has several lengths."""

from atlas.config.grid import has_budgets
from atlas.config.plan import StudyPlan
from atlas.measure import Figure, Measure


def _has_budgets(study: StudyPlan) -> bool:
    return has_budgets(study.rows) and not study.is_planted


MEASURE = Measure(
    "budget",
    writes="atlas.budget.study_table.write_budget_table",
    per_sae={"cards": "results/saes/{sae}/run_card.yaml"},
    inputs={
        "metrics_table": lambda study: f"results/{study.name}.csv",
        "usefulness_table": lambda study: f"results/{study.name}_usefulness.csv",
    },
    studies=_has_budgets,
    figure=Figure("atlas.budget.figure.draw_budget", kind="training budget", drawn=_has_budgets),
)
