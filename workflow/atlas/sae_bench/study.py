"""SAE Bench beside our evaluation, for the SAEs of a study."""

from atlas.config.plan import StudyPlan
from atlas.measure import Measure
from atlas.sae_bench.refusals import refusal


def _refusals(study: StudyPlan) -> dict[str, str | None]:
    """SAEs of a study -> why SAE Bench does not judge them; None: it does."""
    seeds = study.config.sae_bench.seeds
    return {
        row.sae_id: (
            f"seed {row.seed} is none of sae_bench.seeds"
            if seeds is not None and row.seed not in seeds
            else refusal(row.hook, row.target_hook, study.config.models[row.model].objective)
        )
        for row in study.rows
    }


def _judged(pattern: str):
    """A file of every SAE of a study that SAE Bench judges."""
    return lambda study: [pattern.format(sae=sae) for sae, reason in _refusals(study).items() if reason is None]


MEASURE = Measure(
    "sae_bench",
    writes="atlas.sae_bench.study_table.write_study_table",
    inputs={
        "core": _judged("results/sae_bench/{sae}/core_run.json"),
        "probes": _judged("results/sae_bench/{sae}/probes_run.json"),
        "ours": _judged("results/sae_bench/{sae}/ours.json"),
        "metrics": _judged("results/metrics/{sae}/metrics.json"),
        "probing": _judged("results/probing/{sae}/probing.json"),
    },
    params={"refusals": _refusals, "corpora": lambda study: study.in_sample},
)
